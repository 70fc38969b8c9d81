"""Names of classes in one form, and a choice of classes in words: a name or number, a mix of several, one at random for
each picture, or all in turn.

In: names of folders; what a person typed, and a generator's class names. Out: names; the choice. Imports no torch.
"""

import math
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from harness.errors import UserError

Label = int | tuple[float, ...]  # a class, or the share of every class
RANDOM, ALL = "random", "all"
SHOWN_NAMES = 80  # of the classes in a message


def to_class_name(name: str) -> str:
    """The name of a folder as a class has it: composed (NFC), though a Mac writes it decomposed.

    Bytes that are no UTF-8 are read as Windows-1252, which holds Latin-1; control characters are escaped."""
    text = unicodedata.normalize("NFC", to_valid_text(name))
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def to_valid_text(text: str) -> str:
    """Text from a file system or a table, whose bytes need not be UTF-8, as text that every file can hold."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which no bytes stand for
        raw = text.encode("utf-8", "backslashreplace")
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode("latin-1")


def to_class_names(names: Iterable[str]) -> list[str]:
    """Those of a set or a run, which may be older than the one form: names that become alike are numbered."""
    found: dict[str, None] = {}
    for name in map(to_class_name, names):
        number, unique = 2, name
        while unique in found:
            unique, number = f"{name} ({number})", number + 1
        found[unique] = None
    return list(found)


@dataclass(frozen=True)
class Choice:
    """`mix`: class numbers with their shares, which sum to 1; one class has share 1. Empty for `random` and `all`."""

    kind: Literal["random", "all", "mix"]
    mix: tuple[tuple[int, float], ...] = ()

    def label(self, num_classes: int) -> Label:
        """What a mix comes to: one class, or shares of all."""
        assert self.kind == "mix", self
        if len(self.mix) == 1:
            return self.mix[0][0]
        shares = dict(self.mix)
        return tuple(shares.get(number, 0.0) for number in range(num_classes))


def text_to_choice(text: str, names: list[str], key: str = "BRAND", also: tuple[str, ...] = (RANDOM, ALL)) -> Choice:
    """`audi`, `3`, `audi:0.6,porsche:0.4` (shares of any sum), `random` or `all`. UserError for anything else.

    A class's name goes first, so a class may be called `3` or `random`.

    Args:
        names: of the classes; none where the generator has no classes.
        key: what the message calls it.
        also: which of the words that name no class are allowed.
    """
    text, names = to_class_name(text), to_class_names(names)
    if not names:
        if text == RANDOM and RANDOM in also:
            return Choice("random")
        raise UserError(f"{key}: found {text!r}, allowed none: the run was trained without classes")
    if text not in names:
        if text in also:
            return Choice("random" if text == RANDOM else "all")
        if "," in text or ":" in text:
            return Choice("mix", _read_mix(text, names, key))
    return Choice("mix", ((_number(text, text, names, key, also), 1.0),))


def _read_mix(text: str, names: list[str], key: str) -> tuple[tuple[int, float], ...]:
    found: dict[int, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().rpartition(":")
        number = _number(name.strip(), text, names, key)
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not name or not 0 < value < math.inf:
            raise UserError(f"{key}: found {part.strip()!r} in {text!r}, allowed name:share with a share above 0")
        if number in found:
            raise UserError(f"{key}: found {name.strip()!r} twice in {text!r}, allowed each class once")
        found[number] = value
    total = sum(found.values())
    return tuple((number, value / total) for number, value in found.items())


def _number(name: str, text: str, names: list[str], key: str, also: tuple[str, ...] = ()) -> int:
    if name in names:
        return names.index(name)
    if name.isascii() and name.isdigit() and int(name) < len(names):
        return int(name)
    where = f"{name!r}" if name == text else f"{name!r} in {text!r}"
    listed = ", ".join(names[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")
    words = f", {', '.join(also)}" if also else ""
    raise UserError(
        f"{key}: found {where}, allowed {listed}, a number from 0 to {len(names) - 1}{words}, or a mix such as "
        f"{names[0]}:0.6,{names[-1]}:0.4"
    )
