"""Which real pictures to evaluate on, and which measures may be fitted on.

Evaluation uses the valid set or, if nothing is held out (data.valid_fraction: 0), a seeded sample of the training set;
`annotate_figures` marks figures on such a sample.
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
MIN_SAMPLE = 2  # pictures, as distances need two
NEEDS_HELD_OUT = "it needs pictures held out from training (data.valid_fraction above 0)"


@dataclass(frozen=True)
class PackedRows:
    """Rows of a packed set, open for reading.

    Attributes:
        split: that they belong to.
        rows: int64 (N,), ascending.
        note: for a sample of training pictures in place of held-out ones, its size; otherwise "".
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
        """Hash of these rows; the set's own hash if they are all of it."""
        if self.count == self.packed.count:
            return self.packed.sha256
        return hashlib.sha256(self.packed.sha256.encode() + self.rows.tobytes()).hexdigest()

    def row_sha256(self, number: int) -> str:
        """Hash of picture `number` (0 to N - 1), hex."""
        return self.packed.row_sha256[self.rows[number]].tobytes().hex()

    def read(self, numbers: np.ndarray | None = None) -> np.ndarray:
        """Pictures by number, 0 to N - 1 (None = all): uint8 (B, H, W, 3). A UserError names damaged rows."""
        return self.packed.read(self.rows if numbers is None else self.rows[numbers])

    def close(self) -> None:
        self.packed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_evaluation_rows(data: Data, split: Split = "valid") -> PackedRows:
    """The rows to evaluate on: the whole split, or the sample in place of a missing valid set. UserError if the set
    cannot be used."""
    if split == "train" or not _is_sampled(data):
        return _whole(data, split)
    packed = open_packed(data.hdf5_path("train"))
    sample = _sample(packed)
    return PackedRows(packed, "train", sample, f"{len(sample):,} of the {packed.count:,} of {data.set}")


def open_training_rows(data: Data) -> PackedRows:
    """The rows to fit measures on: the training set without the evaluation sample. UserError if it cannot be used."""
    whole = _whole(data, "train")
    if not _is_sampled(data):
        return whole
    return PackedRows(whole.packed, "train", np.setdiff1d(whole.rows, _sample(whole.packed)))


def annotate_figures(
    figures: dict[str, Any], notes: Iterable[str], held_out_only: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures, marked if they were measured on training pictures.

    Args:
        notes: `PackedRows.note` of every set that they were measured on.
        held_out_only: keys that are only valid on held-out pictures; with a note they are replaced by the reason.
    """
    said = [note for note in notes if note]
    if not said:
        return figures
    kept = {key: value for key, value in figures.items() if key not in held_out_only}
    left_out = {"left_out": dict.fromkeys(held_out_only, NEEDS_HELD_OUT)} if held_out_only else {}
    return {**kept, "measured_on": f"a seeded sample of the training pictures: {', '.join(said)}", **left_out}


def _is_sampled(data: Data) -> bool:
    """An official split (cifar10) has a valid set whatever the fraction."""
    return data.valid_fraction == 0 and not data.hdf5_path("valid").is_file()


def _whole(data: Data, split: Split) -> PackedRows:
    packed = open_packed(data.hdf5_path(split))
    return PackedRows(packed, split, np.arange(packed.count))


def _sample(packed: PackedSet) -> np.ndarray:
    """int64 (N,), ascending: chosen by a hash of seed and content, so copies of a picture stay together."""
    count = max(MIN_SAMPLE, math.ceil(SAMPLE_SHARE * packed.count))
    if packed.count <= count:
        raise UserError(
            f"{packed.path}: found {packed.count} pictures, allowed {MIN_SAMPLE + 1} or more: {MIN_SAMPLE} for "
            "evaluation, the others to fit measures"
        )
    seed = f"{SAMPLE_SEED}:".encode()
    keys = [hashlib.sha256(seed + content.tobytes()).digest() for content in packed.row_sha256]
    order = sorted(range(packed.count), key=keys.__getitem__)
    return np.sort(np.array(order[:count], np.int64))
