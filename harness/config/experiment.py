"""Loads an experiment: `configs/*.yaml` with `extends` and `--set section.key=value` → a frozen `Config`.

The whole config is checked, and every problem reported at once. Imports no torch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from harness.config.checks import BASE_PATH, all_keys, d_block_count, find_problems, finetune_content
from harness.config.paths import expand_path
from harness.config.schema import (
    Augment,
    Blend,
    Config,
    Data,
    EncoderSettings,
    Evaluate,
    Finetune,
    Inversion,
    Loss,
    Model,
    Optim,
    ReconstructionSettings,
    Studiogan,
    Train,
)
from harness.config.validation import problems_error
from harness.config.yaml_files import merge, parse_overrides, read_with_extends, read_yaml, rename_old_keys
from harness.errors import NewerVersion, UserError

__all__ = [
    "Augment", "Blend", "Config", "Data", "EncoderSettings", "Evaluate", "Finetune", "Inversion", "Loss", "Model",
    "Optim", "ReconstructionSettings", "Studiogan", "Train", "all_keys", "check_config", "check_kept_config",
    "complete_config", "config_differences", "config_to_dict", "config_to_yaml", "d_block_count", "epochs_to_steps",
    "expand_path", "finetune_config", "load_config", "read_yaml", "source_folder",
]  # fmt: skip

RUN_CONFIG = "config.yaml"  # in a run's folder: its whole config

# Added after whole configs had been written into runs: a file without them is not incomplete.
LATER_KEYS = (
    *("reconstruction", "optim.cosine_from", "data.looseness", "data.layout", "data.ignore"),
    *("reconstruction.colour_weight", "reconstruction.sample_passes", "encoder.polish_steps"),
)


def load_config(path: Path | str, overrides: Iterable[str] = ()) -> Config:
    """Reads and checks one experiment. UserError with every problem, one per line."""
    path = Path(path)
    kept = _with_later_keys(read_with_extends(path))
    if path.name == RUN_CONFIG and (path.parent / "checkpoints").is_dir():
        kept = with_name(kept, path.resolve().parent.name)
    content = merge(kept, parse_overrides(overrides))
    if content.get("name") is None:
        content["name"] = path.stem
    return check_config(content, str(path))


def with_name(content: dict[str, Any], name: str) -> dict[str, Any]:
    """A run's config under its folder's name, which may have changed since the run began."""
    finetune = content.get("finetune")
    if isinstance(finetune, dict) and finetune.get("from_run") == content.get("name"):
        content = {**content, "finetune": {**finetune, "from_run": None}}
    return {**content, "name": name}


def _with_later_keys(content: dict[str, Any]) -> dict[str, Any]:
    """Adds base.yaml's values, which change nothing, for keys that an earlier version's whole config lacks."""
    base = read_yaml(BASE_PATH) if BASE_PATH.is_file() else {}
    for key in LATER_KEYS:
        section, _, leaf = key.partition(".")
        inside = content.get(section)
        if not leaf and section in base:
            content = {section: base[section], **content}
        elif leaf and isinstance(inside, dict) and section in base:
            content = {**content, section: {leaf: base[section][leaf], **inside}}
    return content


def check_config(content: dict[str, Any], origin: str) -> Config:
    """Nested dicts → Config, or one UserError with all problems: unknown keys, types, ranges, combinations."""
    config, problems = find_problems(content)
    if config is None:
        raise problems_error(origin, problems)
    return config


def complete_config(kept: dict[str, Any]) -> dict[str, Any]:
    """A run's config with current names, and base.yaml's values for keys added since."""
    kept = rename_old_keys(kept)
    whole = merge(read_yaml(BASE_PATH), kept)
    if "override" in kept.get("finetune", {}):  # not merged: keys may be left out on purpose
        whole["finetune"]["override"] = kept["finetune"]["override"]
    return whole


def check_kept_config(kept: dict[str, Any], origin: str) -> Config:
    """The config of a run or a checkpoint. It was valid once, so an invalid one raises NewerVersion in one line."""
    try:
        return check_config(complete_config(kept), origin)
    except UserError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise NewerVersion(
            f"{origin}: was written by a newer version of Carforge, or changed by hand ({problems[0]}{more}); update "
            "this checkout, or put back what was there"
        ) from error


def finetune_config(config: Config) -> Config:
    """The config of the fine-tuning run: this one with `finetune.override`, named `<source run>-freezed`."""
    content = finetune_content(config, config.finetune.override)
    return check_config({**content, "name": finetuned_name(config)}, "finetune")


def base_name(config: Config) -> str:
    """The run that fine-tuning starts from; its folder also holds what is made with both runs."""
    return config.finetune.from_run or config.name


def finetuned_name(config: Config) -> str:
    """The run that fine-tuning writes."""
    return f"{base_name(config)}-freezed"


def epochs_to_steps(config: Config, pictures: int) -> Config:
    """The config with epochs converted to steps (optim.total_steps, optim.z_schedule) for a training set of `pictures`.
    Steps per epoch are rounded up."""
    optim = config.optim
    per_epoch = -(-pictures // (optim.batch_size * optim.acml_steps))
    changes: dict[str, Any] = {}
    if optim.total_epochs is not None:
        changes["total_steps"] = optim.total_epochs * per_epoch
    if optim.z_schedule is not None and optim.z_schedule_unit == "epochs":
        changes["z_schedule"] = tuple((start * per_epoch, size) for start, size in optim.z_schedule)
        changes["z_schedule_unit"] = "steps"
    return config.model_copy(update={"optim": optim.model_copy(update=changes)})


def config_to_dict(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def config_to_yaml(config: Config) -> str:
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) where they differ; None where a side lacks the key."""
    differences = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            differences += config_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            differences.append((prefix + key, a, b))
    return differences


def source_folder(data: Data) -> Path:
    """The folder of a set with `source: folder`; UserError if unset or missing. Only needed to build the set."""
    hint = "allowed a folder of pictures, try SRC=path/to/pictures after make, or --set data.src=path/to/pictures"
    if data.src is None:
        raise UserError(f"data.src: found nothing, {hint}")
    folder = expand_path(data.src)
    if not folder.is_dir():
        raise UserError(f"data.src: found no folder {folder}, {hint}")
    return folder
