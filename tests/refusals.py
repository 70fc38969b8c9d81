"""How the user is told of a mistake: in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.errors import UserError


@contextmanager
def refused(*words: str) -> Iterator[list[str]]:
    """The block must end with a UserError of one line, in which all these words stand; the list gets that line."""
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        yield said
    said.append(str(caught.value))
    assert "\n" not in said[0] and [word for word in words if word not in said[0]] == [], said[0]
