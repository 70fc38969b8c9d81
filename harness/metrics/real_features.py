"""The real pictures' side of every metric, read once: features and moments, kept under all that they depend on.

In: a key and a way to read the features. Out: features and statistics, from the folder when the very same are there.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.metrics.frechet import Statistics, statistics_of, with_root
from harness.storage.cache import Arrays, cached, key_sha256

VERSION = 1  # of what is computed and kept: another one is another key
FOLDER = Path("data/cache/real")


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


@dataclass(frozen=True)
class RealFeatures:
    """`features` float32 (N, d); `statistics` with their root."""

    features: np.ndarray
    statistics: Statistics


def load_real_features(key: RealKey, read_features: Callable[[], np.ndarray], folder: Path = FOLDER) -> RealFeatures:
    """What is kept under this key; made, and kept, where there is nothing, something else or damage."""
    made_from = {"version": VERSION, **asdict(key)}
    path = folder / f"{key_sha256(made_from)[:20]}.safetensors"

    def make() -> Arrays:
        features = np.asarray(read_features(), np.float32)
        assert len(features) == key.count, f"{len(features)} features for {key}"
        found = with_root(statistics_of(features))
        assert found.root is not None
        with suppress(OSError):  # a folder that is read alone
            path.with_suffix(".npz").unlink(missing_ok=True)  # as an earlier version kept them
        return {"features": features, "mean": found.mean, "cov": found.cov, "root": found.root}

    kept = cached(path, made_from, make, must_keep=False)
    features = kept["features"]
    return RealFeatures(features, Statistics(kept["mean"], kept["cov"], len(features), kept["root"]))
