"""Fréchet distance between two sets of features, as normal distributions with their means and covariances.

In: features (N, d), or their statistics. Out: one number. Computed in float64, without torch.
"""

from dataclasses import dataclass, replace

import numpy as np

from harness.errors import UserError
from harness.metrics.distances import varied_features


@dataclass(frozen=True)
class Statistics:
    """Moments of a set of features.

    Attributes:
        mean: float64 (d,).
        cov: float64 (d, d), unbiased (divided by count - 1).
        count: number of pictures.
        root: float64 (r, d) with root.T @ root = cov, r <= d; None = not computed.
    """

    mean: np.ndarray
    cov: np.ndarray
    count: int
    root: np.ndarray | None = None


def statistics_of(features: np.ndarray) -> Statistics:
    """Mean and covariance of (N, d). With N < d the centred features are the smallest root."""
    (x,) = varied_features(features)
    mean = x.mean(0)
    scaled = (x - mean) / np.sqrt(len(x) - 1)
    return Statistics(mean, scaled.T @ scaled, len(x), scaled if len(x) < x.shape[1] else None)


def with_root(statistics: Statistics) -> Statistics:
    """The statistics with their root, which pays if they are compared with several others."""
    if statistics.root is not None:
        return statistics
    values, vectors = np.linalg.eigh(statistics.cov)
    # Directions without variance (features that are always 0) only contribute rounding errors.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return replace(statistics, root=np.sqrt(values[kept])[:, None] * vectors[:, kept].T)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) (Heusel et al. 2017, eq. 6), at least 0."""
    if a.mean.shape != b.mean.shape:
        raise UserError(f"features: found {len(a.mean)} and {len(b.mean)} dimensions, allowed one d; use one extractor")
    gap = a.mean - b.mean
    return float(max(gap @ gap + np.trace(a.cov) + np.trace(b.cov) - 2 * trace_of_root(a, b), 0.0))


def trace_of_root(a: Statistics, b: Statistics) -> float:
    """tr((C_a C_b)^1/2), computed from symmetric matrices, so the result is always real.

    With C = R^T R the eigenvalues of C_a C_b are those of R_a C_b R_a^T, and the squared singular values of R_a R_b^T;
    the latter lose no digits to a square root, and are cheap with fewer pictures than dimensions.
    """
    if a.root is not None and b.root is not None and min(len(a.root), len(b.root)) < len(a.mean):
        return float(np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum())
    rooted, other = (b, a) if a.root is None and b.root is not None else (with_root(a), b)
    assert rooted.root is not None
    squares = np.linalg.eigvalsh(rooted.root @ other.cov @ rooted.root.T)
    return float(np.sqrt(np.maximum(squares, 0)).sum())


def frechet_name(extractor: str) -> str:
    """The metric's name; `fid` only with the published Inception network."""
    return "fid" if extractor == "inception" else f"fd_{extractor}"
