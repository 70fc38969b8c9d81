"""Paths as users write them: `~` and `$VARIABLES` are expanded unless the literal path exists."""

import os
from pathlib import Path

from harness.errors import UserError


def to_path(text: str) -> Path:
    """A command-line option as a path. Unset variables stay: the shell has expanded the others."""
    if os.path.lexists(text):
        return Path(text)
    home = os.path.expanduser(text)
    return Path(home if os.path.lexists(home) else os.path.expandvars(home))


def expand_path(text: str, key: str = "data.src") -> Path:
    """A config value as a path; UserError for an unset variable."""
    path = to_path(text)
    if "$" in str(path) and not os.path.lexists(path):
        variable = str(path).split("$")[1].split("/")[0].strip("{}")
        raise UserError(f"{key}: found {text}, allowed variables that are set, try `export {variable}=...`")
    return path
