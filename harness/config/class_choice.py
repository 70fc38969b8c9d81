"""Normalised class names, and parsing of a class choice: a name or number, a mix, `random` for each picture, or `all`.

Imports no torch.
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
MAX_SHOWN_NAMES = 80  # in a message


def to_class_name(name: str) -> str:
    """A folder's name as a class name: composed (NFC; macOS decomposes), with control characters escaped.

    Bytes that are not UTF-8 are read as Windows-1252, a superset of Latin-1."""
    text = unicodedata.normalize("NFC", to_valid_text(name))
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def to_valid_text(text: str) -> str:
    """Text with surrogate escapes, from a file system or a table, as valid Unicode."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that is no escaped byte
        raw = text.encode("utf-8", "backslashreplace")
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode("latin-1")


def to_class_names(names: Iterable[str]) -> list[str]:
    """Normalised names of a set or a run; names that become equal are numbered."""
    found: dict[str, None] = {}
    for name in map(to_class_name, names):
        number, unique = 2, name
        while unique in found:
            unique, number = f"{name} ({number})", number + 1
        found[unique] = None
    return list(found)


@dataclass(frozen=True)
class Choice:
    """`mix`: class numbers with shares that sum to 1. Empty for `random` and `all`."""

    kind: Literal["random", "all", "mix"]
    mix: tuple[tuple[int, float], ...] = ()

    def label(self, num_classes: int) -> Label:
        """The label of a mix: a class number, or the share of every class."""
        assert self.kind == "mix", self
        if len(self.mix) == 1:
            return self.mix[0][0]
        shares = dict(self.mix)
        return tuple(shares.get(number, 0.0) for number in range(num_classes))


def text_to_choice(
    text: str, names: list[str], key: str = "BRAND", keywords: tuple[str, ...] = (RANDOM, ALL)
) -> Choice:
    """`audi`, `3`, `audi:0.6,porsche:0.4` (shares of any sum), `random` or `all`. UserError for anything else.

    Class names take precedence, so a class may be called `3` or `random`.

    Args:
        names: of the classes; empty for a generator without classes.
        key: the option's name in messages.
        keywords: which of `random` and `all` are allowed.
    """
    text, names = to_class_name(text), to_class_names(names)
    if not names:
        if text == RANDOM and RANDOM in keywords:
            return Choice("random")
        raise UserError(f"{key}: found {text!r}, allowed none: the run was trained without classes")
    if text not in names:
        if text in keywords:
            return Choice("random" if text == RANDOM else "all")
        if "," in text or ":" in text:
            return Choice("mix", _read_mix(text, names, key))
    return Choice("mix", ((_number(text, text, names, key, keywords), 1.0),))


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


def _number(name: str, text: str, names: list[str], key: str, keywords: tuple[str, ...] = ()) -> int:
    if name in names:
        return names.index(name)
    if name.isascii() and name.isdigit() and int(name) < len(names):
        return int(name)
    where = f"{name!r}" if name == text else f"{name!r} in {text!r}"
    listed = ", ".join(names[:MAX_SHOWN_NAMES]) + (", …" if len(names) > MAX_SHOWN_NAMES else "")
    words = f", {', '.join(keywords)}" if keywords else ""
    raise UserError(
        f"{key}: found {where}, allowed {listed}, a number from 0 to {len(names) - 1}{words}, or a mix such as "
        f"{names[0]}:0.6,{names[-1]}:0.4"
    )
