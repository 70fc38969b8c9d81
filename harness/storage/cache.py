"""A keyed cache of arrays on disk.

A file is used if it holds the key and its content has the recorded sha256. A damaged file, or one from before files had
a sha256, is made again.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from harness.files import open_file
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.json_files import parse_json

ENTRY = "made_from"  # the key's name in safetensors' metadata
SHA256 = "content_sha256"
Arrays = dict[str, np.ndarray]


def cached(
    path: Path, key: dict[str, Any], make: Callable[[], Arrays], entry: str = ENTRY, must_keep: bool = True
) -> Arrays:
    """The arrays at `path`; made and written if the file is missing, damaged or has another key.

    Args:
        key: JSON values that the arrays depend on; stored in the file.
        entry: the key's name in the file's metadata.
        must_keep: False for a file that only saves time: failing to write it is only logged.
    """
    arrays = None
    try:
        arrays = _read(path, key, entry)
    except ValueError as error:
        log(f"{path}: {error}; made again")
    if arrays is None:
        # C order, as safetensors writes the memory behind a view. (ascontiguousarray would make scalars 1-d.)
        arrays = {name: np.asarray(array, order="C") for name, array in make().items()}
        text = json.dumps({**key, SHA256: _content_sha256(key, arrays)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One entry: safetensors writes several in random order, and equal files would differ in their bytes.
            atomic_write(path, safetensors.numpy.save(arrays, {entry: text}))
        except OSError as error:
            if must_keep:
                raise
            log(f"warning: {path}: {error.strerror}; not cached, so the next command computes it again")
    return arrays


def read_cached(path: Path, key: dict[str, Any], entry: str = ENTRY) -> Arrays | None:
    """What `cached` would read; None where it would make the arrays."""
    try:
        return _read(path, key, entry)
    except ValueError:
        return None


def key_sha256(key: Any) -> str:
    """The hash of a key of JSON values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: dict[str, Any], entry: str) -> Arrays | None:
    """None for a missing file or another key; ValueError with the reason for an unusable file."""
    try:
        with open_file(path):  # refuses pipes, on which safetensors would hang
            pass
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(entry, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        found = parse_json(text)
        sha256 = found.pop(SHA256, None)
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged ({error})") from error
    if sha256 is None:
        raise ValueError("has no sha256 of its content (written by an earlier version)")
    if sha256 != _content_sha256(found, arrays):
        raise ValueError("damaged (sha256 differs from the one written into it)")
    return arrays if key_sha256(found) == key_sha256(key) else None


def _content_sha256(key: dict[str, Any], arrays: Arrays) -> str:
    whole = hashlib.sha256(key_sha256(key).encode())
    for name in sorted(arrays):
        whole.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        whole.update(arrays[name].data)
    return whole.hexdigest()
