"""pydantic's errors as lines `key: found X, allowed Y, try Z`."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness.errors import UserError

FOUND = {"missing": "nothing", "extra_forbidden": "an unknown key"}
ALLOWED = {"missing": "a value", "extra_forbidden": "only known ones"}
Details = Mapping[str, Any]  # an entry of ValidationError.errors()


def dotted_key(detail: Details) -> str:
    """The location of an error as a dotted key."""
    return ".".join(str(part) for part in detail["loc"])


def details_to_problems(
    details: Iterable[Details],
    allowed: Mapping[str, str],
    key_of: Callable[[Details], str] = dotted_key,
    example_of: Callable[[str, Details], str] | None = None,
) -> dict[str, str]:
    """Key → the line about its first error.

    Args:
        allowed: by key or by pydantic's error type, in place of pydantic's own text.
        example_of: what to try.
    """
    problems: dict[str, str] = {}
    for detail in details:
        key, kind, value = key_of(detail), detail["type"], detail["input"]
        if kind.startswith("union_tag") and isinstance(value, dict):
            value = value.get(detail["ctx"]["discriminator"].strip("'"))
        message = re.sub(r"^(Value error, |\w+ should (be|have) )", "", detail["msg"])
        needed = allowed.get(key) or {**ALLOWED, **allowed}.get(kind) or message
        example = f", try {example_of(key, detail)}" if example_of else ""
        problems.setdefault(key, f"{key}: found {FOUND.get(kind) or format_value(value)}, allowed {needed}{example}")
    return problems


def problems_error(origin: str, problems: Iterable[str]) -> UserError:
    """All problems of a file as one error, one per line."""
    lines = [f"  {problem}" for problem in problems]
    return UserError("\n".join([f"{origin}: {len(lines)} problem{'s' * (len(lines) > 1)}", *lines]))


def format_value(value: Any) -> str:
    """A value as in YAML, truncated to 60 characters."""
    text = repr(value) if isinstance(value, str | dict) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
