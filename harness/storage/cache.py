"""Arrays that are kept on disk under all that they were made from, so that they are made once.

In: the file's place, a key, a way to make the arrays. Out: the arrays, from the file when it holds that key and its
sha256 is right. A file that is damaged, or from before files had a sha256, is never taken: it is made again.
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

ENTRY = "made_from"  # of safetensors' metadata
SHA256 = "content_sha256"
Arrays = dict[str, np.ndarray]


def cached(
    path: Path, key: dict[str, Any], make: Callable[[], Arrays], entry: str = ENTRY, must_keep: bool = True
) -> Arrays:
    """The arrays of this key at `path`; made, and kept, where the file is missing, damaged or of another key.

    Args:
        key: JSON values, all that the arrays depend on; kept in the file.
        entry: what the key is called in the file's metadata.
        must_keep: False where the file only saves time: if it cannot be written, one line says so.
    """
    arrays = None
    try:
        arrays = _read(path, key, entry)
    except ValueError as error:
        log(f"{path}: {error}; made again")
    if arrays is None:
        # In C order: safetensors writes the memory behind a view, not the view. (ascontiguousarray makes scalars 1-d.)
        arrays = {name: np.asarray(array, order="C") for name, array in make().items()}
        text = json.dumps({**key, SHA256: _content_sha256(key, arrays)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One entry: safetensors writes several in random order, and equal files would differ in their bytes.
            atomic_write(path, safetensors.numpy.save(arrays, {entry: text}))
        except OSError as error:
            if must_keep:
                raise
            log(f"warning: {path}: {error.strerror}; not kept, so the next command computes it again")
    return arrays


def read_cached(path: Path, key: dict[str, Any], entry: str = ENTRY) -> Arrays | None:
    """What `cached` would find; None where it would have to make it."""
    try:
        return _read(path, key, entry)
    except ValueError:
        return None


def key_sha256(key: Any) -> str:
    """Names a key of JSON values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: dict[str, Any], entry: str) -> Arrays | None:
    """None for a file that is missing or of another key; ValueError says why another one cannot be used."""
    try:
        with open_file(path):  # no pipe, which safetensors would wait for
            pass
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(entry, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        found = parse_json(text)
        sha256 = found.pop(SHA256, None)
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged ({error})") from error
    if sha256 is None:
        raise ValueError("has no sha256 of its content, as an earlier version wrote it")
    if sha256 != _content_sha256(found, arrays):
        raise ValueError("damaged (sha256 differs from the one written into it)")
    return arrays if key_sha256(found) == key_sha256(key) else None


def _content_sha256(key: dict[str, Any], arrays: Arrays) -> str:
    whole = hashlib.sha256(key_sha256(key).encode())
    for name in sorted(arrays):
        whole.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        whole.update(arrays[name].data)
    return whole.hexdigest()
