"""What a design is made of, as an address has it: parents by reference, and dial positions.

In: the query of an address. Out: a `DesignRecipe`, and its query. Imports no torch.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from blend.generator.kinds import Kind
from harness.errors import UserError

REFERENCE = re.compile(r"file-[0-9a-f]{64}|(valid|train)-[0-9]{5,9}|seed-(0|[1-9][0-9]{0,8})")
MAX_PARENTS = 4  # of a side
MAX_TEXT_CHARS = 200
MAX_FIELDS = 50  # of an address
PARENT_KEYS: dict[str, Kind] = {"o": "ordinary", "c": "concept"}
DIAL_KEYS = {
    "i": ("intensity", 0.0, 1.0),
    "s": ("style", 0.0, 1.0),
    "f": ("futurism", -1000.0, 1000.0),
    "t": ("truncation", 0.0, 1.0),
}


@dataclass(frozen=True)
class Parent:
    """`reference`: `file-<sha256 of an upload>`, `valid-<row of the held-out set>`, `train-<row of the training set>`
    if nothing is held out, or `seed-<number>`. `share`: relative to the other parents of its side."""

    reference: str
    share: float = 1.0


@dataclass(frozen=True)
class DesignRecipe:
    """A design: at least one ordinary parent, any number of concept ones, the dials.

    Attributes:
        style: None = follows the intensity.
        futurism: the score to solve for, in place of intensity and style.
        label: class of the ordinary parents of a conditional generator; None = predicted, or drawn by seed.
        truncation: 1 = the latents as they are, 0 = the mean car.
    """

    ordinary: tuple[Parent, ...]
    concept: tuple[Parent, ...] = ()
    intensity: float = 0.5
    style: float | None = None
    futurism: float | None = None
    label: str | None = None
    truncation: float = 1.0

    def side(self, side: Kind) -> tuple[Parent, ...]:
        return self.ordinary if side == "ordinary" else self.concept

    def to_query(self) -> str:
        """Equal recipes have equal queries."""
        pairs = [
            (key, parent.reference if parent.share == 1 else f"{parent.reference}:{parent.share:g}")
            for key, side in PARENT_KEYS.items()
            for parent in self.side(side)
        ]
        truncation = None if self.truncation == 1 else self.truncation
        values = {"i": self.intensity, "s": self.style, "f": self.futurism, "t": truncation}
        pairs += [(key, f"{value:g}") for key, value in values.items() if value is not None]
        return urlencode([*pairs, *([("l", self.label)] if self.label is not None else [])], safe=":")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_query().encode()).hexdigest()


def query_to_recipe(pairs: Iterable[tuple[str, str]]) -> DesignRecipe:
    """`o=file-…&c=valid-00012:0.5&i=0.6&s=1&f=70&l=Audi`; other keys are ignored. UserError for the first problem."""
    parents: dict[str, list[Parent]] = {"ordinary": [], "concept": []}
    values: dict[str, float] = {}
    label: str | None = None
    for key, text in pairs:
        if key in PARENT_KEYS:
            parents[PARENT_KEYS[key]].append(_parent(key, text))
        elif key in DIAL_KEYS:
            name, low, high = DIAL_KEYS[key]
            values[name] = _number(key, text, low, high)
        elif key == "l" and text:
            label = text[:MAX_TEXT_CHARS]
    for side, found in parents.items():
        if len(found) > MAX_PARENTS:
            raise UserError(f"{side}: found {len(found)} parents, allowed up to {MAX_PARENTS}")
    if not parents["ordinary"]:
        raise UserError("o: found no ordinary parent, allowed one or more; drop a picture, or try o=seed-1")
    values.setdefault("intensity", 0.5)
    return DesignRecipe(tuple(parents["ordinary"]), tuple(parents["concept"]), label=label, **values)


def text_to_recipe(text: str) -> DesignRecipe:
    """Of the query of an address. UserError for the first problem."""
    try:
        pairs = parse_qsl(text, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise UserError(f"recipe: {error}") from error
    return query_to_recipe(pairs)


def check_reference(text: str) -> str:
    """The reference itself; UserError for anything else, such as a path."""
    if not REFERENCE.fullmatch(text):
        raise UserError(
            f"parent: found {text[:80]!r}, allowed file-<sha256>, valid-<row>, train-<row> or seed-<number>"
        )
    return text


def _parent(key: str, text: str) -> Parent:
    reference, colon, share = text.partition(":")
    return Parent(check_reference(reference), _number(key, share, 0.01, 100.0) if colon else 1.0)


def _number(key: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{key}: found {text[:40]!r}, allowed a number from {low:g} to {high:g}")
    return round(value, 4)
