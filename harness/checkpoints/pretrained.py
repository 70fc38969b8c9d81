"""Opens the repository's ready-made model as ordinary runs.

In: `harness/weights/pretrained/`, made by `harness/checkpoints/pack_pretrained.py`. Out: runs/pretrained,
runs/pretrained-freezed and packed sets of a few held-out pictures of each.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from PIL import Image
from pydantic import BaseModel, TypeAdapter
from torch import Tensor

from harness.checkpoints.checkpoint import checkpoint_folder, save_checkpoint
from harness.checkpoints.chosen_config import READY_MADE
from harness.config.experiment import Config, check_config, complete_config, config_to_dict
from harness.config.yaml_files import merge
from harness.errors import UserError
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import PackedWriter
from harness.storage.json_files import read_json
from harness.storage.rundir import new_run, translate_disk_errors

PRETRAINED = Path(__file__).parents[1] / "weights" / "pretrained"
FACTS_FILE = "pretrained.json"
BASE, TUNED = READY_MADE, f"{READY_MADE}-freezed"
# Sections of a config that concern a finished model, not its training.
LATER_SECTIONS = ("finetune", "encoder", "inversion", "blend", "evaluate")
REMEDY = "put it back, for example with `git checkout harness/weights`"


class PackedRun(BaseModel):
    step: int
    num_classes: int
    class_names: list[str]
    data_sha256: str | None
    config: dict[str, Any]
    seconds: float
    machine: str


class GallerySheet(BaseModel):
    """A sheet of held-out pictures; `path`: of the packed set made from it."""

    path: str
    img_size: tuple[int, int]
    class_names: list[str]
    sheet: str


class PretrainedFile(BaseModel):
    runs: dict[str, PackedRun]
    sets: dict[str, GallerySheet]
    metrics: dict[str, dict[str, Any]]
    sha256: dict[str, str]


FACTS = TypeAdapter(PretrainedFile)


@cache
def pretrained_facts(folder: Path = PRETRAINED) -> dict[str, Any]:
    """pretrained.json: `runs` (config, step, seconds, ...), `sets`, `metrics`, and the sha256 of every file. UserError
    when a file is missing or damaged."""
    facts = read_json(folder / FACTS_FILE, REMEDY, FACTS)
    if facts is None:
        raise UserError(f"{folder / FACTS_FILE}: found no ready-made model; {REMEDY}")
    for name, sha256 in facts["sha256"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise UserError(f"{path}: is missing or damaged (sha256 differs); {REMEDY}")
    return facts


def open_pretrained(root: Path = Path("runs"), folder: Path = PRETRAINED) -> Path:
    """Creates the runs of the ready-made model, and the sets of its gallery, unless they exist. Returns the checkpoint
    folder of the base run."""
    facts = pretrained_facts(folder)
    with translate_disk_errors(root / BASE):
        for name in (TUNED, BASE):  # the base run last: when it exists, all exist
            if not (root / name).exists():
                _write_run(root / name, facts, name, folder, _config_of(facts, name))
        for set_facts in facts["sets"].values():
            _write_parents(set_facts, folder)
    return checkpoint_folder(root / BASE / "checkpoints", facts["runs"][BASE]["step"])


def copy_pretrained(config: Config, root: Path = Path("runs"), folder: Path = PRETRAINED) -> None:
    """A copy of the base run under this config's name, with the config's LATER_SECTIONS: the base of an own
    fine-tuning.
    """
    facts, later = pretrained_facts(folder), config_to_dict(config)
    content = merge(config_to_dict(_config_of(facts, BASE)), {key: later[key] for key in LATER_SECTIONS})
    renamed = check_config({**content, "name": config.name}, FACTS_FILE)
    with translate_disk_errors(root / config.name):
        _write_run(root / config.name, facts, BASE, folder, renamed)
        for set_facts in facts["sets"].values():
            _write_parents(set_facts, folder)
    log(f"{root / config.name}: the ready-made model, to be fine-tuned")


def pretrained_changes() -> list[str]:
    """Overrides for a training that starts from it: its networks, and no warm-up, because it can reconstruct
    already.
    """
    model = pretrained_facts()["runs"][BASE]["config"]["model"]
    return ["reconstruction.warmup_steps=0", *(f"model.{key}={json.dumps(value)}" for key, value in model.items())]


def _config_of(facts: dict[str, Any], name: str) -> Config:
    return check_config(complete_config(facts["runs"][name]["config"]), FACTS_FILE)


def _write_run(final: Path, facts: dict[str, Any], name: str, folder: Path, config: Config) -> None:
    """Creates the run's folder atomically."""
    run_facts = facts["runs"][name]
    kept = {key: run_facts[key] for key in ("data_sha256", "class_names", "finetuned_from") if key in run_facts}
    meta = {
        "step": run_facts["step"],
        "num_classes": run_facts["num_classes"],
        "config": config_to_dict(config),
        **kept,
    }
    weights = {path.stem: _to_full(safetensors.torch.load_file(path)) for path in sorted((folder / name).iterdir())}
    with new_run(final, config) as run:
        save_checkpoint(
            checkpoint_folder(run.checkpoints, run_facts["step"]), weights, {"step": run_facts["step"]}, meta
        )
        if name == BASE:
            _copy_measures(folder / "measures", run.path / "measures")
            for key, figures in facts["metrics"].items():
                run.write_metrics(key, figures)
        minutes = round(run_facts["seconds"] / 60)
        origin = f"the ready-made model that comes with Carforge, trained on drawn cars for {minutes} minutes"
        origin += f" ({run_facts['machine']})"
        run.write_env(pretrained=origin, **kept)
        run.write_status("done", step=run_facts["step"], total_steps=run_facts["step"], message=origin)
        run.log(f"opened: {origin}")


def _to_full(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _copy_measures(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.glob("*")):  # none while the model is being packed
        atomic_write(target / path.name, path.read_bytes())


def _write_parents(set_facts: dict[str, Any], folder: Path) -> None:
    """Packs a sheet of held-out pictures as a set, unless the set exists, from here or from its config."""
    path, (height, width) = Path(set_facts["path"]), set_facts["img_size"]
    if path.exists() or path.with_name(path.name.replace("_valid", "_train")).exists():
        return
    with Image.open(folder / set_facts["sheet"]) as sheet:  # its sha256 has been checked
        pixels = np.asarray(sheet.convert("RGB"))
    about = {"split": "valid", "origin": "held-out pictures that came with the ready-made model"}
    with PackedWriter(path, height, width, set_facts["class_names"], about) as writer:
        for picture in cut_sheet(pixels, height, width):
            writer.append(picture, 0)


def cut_sheet(sheet: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pictures of a sheet without gaps, row by row: uint8 (N, height, width, 3)."""
    rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
    cells = sheet.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(rows * columns, height, width, 3))
