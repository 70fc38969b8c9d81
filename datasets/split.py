"""Which pictures training never sees, and the two packed files of a set.

A picture's split depends on the hash of its bytes alone: the same bytes are never in both, and pictures that come later
change nothing for those that are there. A benchmark's published test pictures stay what they are.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.config import Data
from harness.hdf5 import PackedWriter


@dataclass(frozen=True)
class Kept:
    """A picture on its way into a set. `line`: its manifest line, completed when its split and row are known.

    `split`: train or valid where its publisher has decided, None = by its hash."""

    line: dict[str, Any]
    picture: np.ndarray
    label: int
    split: str | None = None

    @property
    def sha256(self) -> str:
        return self.line["sha256"]


def is_valid(sha256: str, valid_fraction: float) -> bool:
    """Whether the file with this hash (hex) is kept aside."""
    return int(sha256[:13], 16) / 16**13 < valid_fraction


class SplitWriter:
    """Packs pictures into the train and the valid file, which get their names when `stack` ends: train last.

    A small folder may have no hash in the valid share; then the file with the smallest hash goes there. So until
    the first valid picture has come, the smallest so far (and its copies) is held back.
    """

    def __init__(self, data: Data, class_names: list[str], attributes: dict[str, Any], stack: ExitStack) -> None:
        self.data, self.class_names, self.attributes, self.stack = data, class_names, attributes, stack
        self.writers: dict[str, PackedWriter] = {}
        self.counts = {"train": 0, "valid": 0}
        self.held: list[Kept] = []
        self._open("train")

    def add(self, kept: Kept) -> None:
        if kept.split:
            self._pack(kept, kept.split)
        elif is_valid(kept.sha256, self.data.valid_fraction):
            self._release("train")
            self._pack(kept, "valid")
        elif not self.data.valid_fraction or self.counts["valid"]:
            self._pack(kept, "train")
        elif not self.held or kept.sha256 == self.held[0].sha256:
            self.held.append(kept)
        elif kept.sha256 < self.held[0].sha256:
            self._release("train")
            self.held.append(kept)
        else:
            self._pack(kept, "train")

    def decide(self) -> None:
        """All pictures have come: what is held back is valid, unless training would be left with nothing."""
        self._release("valid" if self.counts["train"] else "train")

    def stamp(self, attributes: dict[str, Any]) -> None:
        """What is known only now goes into both files."""
        for writer in self.writers.values():
            writer.attributes |= attributes

    def _release(self, split: str) -> None:
        held, self.held = self.held, []
        for kept in held:
            self._pack(kept, split)

    def _pack(self, kept: Kept, split: str) -> None:
        self._open(split).append(kept.picture, kept.label)
        kept.line.update(split=split, row=self.counts[split])
        self.counts[split] += 1

    def _open(self, split: str) -> PackedWriter:
        if split not in self.writers:
            path = self.data.hdf5_path("train" if split == "train" else "valid")
            writer = PackedWriter(path, *self.data.img_size, self.class_names, {**self.attributes, "split": split})
            self.writers[split] = self.stack.enter_context(writer)
        return self.writers[split]
