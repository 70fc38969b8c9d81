"""What the user reads of something that is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import UserError


def refusal_of(action: Callable[..., object], *words: Any, **options: Any) -> str:
    """The one line of the UserError that this call ends with."""
    with pytest.raises(UserError) as caught:
        action(*words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
