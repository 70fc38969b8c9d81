"""The real pictures' side of every metric, read once: features and moments, kept under all that they depend on.

In: a key and a way to read the features. Out: features and statistics, from the folder when the very same are there.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.metrics.frechet import Statistics, statistics_of, with_root
from harness.storage.atomic import atomic_write

VERSION = 1  # of what is computed and kept: another one is another key
FOLDER = Path("data/cache/real")
ARRAYS = ("features", "mean", "cov", "root")
# What reading a zip with wrong bytes may raise: sizes, offsets, methods, headers are believed until the checksum.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class RealKey:
    """All that the features of real pictures depend on. Equal keys mean equal features.

    Attributes:
        set_sha256: of the packed set (`PackedSet.sha256`).
        resizer: how pictures are brought to the extractor's size (`Featurizer.resizer`).
        count: number of pictures of the set that are read.
    """

    set_sha256: str
    split: str
    extractor: str
    extractor_sha256: str
    resizer: str
    count: int

    def text(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)


@dataclass(frozen=True)
class RealSide:
    """`features` float32 (N, d); `statistics` with their root."""

    features: np.ndarray
    statistics: Statistics


def real_side(key: RealKey, read_features: Callable[[], np.ndarray], folder: Path = FOLDER) -> RealSide:
    """What is kept under this key; made, and kept, where there is nothing, something else or damage."""
    path = folder / f"{hashlib.sha256(key.text().encode()).hexdigest()[:20]}.npz"
    kept = _read_kept(path, key.text())
    if kept is not None:
        return kept
    features = np.asarray(read_features(), np.float32)
    assert len(features) == key.count, f"{len(features)} features for {key}"
    side = RealSide(features, with_root(statistics_of(features)))
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, _side_to_bytes(side, key.text()))
    return side


def _side_to_bytes(side: RealSide, key: str) -> bytes:
    assert side.statistics.root is not None
    moments = side.statistics
    arrays = {"features": side.features, "mean": moments.mean, "cov": moments.cov, "root": moments.root}
    stream = io.BytesIO()
    np.savez(stream, stamp=np.array([key, _sha256(key, arrays)]), **arrays)
    return stream.getvalue()


def _read_kept(path: Path, key: str) -> RealSide | None:
    """None for a file that is absent, damaged or of another key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            stamp, arrays = file["stamp"], {name: file[name] for name in ARRAYS}
    except DAMAGE:
        return None
    if stamp.tolist() != [key, _sha256(key, arrays)]:
        return None
    features = arrays["features"]
    return RealSide(features, Statistics(arrays["mean"], arrays["cov"], len(features), arrays["root"]))


def _sha256(key: str, arrays: dict[str, np.ndarray]) -> str:
    whole = hashlib.sha256(key.encode())
    for name in ARRAYS:
        array = arrays[name]
        whole.update(f"{name} {array.dtype} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
