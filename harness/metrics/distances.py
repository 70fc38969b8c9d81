"""KID, and distances within and between sets of features.

In: features (N, d). Out: one number, or distances float64. Computed in float64, without torch.
"""

import numpy as np

from harness.errors import UserError

BLOCK_ROWS = 1024


def kid(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Kernel Inception Distance: unbiased squared MMD with kernel (x.y / d + 1)^3 (Binkowski et al. 2018, eq. 4, §4).

    Over all pairs instead of a mean over subsets: same expectation, less variance. Around 0 for two samples of one
    distribution, so it may be negative.
    """
    a, b = checked_features(features_a, features_b)
    count_a, count_b = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _kernel_diagonal_sum(a)) / (count_a * (count_a - 1))
    within_b = (_kernel_sum(b, b) - _kernel_diagonal_sum(b)) / (count_b * (count_b - 1))
    return float(within_a + within_b - 2 * _kernel_sum(a, b) / (count_a * count_b))


def pairwise_distances(features: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs, float64 (N (N - 1) / 2,)."""
    (x,) = checked_features(features)
    return np.concatenate([euclidean_distances(x[k : k + 1], x[k + 1 :])[0] for k in range(len(x) - 1)])


def nearest_distances(features: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """From each row to the nearest of `others` (None = of the other rows), float64 (N,)."""
    if others is None:
        return neighbour_distances(checked_features(features)[0], 1)
    x, y = checked_features(features, others)
    return np.concatenate([euclidean_distances(x[k : k + BLOCK_ROWS], y).min(1) for k in range(0, len(x), BLOCK_ROWS)])


def neighbour_distances(x: np.ndarray, k: int) -> np.ndarray:
    """From each row of float64 (N, d) to the k-th nearest other row, float64 (N,)."""
    found = []
    for start in range(0, len(x), BLOCK_ROWS):
        distances = euclidean_distances(x[start : start + BLOCK_ROWS], x)
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        found.append(np.partition(distances, k - 1, axis=1)[:, k - 1])
    return np.concatenate(found)


def euclidean_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (len(x), len(y)), accurate to about 1e-7 of the norms: equal rows may be slightly above 0."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.sqrt(np.maximum(squares, 0))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    blocks = range(0, len(a), BLOCK_ROWS)
    return float(sum(((a[k : k + BLOCK_ROWS] @ b.T / a.shape[1] + 1) ** 3).sum() for k in blocks))


def _kernel_diagonal_sum(a: np.ndarray) -> float:
    return float((((a**2).sum(1) / a.shape[1] + 1) ** 3).sum())


def checked_features(*sets: np.ndarray) -> list[np.ndarray]:
    """Sets of features as float64 (N, d) with N >= 2, finite values and the same d. UserError for others."""
    arrays = [np.asarray(features, np.float64) for features in sets]
    for x in arrays:
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != arrays[0].shape[1]:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise UserError(f"features: found shapes {shapes}, allowed (N, d) with N >= 2 and one d; try more pictures")
        if not np.isfinite(x).all():
            raise UserError(f"features: found {int((~np.isfinite(x)).any(1).sum())} rows with NaN or infinity")
    return arrays


def varied_features(*sets: np.ndarray) -> list[np.ndarray]:
    """`checked_features` that also vary in at least one dimension. UserError when all rows are equal."""
    arrays = checked_features(*sets)
    for x in arrays:
        if (x == x[:1]).all():
            raise UserError(
                f"features: found {len(x)} equal rows, allowed rows that differ; has the generator collapsed?"
            )
    return arrays
