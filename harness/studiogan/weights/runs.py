"""Import of StudioGAN's checkpoints, or of a single generator file, as a run; export of a run for StudioGAN."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.checkpoints.checkpoint import checkpoint_folder, read_meta, save_checkpoint
from harness.checkpoints.load import find_checkpoint
from harness.config.class_choice import to_class_names
from harness.config.experiment import Config, check_config, config_to_dict, load_config, read_yaml
from harness.config.yaml_files import merge, parse_overrides
from harness.errors import UserError
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.output import check_output
from harness.storage.rundir import RunDir, new_run, translate_disk_errors
from harness.studiogan.dialects.convert import config_to_text, read_foreign
from harness.studiogan.dialects.table import safe_name
from harness.studiogan.weights.convert import count_classes, export_checkpoint, foreign_to_parts
from harness.studiogan.weights.files import ForeignCheckpoint, When, read_foreign_checkpoint
from harness.studiogan.weights.infer_config import infer_config
from harness.studiogan.weights.names import is_adam


def import_run(
    path: Path,
    name: str | None = None,
    config: Path | None = None,
    root: Path = Path("runs"),
    *,
    when: When = "current",
    overrides: Iterable[str] = (),
) -> Path:
    """StudioGAN's checkpoint → runs/<name>/, a finished run with one checkpoint. Returns the run's folder.

    Args:
        path: folder with model=G-..., D and optionally G_ema (the newest step is read), or a single generator file.
        name: None = the config's, or StudioGAN's own name of the run.
        config: our YAML, or StudioGAN's JSON or YAML; None = inferred from the weights, the rest as in base.yaml.
        when: which of StudioGAN's two checkpoints, current or best.
        overrides: `section.key=value`, applied to the config.

    Raises:
        UserError: a file is missing, damaged, of another shape or not data; nothing is written then.
    """
    foreign = read_foreign_checkpoint(Path(path), when)
    resolved, unknown = _config_of(foreign, config)
    changes: dict[str, Any] = {"name": name} if name else {}
    if "G_ema" not in foreign.contents and Path(path).is_file():
        changes["model"] = {"apply_g_ema": False}  # a single file has no second generator
    given = parse_overrides(overrides)
    resolved = check_config(merge(merge(config_to_dict(resolved), changes), given), str(config or path))
    _drop_other_optimizers(foreign)
    names = _class_names(foreign, count_classes(foreign) if resolved.model.conditional else 0)
    facts = {"data_sha256": None, "class_names": names, "imported_from": str(Path(path).resolve())}
    parts = foreign_to_parts(foreign, resolved, facts)

    final = Path(root) / resolved.name
    if final.exists():
        raise UserError(f"name: found {final} already, allowed a name without a run, try --name {resolved.name}-2")
    _log_defaults(path, [key for key in unknown if key.split(".")[1] not in given.get(key.split(".")[0], {})], resolved)
    _write_run(final, resolved, parts, f"imported from {path}")
    return final


def _class_names(foreign: ForeignCheckpoint, count: int) -> list[str]:
    """From our own export, which stores them with the weights; otherwise numbers, as in StudioGAN."""
    found = foreign.fact("class_names")
    if isinstance(found, list) and len(found) == count and all(isinstance(name, str) for name in found):
        return to_class_names(found)
    return [str(number) for number in range(count)]


def _write_run(final: Path, config: Config, parts: tuple[Any, dict[str, Any], dict[str, Any]], text: str) -> None:
    """Creates the run's folder atomically."""
    weights, state, meta = parts
    with translate_disk_errors(final), new_run(final, config) as run:
        save_checkpoint(checkpoint_folder(run.checkpoints, meta["step"]), weights, state, meta)
        run.write_env(**{key: meta[key] for key in ("data_sha256", "class_names", "imported_from")})
        run.write_status("done", step=meta["step"], total_steps=config.optim.total_steps, message=text)
        run.log(text)


def _log_defaults(path: Path, keys: list[str], config: Config) -> None:
    values = config_to_dict(config)
    defaults = [f"{key}={values[section][part]}" for key in keys for section, part in [key.split(".")]]
    if defaults:
        log(f"{path}: not known from the weights, taken from base.yaml: {', '.join(defaults)}")


def _config_of(foreign: ForeignCheckpoint, config: Path | None) -> tuple[Config, list[str]]:
    """The given config, or the one inferred from the weights; and the keys taken from base.yaml."""
    if config is None:
        return infer_config(foreign, safe_name(str(foreign.fact("run_name") or ""), "imported"))
    is_foreign = config.suffix == ".json" or any(str(key).isupper() for key in read_yaml(config))
    return read_foreign(config) if is_foreign else load_config(config), []


def _drop_other_optimizers(foreign: ForeignCheckpoint) -> None:
    for letter, content in foreign.contents.items():
        if content.get("optimizer") is not None and not is_adam(content["optimizer"]):
            log(f"{foreign.files[letter]}: its optimiser is not Adam, so its state is left out")
            del content["optimizer"]


def export_run(
    name: str,
    out: Path,
    version: str = "0.2.0",
    checkpoint: str | None = None,
    force: bool = False,
    root: Path = Path("runs"),
) -> Path:
    """A run's checkpoint as StudioGAN's files in folder `out`, with its config. Returns the folder.

    Args:
        version: "0.2.0" or "0.4.0".
        checkpoint: None = the newest, `best`, or the name of a folder under checkpoints/.
        force: replace a config in `out` that no export wrote.
    """
    if version not in ("0.2.0", "0.4.0"):
        raise UserError(f"version: found {version!r}, allowed 0.2.0 and 0.4.0, try 0.2.0")
    run = RunDir.existing(name, root)
    folder = find_checkpoint(run.checkpoints, checkpoint)
    config, out = run.read_config(), Path(out)
    exported_before = any(out.glob("model=*.pth"))
    with translate_disk_errors(run.path):
        export_checkpoint(folder, out, version=version, seed=config.seed, run_name=config.name)
        try:
            studiogan = config.studiogan.model_copy(update={"version": version})
            exported = config.model_copy(update={"studiogan": studiogan})
            file, text = config_to_text(exported, max(1, read_meta(folder)["num_classes"]))
        except UserError as error:  # the weights are useful without it
            log(f"{out}: written without a config for StudioGAN, because {error}")
        else:
            check_output(out / file, lambda path: exported_before or path.read_text(errors="replace") == text, force)
            atomic_write(out / file, text)
    return out
