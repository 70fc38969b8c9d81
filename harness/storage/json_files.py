"""Reading our own JSON files: a record is an object in a file, or in a line of a file of lines (.jsonl).

What is not there is told apart from what is damaged: nothing has been written yet, or something is lost.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError


def read_json(path: Path, remedy: str = "move it away") -> dict[str, Any] | None:
    """The object in a file; None where there is no file. UserError, with the remedy, for one that is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged (no object); {remedy}")
    return found


def read_json_or_none(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where the file is missing or damaged: for what is made again then."""
    try:
        return read_json(path)
    except UserError:
        return None


def read_json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Every line of a file in turn; None for one that is damaged. No line where there is no file."""
    if path.exists():
        with open(path, "rb") as stream:
            yield from map(line_to_json, stream)


def line_to_json(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None for one that is damaged, as by a process that was killed while it wrote."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
