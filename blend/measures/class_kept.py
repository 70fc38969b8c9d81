"""Is the brand of the ordinary car kept as futurism rises? By a classifier trained on real cars of both sets.

In: a sweep of designs and the brand of each pair. Out: figures for metrics.json["blend"]["brand"].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.config.experiment import Config, finetune_config
from harness.errors import UserError
from harness.metrics.classifier import Classifier, load_classifier


def brand_kept_figures(
    config: Config, sweep: np.ndarray, parents: np.ndarray, brands: np.ndarray, intensities: Sequence[float]
) -> dict[str, Any]:
    """Figures of a conditional run's sweep; `left_out` with the reason where there is no classifier.

    Args:
        sweep: uint8 (N, T, H, W, 3), N pairs at T intensities.
        parents: uint8 (N, H, W, 3), the ordinary cars.
        brands: int (N,), the class of each pair: the encoder's prediction.
    """
    try:
        classifier = load_classifier([config.data, finetune_config(config).data], config.evaluate.brand_classifier)
    except UserError as error:
        return {"left_out": str(error)}
    return kept_along(classifier, sweep, parents, brands, intensities)


def kept_along(
    classifier: Classifier, sweep: np.ndarray, parents: np.ndarray, brands: np.ndarray, intensities: Sequence[float]
) -> dict[str, Any]:
    """The share of designs classified as their brand: at each intensity, and by brand at both ends."""
    count, points = sweep.shape[:2]
    read = classifier.scores(sweep.reshape(-1, *sweep.shape[2:])).argmax(1).reshape(count, points)
    kept = read == brands[:, None]
    by_brand = {
        name: [float(kept[brands == c, 0].mean()), float(kept[brands == c, -1].mean())]
        for c, name in enumerate(classifier.class_names)
        if (brands == c).any()
    }
    return {
        "intensity": list(intensities),
        "kept": kept.mean(0).round(4).tolist(),
        "kept_mean": float(kept.mean()),
        "same_as_ordinary": (read == read[:, :1]).mean(0).round(4).tolist(),
        "parent": float((classifier.scores(parents).argmax(1) == brands).mean()),
        "first_and_last_by_brand": by_brand,
        "pairs": count,
        **classifier.facts(),
    }
