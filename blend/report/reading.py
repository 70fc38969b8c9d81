"""Reads the files of a run. Damaged files are collected, to list them; values of a wrong type count as missing."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.images.decode import PictureError, decode_picture
from harness.storage.json_files import read_json, read_json_lines

REMEDY = "move it away and run its stage again"


class RunFiles:
    """`damaged`: path → what is wrong with the file, in one line."""

    def __init__(self) -> None:
        self.damaged: dict[str, str] = {}

    def add_damaged(self, path: Path, error: object) -> None:
        self.damaged[path.as_posix()] = " ".join(str(error).split())

    def record(self, path: Path) -> dict[str, Any]:
        """The object in a JSON file; {} where it is missing or damaged."""
        try:
            return read_json(path, REMEDY) or {}
        except UserError as error:
            self.add_damaged(path, error)
            return {}

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The objects in a file of lines, without damaged lines."""
        lines = list(read_json_lines(path))
        if None in lines:
            text = f"{path}: is damaged in {lines.count(None)} of {len(lines)} lines, which are left out"
            self.add_damaged(path, text)
        return [line for line in lines if line is not None]


def picture_or_none(path: Path) -> np.ndarray | None:
    try:
        return decode_picture(path)
    except PictureError:
        return None


# ---- values at a dotted path of nested dicts ----


def number_at(figures: Any, path: str) -> float | None:
    """A finite number, or None."""
    return finite(_value_at(figures, path))


def numbers_at(figures: Any, path: str) -> list[float] | None:
    """A list of finite numbers that is not empty, or None."""
    found = _value_at(figures, path)
    numbers = [finite(value) for value in found] if isinstance(found, list) else []
    return [number for number in numbers if number is not None] if numbers and None not in numbers else None


def text_at(figures: Any, path: str) -> str:
    """A text, or ""."""
    found = _value_at(figures, path)
    return found if isinstance(found, str) else ""


def dict_at(figures: Any, path: str) -> dict[str, Any]:
    found = _value_at(figures, path)
    return found if isinstance(found, dict) else {}


def finite(value: Any) -> float | None:
    """The value, if it is a finite number."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def _value_at(figures: Any, path: str) -> Any:
    for key in path.split("."):
        figures = figures.get(key) if isinstance(figures, dict) else None
    return figures
