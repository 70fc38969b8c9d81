"""Small packed sets: what the tests of harness/storage/hdf5.py share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from harness.errors import UserError
from harness.storage.hdf5 import PackedWriter, open_packed

CLASSES = ["coupé", "van"]
ATTRIBUTES = {"resizer": "lanczos", "recipe": {"seed": 3, "img_size": [8, 12]}, "manifest_sha256": "ab", "count": 70}


def pictures_of(count: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def pack(
    path: Path, count: int = 70, height: int = 8, width: int = 12, before: Callable[[int], None] | None = None
) -> Path:
    """More rows than one buffer, so that appends and the end both write."""
    with PackedWriter(path, height, width, CLASSES, ATTRIBUTES) as writer:
        for k, picture in enumerate(pictures_of(count, height, width)):
            if before:
                before(k)
            writer.append(picture, k % 2)
        if before:
            before(count)
    return path


def raw(path: Path, mode: Any) -> Any:
    """The file as plain HDF5 (Any: h5py's types do not know what a key leads to)."""
    return h5py.File(path, mode)


def refusal(path: Path) -> str:
    """The one line that a set which cannot be used is refused with, at opening or at reading."""
    with pytest.raises(UserError) as caught, open_packed(path) as packed:
        packed.check()
    text = str(caught.value)
    assert "\n" not in text and text.startswith(str(path)) and "make dataset" in text
    return text
