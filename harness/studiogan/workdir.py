"""StudioGAN's working folder, created for every start with the files at the paths that StudioGAN expects.

In: a config, its packed pictures, the job. Out: runs/<name>/studiogan/ with JOB.json, the rendered config, the HDF5
file, a folder of PNGs; later, StudioGAN's saves.
"""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from pydantic import BaseModel, TypeAdapter

from harness.config.experiment import Config
from harness.images.decode import save_png
from harness.storage.atomic import atomic_write, remove_folder
from harness.storage.hdf5 import PackedSet
from harness.storage.json_files import read_json_or_none
from harness.storage.rundir import RunDir
from harness.storage.splits import open_evaluation_rows

SAVE_NAME = re.compile(r"step-([0-9]{8})")
FACTS = "facts.json"
ROWS_AT_ONCE = 256


class StartFacts(BaseModel):
    """What `write_job` stores of a start: the config, and the facts for each checkpoint."""

    config: dict[str, Any]
    facts: dict[str, Any]


STARTED = TypeAdapter(StartFacts)


def workdir_of(rundir: RunDir) -> Path:
    return rundir.path / "studiogan"


def make_workdir(rundir: RunDir, config: Config, packed: PackedSet, rendered: tuple[str, str]) -> Path:
    """A new folder with pictures and config, instead of an earlier start's.

    Args:
        rendered: file name and text of the config in StudioGAN's format.
    """
    folder = workdir_of(rundir)
    if os.path.lexists(folder):
        remove_folder(folder)
    (folder / "data" / "CUSTOM").mkdir(parents=True)
    name, text = rendered
    (folder / name).write_text(text, encoding="utf-8")
    if config.studiogan.version == "0.2.0":
        link_packed(packed.path, folder / "data" / "CUSTOM" / f"custom_{packed.height}_train.hdf5")
    else:
        data_name = yaml.safe_load(text)["DATA"]["name"]
        copy_channels_last(packed, folder / "data" / "CUSTOM" / f"{data_name}_{packed.height}_wo_resize_train.hdf5")
    write_valid(config, packed, folder / "data" / "CUSTOM" / "valid")
    return folder


def link_packed(source: Path, target: Path) -> None:
    """The packed set under the name that StudioGAN 0.2.0 expects; it only reads the file."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or no hard links
        target.symlink_to(source.resolve())


def copy_channels_last(packed: PackedSet, target: Path) -> None:
    """imgs uint8 (N, H, W, 3) and labels int64 (N,), as StudioGAN 0.4.0 reads them (src/data_util.py)."""
    with h5py.File(target, "w") as file:
        shape = (packed.height, packed.width, 3)
        imgs = file.create_dataset("imgs", (packed.count, *shape), "uint8", chunks=(1, *shape))
        for begin in range(0, packed.count, ROWS_AT_ONCE):
            rows = np.arange(begin, min(begin + ROWS_AT_ONCE, packed.count))
            imgs[begin : begin + len(rows)] = packed.read(rows)
        file["labels"] = packed.labels.astype(np.int64)


def write_valid(config: Config, packed: PackedSet, folder: Path) -> None:
    """Square PNGs, a folder for each class: StudioGAN opens them even when it never evaluates.

    It numbers classes by the order of these folders, so each class needs one with at least one picture (see
    `preflight`).
    """
    if not config.studiogan.evaluate:
        _write_pngs(packed, np.unique(packed.labels, return_index=True)[1], folder)  # one of each class
    else:
        with open_evaluation_rows(config.data, config.evaluate.split) as real:
            _write_pngs(real.packed, real.rows, folder)


def _write_pngs(packed: PackedSet, rows: np.ndarray, folder: Path) -> None:
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[begin : begin + ROWS_AT_ONCE]
        for row, picture in zip(part.tolist(), packed.read(part), strict=True):
            path = folder / f"{int(packed.labels[row]):04d}" / f"{row:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(path, picture)


def write_job(folder: Path, job: dict[str, Any], facts: dict[str, Any]) -> None:
    """JOB.json for the shim, and the facts with which a later start can import leftover saves."""
    atomic_write(folder / FACTS, json.dumps(facts))
    atomic_write(folder / "JOB.json", json.dumps(job, indent=1))


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What `write_job` stored; None without an earlier start."""
    return read_json_or_none(folder / FACTS, STARTED)


def list_saves(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of StudioGAN's complete saves, oldest first."""
    found = []
    with suppress(FileNotFoundError):
        for path in (folder / "checkpoints").iterdir():
            if (named := SAVE_NAME.fullmatch(path.name)) and path.is_dir():
                found.append((int(named[1]), path))
    return sorted(found)


def drop_saves(folder: Path, step: int) -> None:
    """Removes the saves up to this step, which have been imported."""
    for saved_step, path in list_saves(folder):
        if saved_step <= step:
            shutil.rmtree(path)
