"""UserErrors of one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.errors import UserError


@contextmanager
def refused(*words: str) -> Iterator[list[str]]:
    """The block must end with a UserError of one line that contains all these words; the list gets that line."""
    lines: list[str] = []
    with pytest.raises(UserError) as caught:
        yield lines
    lines.append(str(caught.value))
    assert "\n" not in lines[0] and [word for word in words if word not in lines[0]] == [], lines[0]


def refusal_of(action: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """The line of the UserError that this call ends with."""
    with refused() as lines:
        action(*arguments, **options)
    return lines[0]
