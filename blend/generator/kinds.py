"""The two kinds of cars that designs lie between."""

from typing import Literal

Kind = Literal["ordinary", "concept"]
KINDS: tuple[Kind, ...] = ("ordinary", "concept")
