"""Our config ↔ StudioGAN's: the JSON of 0.2.0 (v020.py) and the YAML of 0.4.0 (v040.py).

In: a `Config`, or a file written for StudioGAN. Out: that file, or a `Config`. Keys that the other side does not have
are refused by name. StudioGAN itself is not needed. Imports no torch.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from harness.config.experiment import Config, finetune_config, read_yaml
from harness.config.yaml_files import MAX_BYTES
from harness.errors import UserError, reason_of
from harness.files import open_file
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import open_packed
from harness.storage.rundir import refuse_other_size
from harness.studiogan.dialects.table import safe_name
from harness.studiogan.dialects.v020 import config_from_020, config_to_020
from harness.studiogan.dialects.v040 import TEMPLATE as TEMPLATE_040
from harness.studiogan.dialects.v040 import config_from_040, config_to_040


def config_to_text(config: Config, num_classes: int) -> tuple[str, str]:
    """(file name, content) for config.studiogan.version: `config.json` or `config.yaml`."""
    if config.studiogan.version == "0.2.0":
        return "config.json", json.dumps(config_to_020(config, num_classes), indent=2) + "\n"
    return "config.yaml", yaml.safe_dump(config_to_040(config, num_classes), sort_keys=False)


def write_configs(config: Config, root: Path = Path("runs")) -> list[Path]:
    """StudioGAN's configs for this run and for its FreezeD run: `<root>/<name>/studiogan.{json,yaml}`, both or none.

    The runs need not exist, nor their sets, unless the model is conditional: then the classes are counted there.
    """
    refuse_other_size(config, root)
    texts = {}
    for each in (config, finetune_config(config)):
        name, text = config_to_text(each, count_classes(each))
        texts[Path(root) / each.name / f"studiogan{Path(name).suffix}"] = text
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, text)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return list(texts)


def count_classes(config: Config) -> int:
    """Classes of the packed training set; 1 for an unconditional model without a set."""
    path = config.data.hdf5_path("train")
    if path.exists():
        with open_packed(path) as packed:
            return len(packed.class_names)
    if config.model.conditional:
        raise UserError(
            f"data.set: found no {path}, allowed a packed set (its classes are counted), try `make dataset`"
        )
    return 1


def read_foreign(path: Path | str) -> Config:
    """A StudioGAN config as one of ours, named after its file: .json = 0.2.0, .yaml or .yml = 0.4.0.

    UserError names everything that is wrong with it or not supported.
    """
    path = Path(path)
    name = safe_name(path.stem, "foreign")
    if path.suffix == ".json":
        return config_from_020(_read_json(path), name, str(path))
    if path.suffix in (".yaml", ".yml"):
        content = read_yaml(path)
        if not set(content) & set(TEMPLATE_040):
            allowed = ", ".join(TEMPLATE_040)
            raise UserError(f"{path}: found none of {allowed}, allowed a config of StudioGAN 0.4.0 with them")
        return config_from_040(content, name, str(path))
    raise UserError(f"{path}: found {path.suffix or 'no ending'}, allowed .json (StudioGAN 0.2.0) or .yaml (0.4.0)")


def _read_json(path: Path) -> Any:
    """A JSON file's content. UserError for what is not valid JSON, including repeated keys and NaN."""
    try:
        with open_file(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: found more than {MAX_BYTES} bytes, allowed a config")
        text = content.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"config: cannot read {path} ({error.strerror})") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid JSON: nested too deeply") from error
    except ValueError as error:  # syntax, bytes that are not UTF-8, numbers of 5,000 digits
        raise UserError(f"{path}: not valid JSON: {reason_of(error)}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is repeated, keep one")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
