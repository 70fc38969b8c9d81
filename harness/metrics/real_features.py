"""Cache of the real pictures' features and statistics, keyed by all that they depend on.

In: a key and a function that computes the features. Out: features and statistics.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.metrics.frechet import Statistics, statistics_of, with_root
from harness.storage.cache import Arrays, cached, key_sha256

VERSION = 1  # of the computation; part of the cache key
FOLDER = Path("data/cache/real")


@dataclass(frozen=True)
class RealKey:
    """All that the features depend on: equal keys mean equal features.

    Attributes:
        set_sha256: of the packed set (`PackedSet.sha256`).
        resizer: `Featurizer.resizer`.
        count: number of pictures used.
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
    """The cached features of this key; computed and stored if missing or damaged."""
    made_from = {"version": VERSION, **asdict(key)}
    path = folder / f"{key_sha256(made_from)[:20]}.safetensors"

    def make() -> Arrays:
        features = np.asarray(read_features(), np.float32)
        assert len(features) == key.count, f"{len(features)} features for {key}"
        found = with_root(statistics_of(features))
        assert found.root is not None
        with suppress(OSError):  # a read-only folder
            path.with_suffix(".npz").unlink(missing_ok=True)  # of an earlier version
        return {"features": features, "mean": found.mean, "cov": found.cov, "root": found.root}

    kept = cached(path, made_from, make, must_keep=False)
    features = kept["features"]
    return RealFeatures(features, Statistics(kept["mean"], kept["cov"], len(features), kept["root"]))
