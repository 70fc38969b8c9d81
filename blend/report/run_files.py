"""Reads what stages left, and remembers what is damaged: the page tells it apart from what is not there."""

from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage.json_files import read_json, read_json_lines

REMEDY = "move it away, then its stage makes it again"


class RunFiles:
    """`damaged`: path → what is wrong with the file, in one line."""

    def __init__(self) -> None:
        self.damaged: dict[str, str] = {}

    def note(self, path: Path, error: object) -> None:
        self.damaged[path.as_posix()] = " ".join(str(error).split())

    def record(self, path: Path) -> dict[str, Any]:
        """The object in a JSON file; {} where it is missing or damaged."""
        try:
            return read_json(path, REMEDY) or {}
        except UserError as error:
            self.note(path, error)
            return {}

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The objects in a file of lines, without those that are damaged."""
        lines = list(read_json_lines(path))
        if None in lines:
            self.note(path, f"{path}: is damaged in {lines.count(None)} of {len(lines)} lines, which are left out")
        return [line for line in lines if line is not None]
