"""Inception Score (Salimans et al. 2016).

In: logits (N, classes) of a classifier. Out: numbers from 1 to the number of classes. Computed in float64, without
torch.
"""

import numpy as np

from harness.errors import UserError
from harness.metrics.distances import varied_features


def inception_score(logits: np.ndarray, splits: int = 1) -> tuple[float, float]:
    """(mean, standard deviation over the splits) of exp E KL(p(y|x) || p(y)); deviation 0 for one split.

    Splits are blocks of consecutive rows, as in StudioGAN 0.2.0 (src/metrics/IS.py).
    """
    (x,) = varied_features(logits)
    if not 1 <= splits <= len(x):
        raise UserError(f"splits: found {splits} for {len(x)} pictures, allowed 1 to their number")
    logs = x - x.max(1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    edges = [k * len(x) // splits for k in range(splits + 1)]
    scores = [_score(logs[low:high]) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return float(np.mean(scores)), float(np.std(scores, ddof=1)) if splits > 1 else 0.0


def _score(logs: np.ndarray) -> float:
    shares = np.exp(logs)
    # A class whose probability underflows to 0 everywhere adds nothing.
    marginal = np.log(np.maximum(shares.mean(0), np.finfo(np.float64).tiny))
    return float(np.exp((shares * (logs - marginal)).sum(1).mean()))
