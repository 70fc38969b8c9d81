"""Identity: how much of the ordinary car is left in a design, apart from its futurism.

In: features of `harness.features`, float32 (N, d). Out: float64 (N,) from 0 (as different as two cars) to 100.
"""

from dataclasses import dataclass

import numpy as np

from blend.measures.probe import FuturismProbe, TrainValid
from harness.metrics.distances import pairwise_distances
from harness.storage.hdf5 import spread_rows

REFERENCE_PICTURES = 400  # 80,000 pairs of them


@dataclass(frozen=True)
class Identity:
    """Distances in features without the directions of futurism.

    Attributes:
        directions: float64 (d, 2), orthonormal: those in which concept pictures differ from ordinary ones.
        unlike: the median distance of two different held-out ordinary pictures.
    """

    directions: np.ndarray
    unlike: float

    def score(self, designs: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """Features of designs and of the ordinary parent of each, both (N, d) → 0 to 100."""
        apart = np.linalg.norm(self._remaining(designs) - self._remaining(parents), axis=1)
        return 100 * np.clip(1 - apart / self.unlike, 0, 1)

    def _remaining(self, features: np.ndarray) -> np.ndarray:
        x = features.astype(np.float64)
        return x - (x @ self.directions) @ self.directions.T


def fit_identity(ordinary: TrainValid, concept: TrainValid, probe: FuturismProbe) -> Identity:
    """Removes the probe's direction and that from mean ordinary to mean concept features: the probe's direction is the
    one with the least variance within a kind, so alone it would leave most of the difference between the kinds."""
    between = concept.train.astype(np.float64).mean(0) - ordinary.train.astype(np.float64).mean(0)
    directions, _ = np.linalg.qr(np.stack([_unit(between), _unit(probe.weights)], 1))
    held_out = ordinary.valid[spread_rows(len(ordinary.valid), REFERENCE_PICTURES)]
    unlike = np.median(pairwise_distances(Identity(directions, 1.0)._remaining(held_out)))
    return Identity(directions, max(float(unlike), 1e-12))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
