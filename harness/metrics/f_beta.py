"""Precision and recall of distributions (Sajjadi et al. 2018), summarised as F_8 and F_1/8 as in StudioGAN 0.2.0.

In: features (N, d) of real and of generated pictures. Out: two numbers in [0, 1]. Computed in float64, without torch.
"""

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from harness.errors import UserError
from harness.metrics.distances import varied_features

ANGLES = 1001
BETA = 8.0
EPSILON = 1e-10


def f_beta_scores(
    real: np.ndarray, fake: np.ndarray, runs: int = 10, clusters: int = 20, seed: int = 0
) -> tuple[float, float]:
    """(F_8, F_1/8): the first weights recall (variety), the second precision (quality).

    Each run clusters all pictures again; the curves are averaged over the runs, which share one RandomState. StudioGAN
    0.2.0 (src/metrics/F_beta.py) finds the same clusters with numpy's global generator seeded alike.
    """
    x, y = varied_features(real, fake)
    if len(x) + len(y) < clusters:
        raise UserError(
            f"features: found {len(x)} + {len(y)} rows, allowed {clusters} or more in total; try more pictures"
        )
    draws = np.random.RandomState(seed)
    curves = [prd_curve(*_cluster_shares(x, y, clusters, draws)) for _ in range(runs)]
    precision, recall = np.mean(curves, axis=0)
    return _best_f(precision, recall, BETA), _best_f(precision, recall, 1 / BETA)


def prd_curve(real_shares: np.ndarray, fake_shares: np.ndarray) -> np.ndarray:
    """Shares of the clusters, (K,) each, → precision and recall over all slopes, (2, ANGLES) (ibid., eq. 7)."""
    slopes = np.tan(np.linspace(EPSILON, np.pi / 2 - EPSILON, ANGLES))
    precision = np.minimum(slopes[:, None] * real_shares, fake_shares).sum(1)
    return np.clip([precision, precision / slopes], 0, 1)


def _cluster_shares(
    real: np.ndarray, fake: np.ndarray, clusters: int, draws: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    both = np.concatenate([real, fake])
    clustering = MiniBatchKMeans(n_clusters=clusters, n_init=10, random_state=draws)  # type: ignore[arg-type]
    labels = np.asarray(clustering.fit(both).labels_)
    parts = labels[: len(real)], labels[len(real) :]
    real_shares, fake_shares = (np.bincount(part, minlength=clusters) / len(part) for part in parts)
    return real_shares, fake_shares


def _best_f(precision: np.ndarray, recall: np.ndarray, beta: float) -> float:
    return float(((1 + beta**2) * precision * recall / (beta**2 * precision + recall + EPSILON)).max())
