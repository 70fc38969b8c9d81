"""Designs, sweeps and inversions as they lie on disk. Whatever is missing is None or left out.

In: `runs/<base>/{blends,inversions}/`. Out: rows with their pictures, uint8 (H, W, 3).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from blend.generator.kinds import KINDS
from blend.report.run_files import REMEDY, RunFiles
from harness.images.decode import PictureError, decode_picture
from harness.storage.json_files import parse_json


@dataclass(frozen=True)
class InversionPair:
    """Pictures uint8 (H, W, 3); errors as everywhere: mean squared difference in [-1, 1]."""

    name: str
    kind: str
    source: str  # the file's name without its ending: pictures inverted together
    target: np.ndarray
    guess: np.ndarray
    refined: np.ndarray
    guess_error: float
    refined_error: float


@dataclass(frozen=True)
class NearestPicture:
    """The training picture nearest to a design in one feature space; `picture` where the set is at hand."""

    space: str
    set_name: str
    row: int
    percentile: float | None
    distance: float | None


@dataclass(frozen=True)
class SavedDesign:
    """A row of designs.jsonl with its picture; what was not measured is None."""

    set_name: str
    file: str
    picture: np.ndarray
    row: dict[str, Any]
    nearest: list[NearestPicture] = field(default_factory=list)

    def number(self, key: str) -> float | None:
        return number_at(self.row, key)

    def parent(self, kind: str) -> str | None:
        """The name of its ordinary or concept parent."""
        name = self.row.get(kind)
        return name if isinstance(name, str) else None

    @property
    def origin(self) -> tuple[str | None, str | None, float | None]:
        """What designs of one car have in common: its parents, or the seed of one without."""
        return self.parent("ordinary"), self.parent("concept"), self.number("seed")

    @property
    def verdict(self) -> str | None:
        novelty = self.row.get("novelty")
        verdict = novelty.get("verdict") if isinstance(novelty, dict) else None
        return verdict if verdict in ("PASS", "WARN") else None

    @property
    def percentile(self) -> float | None:
        """Novelty in one number: the percentile in the space where the design is less new."""
        return min((near.percentile for near in self.nearest if near.percentile is not None), default=None)


def number_at(figures: Any, path: str) -> float | None:
    """The finite number at a dotted path of nested dicts, None where there is none."""
    return finite(_value_at(figures, path))


def numbers_at(figures: Any, path: str) -> list[float] | None:
    """The finite numbers at a dotted path, None unless it is a list of them alone."""
    found = _value_at(figures, path)
    numbers = [number for value in found if (number := finite(value)) is not None] if isinstance(found, list) else []
    return numbers if numbers and len(numbers) == len(found) else None


def text_at(figures: Any, path: str) -> str:
    """The text at a dotted path of nested dicts, "" where there is none."""
    found = _value_at(figures, path)
    return found if isinstance(found, str) else ""


def finite(value: Any) -> float | None:
    """The value, if it is a finite number."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def _value_at(figures: Any, path: str) -> Any:
    for key in path.split("."):
        figures = figures.get(key) if isinstance(figures, dict) else None
    return figures


def picture_or_none(path: Path) -> np.ndarray | None:
    try:
        return decode_picture(path)
    except PictureError:
        return None


# ---- inversions -------------------------------------------------------------------------------------------------


def read_inversions(folder: Path, files: RunFiles) -> list[InversionPair]:
    """All pairs of all files, the newest file first; of files with the same pictures, the newest alone."""
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
        files.note(path, f"{path}: is damaged ({error}); {REMEDY}")
        return []
    kind = path.name.partition("-")[0]
    return [
        InversionPair(
            str(name), kind, path.stem, target, guess, best, picture_error(guess, target), picture_error(best, target)
        )
        for name, target, guess, best in rows
    ]


def picture_error(picture: np.ndarray, target: np.ndarray) -> float:
    """Mean squared difference of two uint8 pictures over all pixels and channels, in [-1, 1]."""
    return float(np.mean(((picture.astype(np.float64) - target) / 127.5) ** 2))


# ---- designs ----------------------------------------------------------------------------------------------------


def read_designs(blends: Path, files: RunFiles) -> dict[str, list[SavedDesign]]:
    """Set → designs, in the order made. Rows without a usable picture are left out, and sets that are half made."""
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
    novelty = row.get("novelty")
    spaces = novelty.items() if isinstance(novelty, dict) else ()
    nearest = [near for space, found in spaces if (near := _nearest(space, found))]
    return SavedDesign(folder.name, path.name, picture, row, nearest)


def _nearest(space: str, found: Any) -> NearestPicture | None:
    row = found.get("row") if isinstance(found, dict) else None
    if not isinstance(row, int):
        return None
    return NearestPicture(
        space, str(found.get("set")), row, number_at(found, "percentile"), number_at(found, "distance")
    )


def _inside(folder: Path, name: Any) -> Path | None:
    """The file of this name in the folder itself: a name that leads elsewhere is none."""
    return folder / name if isinstance(name, str) and name and Path(name).name == name else None


def parent_picture(kind: str, name: str | None, pairs: Sequence[InversionPair]) -> np.ndarray | None:
    """A parent as it was given: the target of the inversion that the design began with."""
    return next((pair.target for pair in pairs if pair.kind == kind and pair.name == name), None)


def read_sweeps(designs: Iterable[SavedDesign]) -> list[list[SavedDesign]]:
    """Designs of the same parents, by intensity; only those that go from one end to the other."""
    sweeps: dict[Any, list[SavedDesign]] = {}
    for design in designs:
        if design.number("intensity") is not None:
            sweeps.setdefault(design.origin, []).append(design)
    ordered = [sorted(sweep, key=lambda design: design.number("intensity") or 0.0) for sweep in sweeps.values()]
    return [sweep for sweep in ordered if len(sweep) > 2 and len({design.picture.shape for design in sweep}) == 1]
