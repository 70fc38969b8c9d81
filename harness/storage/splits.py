"""Which real pictures a measure is taken on, and which it may learn from.

In: the packed sets of a `data` section. Out: rows of them. Whoever measures on real pictures takes them from here: the
valid set or, where a set keeps nothing aside (data.valid_fraction: 0), a seeded sample of the training set. What is
measured on that says so (`reported`).
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from harness.config.schema import Data
from harness.errors import UserError
from harness.storage.hdf5 import PackedSet, open_packed

Split = Literal["train", "valid"]
SAMPLE_SHARE, SAMPLE_SEED = 0.05, 0
MIN_SAMPLE = 2  # pictures: the least that have a distance
NEEDS_HELD_OUT = "it takes pictures that training never saw (data.valid_fraction above 0)"


@dataclass(frozen=True)
class PackedRows:
    """Rows of a packed set, open to read.

    Attributes:
        split: whose rows they are.
        rows: int64 (N,), ascending.
        note: where training saw them and they stand in for held-out ones, how many of which they are; "" otherwise.
    """

    packed: PackedSet
    split: Split
    rows: np.ndarray
    note: str = ""

    @property
    def count(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (N,)."""
        return self.packed.labels[self.rows]

    @cached_property
    def sha256(self) -> str:
        """Of what is read here: the set's own where that is all of it."""
        if self.count == self.packed.count:
            return self.packed.sha256
        return hashlib.sha256(self.packed.sha256.encode() + self.rows.tobytes()).hexdigest()

    def row_sha256(self, number: int) -> str:
        """Of the picture `number` (0 to N - 1), hex."""
        return self.packed.row_sha256[self.rows[number]].tobytes().hex()

    def read(self, numbers: np.ndarray | None = None) -> np.ndarray:
        """The pictures of these numbers, 0 to N - 1 (None = all): uint8 (B, H, W, 3). UserError names damaged rows."""
        return self.packed.read(self.rows if numbers is None else self.rows[numbers])

    def close(self) -> None:
        self.packed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_evaluation_rows(data: Data, split: Split = "valid") -> PackedRows:
    """What is measured on: all of that packed set, or the sample in place of a valid set that is not kept aside.
    UserError when a set cannot be used."""
    if split == "train" or not _is_sampled(data):
        return _whole(data, split)
    packed = open_packed(data.hdf5_path("train"))
    sample = _sample(packed)
    return PackedRows(packed, "train", sample, f"{len(sample):,} of the {packed.count:,} of {data.set}")


def open_training_rows(data: Data) -> PackedRows:
    """What a measure learns from: the training set, without the sample where that is measured on. UserError when the
    set cannot be used."""
    whole = _whole(data, "train")
    if not _is_sampled(data):
        return whole
    return PackedRows(whole.packed, "train", np.setdiff1d(whole.rows, _sample(whole.packed)))


def annotate_figures(
    figures: dict[str, Any], notes: Iterable[str], held_out_only: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures as they may be reported.

    Args:
        notes: of the pictures that they were measured on (`PackedRows.note`), one a set.
        of_unseen: keys of those that only held-out pictures can tell. Where there is a note they are left out, and the
            reason is there.
    """
    said = [note for note in notes if note]
    if not said:
        return figures
    kept = {key: value for key, value in figures.items() if key not in held_out_only}
    left_out = {"left_out": dict.fromkeys(held_out_only, NEEDS_HELD_OUT)} if held_out_only else {}
    return {**kept, "measured_on": f"a seeded sample of the training pictures: {', '.join(said)}", **left_out}


def _is_sampled(data: Data) -> bool:
    """An official split (cifar10) has a valid set whatever the fraction is."""
    return data.valid_fraction == 0 and not data.hdf5_path("valid").is_file()


def _whole(data: Data, split: Split) -> PackedRows:
    packed = open_packed(data.hdf5_path(split))
    return PackedRows(packed, split, np.arange(packed.count))


def _sample(packed: PackedSet) -> np.ndarray:
    """int64 (N,), ascending: chosen by a hash of seed and content, so copies of a picture mostly stay together."""
    count = max(MIN_SAMPLE, math.ceil(SAMPLE_SHARE * packed.count))
    if packed.count <= count:
        raise UserError(
            f"{packed.path}: found {packed.count} pictures, allowed {MIN_SAMPLE + 1} or more: {MIN_SAMPLE} of them are "
            "measured on, the others learned from"
        )
    seed = f"{SAMPLE_SEED}:".encode()
    keys = [hashlib.sha256(seed + content.tobytes()).digest() for content in packed.row_sha256]
    order = sorted(range(packed.count), key=keys.__getitem__)
    return np.sort(np.array(order[:count], np.int64))
