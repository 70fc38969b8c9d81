"""Reads CIFAR-10's pickled batches without running code from them.

The unpickler knows a few NumPy names alone, and maps them to inert classes that only keep numbers and bytes.
"""

import io
import pickle
from typing import Any

import numpy as np

from harness.errors import UserError

MAX_BYTES = 100_000_000  # a batch has 31 million
BYTE_TYPES = ("u1", "|u1", "uint8")


class InertType:
    """Replaces a NumPy dtype: keeps its name."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode("latin-1") if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes do not need."""


class InertArray:
    """Replaces a NumPy array: keeps shape, type and bytes."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self.kind, self.fortran, self.content = "", False, b""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.shape = tuple(int(side) for side in shape)
        self.kind, self.fortran, self.content = kind.name, bool(fortran), bytes(content)


def _encode(text: str, _: str = "latin1") -> bytes:
    """Python 3 pickles bytes for Python 2 through this function."""
    return text.encode("latin-1")


# ndarray is only named, never called; as text a call would fail.
ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): InertType,
    ("numpy.core.multiarray", "_reconstruct"): InertArray,
    ("numpy._core.multiarray", "_reconstruct"): InertArray,
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it imports {module_name}.{global_name}")
        return ALLOWED[module_name, global_name]


def read_batch(content: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """(pictures uint8 (N, 32, 32, 3) RGB, labels int64 (N,) from 0 to 9) of one python batch."""
    try:
        if len(content) > MAX_BYTES:
            raise pickle.UnpicklingError(f"more than {MAX_BYTES} bytes")
        found = _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
        return _check_batch(found)
    except Exception as error:  # untrusted bytes: unpickling may raise anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{origin}: is not a CIFAR-10 batch ({reason}), allowed the published files of the python version, "
            "try to download it again"
        ) from error


def _check_batch(found: Any) -> tuple[np.ndarray, np.ndarray]:
    fields = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in found.items()}
    planes, labels = fields["data"], fields["labels"]
    if not isinstance(planes, InertArray) or planes.kind not in BYTE_TYPES:
        raise ValueError("data is not an array of bytes")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise ValueError("labels are not numbers from 0 to 9")
    if planes.shape != (len(labels), 3072) or not labels:
        raise ValueError(f"data has the shape {planes.shape} for {len(labels)} labels")
    rows = np.frombuffer(planes.content, np.uint8).reshape(planes.shape, order="F" if planes.fortran else "C")
    pictures = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), np.array(labels, np.int64)
