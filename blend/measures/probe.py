"""Futurism: a logistic regression between ordinary and concept pictures, as a scale.

In: features of `harness.features`, float32 (N, d). Out: scores, 0 = the median of held-out ordinary pictures, 100 = the
median of held-out concept pictures. It uses neither the reader's own futurism nor any other factor of a picture.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from harness.errors import UserError
from harness.features import Featurizer

# Weight of |w|^2 / 2 relative to the mean loss. Scores are nearly the same from 0.1 to 1e-5; above that the middle of
# the scale is too low; with 0 there is no solution for separable sets.
RIDGE = 0.01
ITERATIONS, TOLERANCE = 10_000, 1e-8
# The car region, in widths of the picture: an ellipse with more than 99.8 % of the pixels of rendered cars.
CAR_HALF_WIDTH, CAR_HALF_HEIGHT = 0.52, 0.28
CAR_MIDDLE = 0.55  # of the picture's height
GREY = 128


@dataclass(frozen=True)
class TrainValid:
    """Pictures of one kind, or their features, (N, ...): for fitting, and held out for measuring."""

    train: np.ndarray
    valid: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.train) and len(self.valid)


@dataclass(frozen=True)
class FuturismProbe:
    """A linear score of features.

    Attributes:
        weights: float64 (d,), the logit is `features @ weights + bias`.
        low, high: the logits that are 0 and 100 points.
        auc: on held-out pictures: 1 = perfectly separated, 0.5 = chance.
    """

    weights: np.ndarray
    bias: float
    low: float
    high: float
    auc: float

    def score(self, features: np.ndarray) -> np.ndarray:
        """(N, d) → points, float64 (N,): linear in the logit, also below 0 and above 100."""
        logits = features.astype(np.float64) @ self.weights + self.bias
        return 100 * (logits - self.low) / (self.high - self.low)


def fit_probe(ordinary: TrainValid, concept: TrainValid) -> FuturismProbe:
    """Weights from training features, scale and AUC from held-out ones. UserError when held-out concept pictures do not
    score above ordinary ones."""
    weights, bias = _fit(ordinary.train, concept.train)
    logits = [part.valid.astype(np.float64) @ weights + bias for part in (ordinary, concept)]
    low, high = (float(np.median(part)) for part in logits)
    if not high > low:
        raise UserError(
            "finetune.override.data: found concept pictures that no probe separates from ordinary ones (medians of "
            f"held-out ones {high:.3g} and {low:.3g}), allowed sets that differ; try another set and `make dataset`"
        )
    return FuturismProbe(weights, bias, low, high, _auc(*logits))


def _fit(ordinary: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of the logit for raw features; fitted to standardised ones, both kinds weighted alike."""
    x = np.concatenate([ordinary, concept]).astype(np.float64)
    mean, deviation = x.mean(0), np.maximum(x.std(0), 1e-6)
    model = LogisticRegression(C=1 / (RIDGE * len(x)), class_weight="balanced", max_iter=ITERATIONS, tol=TOLERANCE)
    model.fit((x - mean) / deviation, np.repeat([0, 1], [len(ordinary), len(concept)]))
    weights = np.ravel(model.coef_) / deviation
    return weights, float(np.ravel(model.intercept_)[0] - mean @ weights)


def _auc(ordinary: np.ndarray, concept: np.ndarray) -> float:
    truth = np.repeat([0, 1], [len(ordinary), len(concept)])
    return float(roc_auc_score(truth, np.concatenate([ordinary, concept])))


def car_mask(height: int, width: int) -> np.ndarray:
    """The car region of pictures that a car fills, bool (H, W)."""
    down = (np.arange(height) + 0.5 - CAR_MIDDLE * height) / (CAR_HALF_HEIGHT * width)
    across = (np.arange(width) + 0.5 - 0.5 * width) / (CAR_HALF_WIDTH * width)
    return down[:, None] ** 2 + across[None] ** 2 <= 1


def background_auc(featurizer: Featurizer, ordinary: TrainValid, concept: TrainValid) -> float:
    """The AUC of a probe fitted to the same pictures, uint8 (N, H, W, 3), with the car region greyed out.

    Far above 0.5, the backgrounds of the sets differ too, and may change the score of a design.
    """
    features = [[featurizer(_without_car(part)) for part in (kind.train, kind.valid)] for kind in (ordinary, concept)]
    weights, _ = _fit(*(train for train, _ in features))
    return _auc(*(valid @ weights for _, valid in features))


def _without_car(pictures: np.ndarray) -> np.ndarray:
    greyed = pictures.copy()
    greyed[:, car_mask(*pictures.shape[1:3])] = GREY
    return greyed
