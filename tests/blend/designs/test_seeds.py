"""Lists of seeds, well-formed and refused."""

import pytest

from blend.designs.seeds import text_to_seeds
from harness.errors import UserError


@pytest.mark.parametrize(("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("5", [5]), ("8, 1-2,4", [8, 1, 2, 4])])
def test_lists_of_seeds(text, seeds):
    assert text_to_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,1", "0-99999999", "1.5", "1-2-3"])
def test_malformed_lists_are_refused(text):
    with pytest.raises(UserError, match="^seeds: found .*, try --seeds 0-31"):
        text_to_seeds(text)
