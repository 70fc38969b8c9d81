"""Picture error: the mean squared difference over pixels and channels, with levels from -1 to 1. Imports no torch."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def picture_error(x: "Tensor", target: "Tensor") -> "Tensor":
    """Of each picture, float (B, 3, H, W) in [-1, 1]: (B,)."""
    return (x - target).square().flatten(1).mean(1)


def mean_picture_error(pictures: np.ndarray, targets: np.ndarray) -> float:
    """Of all pictures together, uint8 of one shape."""
    return float(np.square((pictures.astype(np.float64) - targets) / 127.5).mean())


def picture_errors(targets: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each of (N, H, W, 3) to each of (M, H, W, 3), levels 0 to 255: float64 (N, M)."""
    a, b = (levels.reshape(len(levels), -1) / 127.5 - 1 for levels in (targets, others))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(squares, 0) / a.shape[1]
