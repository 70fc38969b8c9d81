"""Figures by class: accuracy, diversity, copies and KID of generated pictures, compared with real ones.

In: scores (N, classes) of a classifier, features (N, d), labels (N,). Out: numbers. Without torch.
"""

from typing import Any

import numpy as np

from harness.metrics.distances import kid, nearest_distances, pairwise_distances

MIN_REAL = 20  # held-out pictures for a KID by class; classes with fewer are pooled
COPY_PERCENTILE = 1.0  # of the distances from held-out to training pictures; closer is a copy


def hit_rate(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Top-k accuracy."""
    return float(_hits(scores, labels, k).mean())


def hits_by_class(scores: np.ndarray, labels: np.ndarray, classes: int, k: int = 1) -> np.ndarray:
    """Top-k accuracy by class, float64 (classes,); nan for classes without a picture."""
    hits = _hits(scores, labels, k)
    return np.array([hits[labels == c].mean() if (labels == c).any() else np.nan for c in range(classes)])


def _hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    own = scores[np.arange(len(labels)), labels][:, None]
    return (scores > own).sum(1) < k


def spread(features: np.ndarray) -> float | None:
    """Mean pairwise distance; None for fewer than two pictures."""
    return float(pairwise_distances(features).mean()) if len(features) > 1 else None


def copy_shares(fake: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, float]:
    """Which generated pictures are closer to a training picture than the 1st percentile of held-out ones: bool (N,);
    and that distance."""
    limit = float(np.percentile(nearest_distances(held_out, train), COPY_PERCENTILE))
    return nearest_distances(fake, train) < limit, limit


def kid_by_class(
    fake: np.ndarray, fake_labels: np.ndarray, real: np.ndarray, real_labels: np.ndarray, classes: int
) -> tuple[list[float | None], float | None, list[int]]:
    """KID of each class with enough held-out pictures (others None), KID of the other classes together (None with too
    few pictures), and these pooled classes."""
    counts = np.bincount(real_labels, minlength=classes)
    pooled = np.flatnonzero(counts < MIN_REAL).tolist()
    own: list[float | None] = [
        None if c in pooled else kid(fake[fake_labels == c], real[real_labels == c]) for c in range(classes)
    ]
    some = np.isin(real_labels, pooled)
    together = kid(fake[np.isin(fake_labels, pooled)], real[some]) if some.sum() >= 2 else None
    return own, together, pooled


def class_rows(
    class_names: list[str],
    scores: np.ndarray,
    labels: np.ndarray,
    features: np.ndarray,
    real: tuple[np.ndarray, np.ndarray],
    train: np.ndarray | None,
    real_accuracy: np.ndarray,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row per class, and the figures of all classes.

    Args:
        scores, labels, features: of generated pictures; labels are the classes that were asked for.
        real: features and labels of the held-out real pictures.
        train: features of the training pictures; None = no search for copies.
        real_accuracy: of held-out pictures, by class.
    """
    classes = len(class_names)
    top1, top5 = (hits_by_class(scores, labels, classes, k) for k in (1, 5))
    kids, pooled_kid, pooled = kid_by_class(features, labels, *real, classes)
    copies, limit = (None, None) if train is None else copy_shares(features, real[0], train)
    rows = []
    for c, name in enumerate(class_names):
        generated, held_out = features[labels == c], real[0][real[1] == c]
        rows.append({
            "brand": name,
            "drawn": len(generated),
            "held_out": len(held_out),
            "top1": float(top1[c]),
            "top5": float(top5[c]),
            "real_top1": None if np.isnan(real_accuracy[c]) else float(real_accuracy[c]),
            "diversity": spread(generated),
            "real_diversity": spread(held_out),
            "copies": None if copies is None else float(copies[labels == c].mean()),
            "kid": kids[c],
            "pooled": c in pooled,
        })  # fmt: skip
    ratios = [r["diversity"] / r["real_diversity"] for r in rows if r["diversity"] and r["real_diversity"]]
    overall = {
        "top1": hit_rate(scores, labels, 1),
        "top5": hit_rate(scores, labels, 5),
        "diversity_ratio": float(np.mean(ratios)) if ratios else None,
        "copies": None if copies is None else float(copies.mean()),
        "copy_distance": limit,
        "kid_mean": float(np.mean([k for k in kids if k is not None])) if len(pooled) < classes else None,
        "kid_pooled": pooled_kid,
    }
    return rows, overall
