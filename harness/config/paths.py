"""Paths as people write them: `~` and `$VARIABLES` stand for what they say, unless a path is there as it is written."""

import os
from pathlib import Path

from harness.errors import UserError


def to_path(text: str) -> Path:
    """Of a command's option. A variable that is not set stays: the shell has had its turn."""
    if os.path.lexists(text):
        return Path(text)
    home = os.path.expanduser(text)
    return Path(home if os.path.lexists(home) else os.path.expandvars(home))


def expand_path(text: str, key: str = "data.src") -> Path:
    """Of a config's key; a variable that is not set is the user's mistake."""
    path = to_path(text)
    if "$" in str(path) and not os.path.lexists(path):
        variable = str(path).split("$")[1].split("/")[0].strip("{}")
        raise UserError(f"{key}: found {text}, allowed variables that are set, try `export {variable}=...`")
    return path
