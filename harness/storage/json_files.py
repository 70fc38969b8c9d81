"""Reading our own JSON files: a record is an object in a file, or in a line of a file of lines (.jsonl).

What is not there is told apart from what is damaged: nothing has been written yet, or something is lost.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config.validation import details_to_problems
from harness.errors import UserError
from harness.files import open_file, read_file

MAX_DEPTH = 100  # our files are 6 levels deep; what is read is also written and walked through


def parse_json(content: str | bytes) -> Any:
    """Any JSON text; ValueError says what is wrong with it, whatever that is."""
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    opened = (
        content.count("[") + content.count("{")
        if isinstance(content, str)
        else content.count(b"[") + content.count(b"{")
    )
    level = [found] if opened > MAX_DEPTH else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for part in level
            for item in (part.values() if isinstance(part, dict) else part)
            if isinstance(item, dict | list)
        ]
    if level:
        raise ValueError("nested too deeply")
    return found


def read_json(path: Path, remedy: str = "move it away", form: TypeAdapter | None = None) -> dict[str, Any] | None:
    """The object in a file; None where there is no file. UserError, with the remedy, for one that is damaged.

    Args:
        form: the types that what is read of it must have.
    """
    try:
        content = read_file(path)
        found = parse_json(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); {remedy}") from error
    if problem := "no object" if not isinstance(found, dict) else form and type_problem(found, form):
        raise UserError(f"{path}: is damaged ({problem}); {remedy}")
    return found


def type_problem(found: Any, form: TypeAdapter) -> str | None:
    """What is wrong with the types of something that was read from JSON; None where nothing is."""
    try:
        form.validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        return next(iter(details_to_problems(error.errors(), {}).values()))
    return None


def read_json_or_none(path: Path, form: TypeAdapter | None = None) -> dict[str, Any] | None:
    """The object in a file; None where the file is missing or damaged: for what is made again then."""
    try:
        return read_json(path, form=form)
    except UserError:
        return None


def read_json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Every line of a file in turn; None for one that is damaged. No line where there is no file."""
    if path.exists():
        with open_file(path) as stream:
            yield from map(line_to_json, stream)


def line_to_json(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None for one that is damaged, as by a process that was killed while it wrote."""
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text as every reader takes it: numbers that are not finite become null, scalars of numpy and torch numbers,
    paths text."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
