"""Precision, recall, density and coverage from balls that reach to the k-th nearest neighbour.

Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).
In: features (N, d) of real and of generated pictures. Out: numbers. Computed in float64, without torch.
"""

import numpy as np

from harness.errors import UserError
from harness.metrics.distances import BLOCK_ROWS, euclidean_distances, neighbour_distances, varied_features

PRDC = ("precision", "recall", "density", "coverage")


def prdc(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """precision, recall, density and coverage. Distances are computed once, by blocks of rows.

    The balls are closed, as in Kynkäänniemi et al., eq. 1. Density may exceed 1.
    """
    x, y = varied_features(real, fake)
    if min(len(x), len(y)) <= k:
        raise UserError(
            f"neighbours: found {k} for {len(x)} and {len(y)} pictures, allowed fewer than there are of each"
        )
    real_radii, fake_radii = neighbour_distances(x, k), neighbour_distances(y, k)
    holders = np.zeros(len(y), np.int64)  # number of real balls around each generated picture
    recalled, covered = 0, 0
    for start in range(0, len(x), BLOCK_ROWS):
        distances = euclidean_distances(x[start : start + BLOCK_ROWS], y)
        held = distances <= real_radii[start : start + BLOCK_ROWS, None]
        holders += held.sum(0)
        covered += int(held.any(1).sum())
        recalled += int((distances <= fake_radii).any(1).sum())
    figures = float((holders > 0).mean()), recalled / len(x), float(holders.mean() / k), covered / len(x)
    return dict(zip(PRDC, figures, strict=True))
