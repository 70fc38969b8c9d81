"""Reading and writing our own JSON files (.json and .jsonl) of objects.

A missing file (nothing written yet) is distinguished from a damaged one (something is lost).
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config.validation import details_to_problems
from harness.errors import UserError
from harness.files import open_file, read_file

MAX_DEPTH = 100  # our files have 6 levels; deeper ones would overflow recursive code


def parse_json(content: str | bytes) -> Any:
    """Any JSON text; ValueError for every problem."""
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


def read_json(path: Path, remedy: str = "move it away", schema: TypeAdapter | None = None) -> dict[str, Any] | None:
    """The object in a file; None if there is no file. UserError with the remedy for a damaged one.

    `schema`: required types."""
    try:
        content = read_file(path)
        found = parse_json(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); {remedy}") from error
    if problem := "no object" if not isinstance(found, dict) else schema and type_problem(found, schema):
        raise UserError(f"{path}: is damaged ({problem}); {remedy}")
    return found


def type_problem(found: Any, schema: TypeAdapter) -> str | None:
    """The first type error in a value read from JSON, or None."""
    try:
        schema.validate_json(json.dumps(found), strict=True)
    except ValidationError as error:
        return next(iter(details_to_problems(error.errors(), {}).values()))
    return None


def read_json_or_none(path: Path, schema: TypeAdapter | None = None) -> dict[str, Any] | None:
    """The object in a file; None if it is missing or damaged: for files that can be made again."""
    try:
        return read_json(path, schema=schema)
    except UserError:
        return None


def read_json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The object in every line; None for a damaged line. No lines if there is no file."""
    if path.exists():
        with open_file(path) as stream:
            yield from map(line_to_json, stream)


def line_to_json(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None for a damaged one, perhaps left by a killed process."""
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def utc_now() -> str:
    """The time as our JSON files hold it: 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_json(value: Any, indent: int | None = None) -> str:
    """Standard JSON: non-finite numbers become null, numpy and torch scalars numbers, paths text."""
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
