"""Designs, sweeps and inversions on disk. What is missing is None or left out.

In: `runs/<base>/{blends,inversions}/`. Out: rows with their pictures, uint8 (H, W, 3).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from blend.generator.kinds import KINDS
from blend.generator.picture_error import mean_picture_error
from blend.report.reading import REMEDY, RunFiles, dict_at, number_at, picture_or_none, text_at
from harness.storage.json_files import parse_json


@dataclass(frozen=True)
class InversionPair:
    """Pictures uint8 (H, W, 3), with picture errors."""

    name: str
    kind: str
    source: str  # stem of its file
    target: np.ndarray
    guess: np.ndarray
    refined: np.ndarray
    guess_error: float
    refined_error: float


@dataclass(frozen=True)
class NearestPicture:
    """The training picture nearest to a design in one feature space."""

    space: str
    set_name: str
    row: int
    percentile: float | None
    distance: float | None


@dataclass(frozen=True)
class SavedDesign:
    """A row of designs.jsonl with its picture."""

    set_name: str
    file: str
    picture: np.ndarray
    row: dict[str, Any]
    nearest: list[NearestPicture] = field(default_factory=list)

    def number(self, key: str) -> float | None:
        return number_at(self.row, key)

    def parent(self, kind: str) -> str | None:
        """The name of its ordinary or concept parent."""
        return text_at(self.row, kind) or None

    @property
    def origin(self) -> tuple[str | None, str | None, float | None]:
        """Equal for all designs of a car: its parents, or its seed."""
        return self.parent("ordinary"), self.parent("concept"), self.number("seed")

    @property
    def verdict(self) -> str | None:
        verdict = text_at(self.row, "novelty.verdict")
        return verdict if verdict in ("PASS", "WARN") else None

    @property
    def percentile(self) -> float | None:
        """Novelty in one number: the lower percentile of the two spaces."""
        return min((near.percentile for near in self.nearest if near.percentile is not None), default=None)


# ---- inversions -------------------------------------------------------------------------------------------------


def read_inversions(folder: Path, files: RunFiles) -> list[InversionPair]:
    """All pairs of all files, newest file first; of files with the same pictures, only the newest."""
    paths = [path for kind in KINDS for path in folder.glob(f"{kind}-*.safetensors")]
    paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    newest: dict[Any, list[InversionPair]] = {}
    for pairs in (_pairs_of(path, files) for path in paths):
        newest.setdefault(tuple((pair.kind, pair.name) for pair in pairs), pairs)
    return [pair for pairs in newest.values() for pair in pairs]


def _pairs_of(path: Path, files: RunFiles) -> list[InversionPair]:
    try:
        with safetensors.safe_open(path, "np") as file:
            names = parse_json(file.metadata()["inversion"])["names"]
            pictures = [file.get_tensor(key) for key in ("targets", "encoder", "refined")]
        if any(part.ndim != 4 for part in pictures):
            raise ValueError("found no pictures in it")
        rows = list(zip(names, *pictures, strict=True))
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        files.add_damaged(path, f"{path}: is damaged ({error}); {REMEDY}")
        return []
    kind = path.name.partition("-")[0]
    return [
        InversionPair(
            str(name),
            kind,
            path.stem,
            target,
            guess,
            refined,
            mean_picture_error(guess, target),
            mean_picture_error(refined, target),
        )
        for name, target, guess, refined in rows
    ]


# ---- designs ----------------------------------------------------------------------------------------------------


def read_designs(blends: Path, files: RunFiles) -> dict[str, list[SavedDesign]]:
    """Set → designs, in order. Rows without a usable picture and unfinished sets are left out."""
    folders = sorted(
        path.parent for path in blends.glob("[A-Za-z0-9]*/designs.jsonl") if ".new" not in path.parent.name
    )
    return {
        folder.name: [design for row in files.rows(folder / "designs.jsonl") if (design := _design(folder, row))]
        for folder in folders
    }


def _design(folder: Path, row: dict[str, Any]) -> SavedDesign | None:
    path = _inside(folder, row.get("file"))
    picture = None if path is None else picture_or_none(path)
    if path is None or picture is None:
        return None
    nearest = [near for space, found in dict_at(row, "novelty").items() if (near := _nearest(space, found))]
    return SavedDesign(folder.name, path.name, picture, row, nearest)


def _nearest(space: str, found: Any) -> NearestPicture | None:
    row = found.get("row") if isinstance(found, dict) else None
    if not isinstance(row, int):
        return None
    return NearestPicture(
        space, str(found.get("set")), row, number_at(found, "percentile"), number_at(found, "distance")
    )


def _inside(folder: Path, name: Any) -> Path | None:
    """The file of this name in the folder; None for a name that leads out of it."""
    return folder / name if isinstance(name, str) and name and Path(name).name == name else None


def parent_picture(kind: str, name: str | None, pairs: Sequence[InversionPair]) -> np.ndarray | None:
    """A parent as given: the target of its inversion."""
    return next((pair.target for pair in pairs if pair.kind == kind and pair.name == name), None)


def read_sweeps(designs: Iterable[SavedDesign]) -> list[list[SavedDesign]]:
    """Designs of the same parents in order of intensity, if there are more than two."""
    sweeps: dict[Any, list[SavedDesign]] = {}
    for design in designs:
        if design.number("intensity") is not None:
            sweeps.setdefault(design.origin, []).append(design)
    ordered = [sorted(sweep, key=lambda design: design.number("intensity") or 0.0) for sweep in sweeps.values()]
    return [sweep for sweep in ordered if len(sweep) > 2 and len({design.picture.shape for design in sweep}) == 1]
