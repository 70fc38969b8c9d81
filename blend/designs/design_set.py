"""A set of designs on disk: PNG files with their measures inside, a list of them, and a grid.

Out: runs/<base>/blends/<set>/{0000.png ..., designs.jsonl, grid.png, request.json}, complete or absent.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blend.generator.dial import DialPosition
from harness.images.decode import TEXT_KEY, picture_grid, save_png
from harness.storage.atomic import atomic_folder, atomic_write, clean_leftovers, remove_folder, sync_folder
from harness.storage.cache import key_sha256
from harness.storage.json_files import read_json_lines, read_json_or_none, to_json

SWEEP_SET = "sweep"  # the set of `make measure`


@dataclass(frozen=True)
class Design:
    """Where a design comes from. `seed`: of a car without parents. `target_futurism`: the score it was solved for."""

    position: DialPosition
    intensity: float | None
    ordinary: str | None = None
    concept: str | None = None
    seed: int | None = None
    target_futurism: float | None = None

    @property
    def name(self) -> str:
        return f"{self.ordinary} with {self.concept}" if self.seed is None else f"seed {self.seed}"

    def row(self, file: str, measures: dict[str, Any]) -> dict[str, Any]:
        return {
            "file": file,
            "ordinary": self.ordinary,
            "concept": self.concept,
            "seed": self.seed,
            "intensity": self.intensity,
            "latent_weight": round(self.position.latent_weight, 4),
            "style": self.position.style,
            "asked_futurism": self.target_futurism,
            **measures,
        }


def is_made(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the folder holds the complete set of this request."""
    rows = read_designs(folder)
    if not rows or read_json_or_none(folder / "request.json") != json.loads(to_json(request)):
        return False
    return all((folder / str(row.get("file"))).is_file() for row in (*rows, {"file": "grid.png"}))


def holds_another(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the folder holds a set of another request; the same request with earlier weights is not another."""
    found, wanted = read_json_or_none(folder / "request.json"), json.loads(to_json(request))
    return found is not None and {**found, "generators": None} != {**wanted, "generators": None}


def save_designs(
    folder: Path,
    request: dict[str, Any],
    designs: Sequence[Design],
    pictures: np.ndarray,
    measures: Sequence[dict[str, Any]],
    columns: int | None = None,
) -> list[dict[str, Any]]:
    """Writes the set, replacing an older one of this name; returns the rows of designs.jsonl.

    Args:
        request: everything that decides the designs (parents, generators, settings); its hash is in every PNG.
        pictures: uint8 (N, H, W, 3).
    """
    names = [f"{k:04d}.png" for k in range(len(designs))]
    rows = [design.row(name, measured) for design, name, measured in zip(designs, names, measures, strict=True)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(folder.parent)
    fresh = folder.with_name(f".{folder.name}.new")  # no name of a set starts with a dot
    if fresh.exists():
        remove_folder(fresh)
    origin = {"generators": request.get("generators"), "request_sha256": key_sha256(request)}
    with atomic_folder(fresh) as temporary:
        for row, picture in zip(rows, pictures, strict=True):
            save_png(temporary / row["file"], picture, {TEXT_KEY: to_json({**row, **origin})})
        grid = picture_grid(pictures, columns or math.ceil(math.sqrt(len(pictures))))
        save_png(temporary / "grid.png", grid, {TEXT_KEY: to_json(origin)})
        atomic_write(temporary / "designs.jsonl", "".join(to_json(row) + "\n" for row in rows))
        atomic_write(temporary / "request.json", to_json(request, indent=1) + "\n")
    if folder.exists():  # now that the new set is complete
        remove_folder(folder)
    os.rename(fresh, folder)
    sync_folder(folder.parent)
    return rows


def read_designs(folder: Path) -> list[dict[str, Any]]:
    """The rows of a set; {} for a damaged one."""
    return [row or {} for row in read_json_lines(folder / "designs.jsonl")]
