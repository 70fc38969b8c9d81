"""A classifier of a set's classes, trained on real pictures, with its accuracy on held-out ones.

In: the packed sets of one or several `data` sections with the same classes. Out: scores (N, classes) of pictures.
Trained weights are cached in data/cache/brands/, keyed by all that they depend on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from harness.config.experiment import Data
from harness.errors import UserError
from harness.features import Featurizer, load_featurizer, view_features
from harness.metrics import class_net
from harness.metrics.class_figures import hit_rate, hits_by_class
from harness.storage.cache import cached, key_sha256
from harness.storage.splits import PackedRows, open_evaluation_rows, open_training_rows

VERSION = 1  # of the training; part of the cache key
FOLDER = Path("data/cache/brands")
PIXELS = "pixels"
REGRESSION_C, MAX_ITERATIONS = 0.1, 500
Scores = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, 3) → float32 (N, classes)


@dataclass(frozen=True)
class Classifier:
    """`scores`: higher = more likely. `accuracy`, `accuracy_top5`: on the held-out real pictures; `by_class` float64
    (classes,), nan for classes without any.
    """

    name: str
    class_names: list[str]
    scores: Scores
    sha256: str
    accuracy: float
    accuracy_top5: float
    by_class: np.ndarray
    held_out: int

    @property
    def chance(self) -> float:
        return 1 / len(self.class_names)

    def facts(self) -> dict[str, Any]:
        """Its entries in the metrics."""
        return {
            "classifier": self.name, "classifier_sha256": self.sha256, "real_accuracy": self.accuracy,
            "real_accuracy_top5": self.accuracy_top5, "real_held_out": self.held_out, "chance": self.chance,
            "chance_top5": min(1.0, 5 * self.chance),
        }  # fmt: skip


def load_classifier(sets: Sequence[Data], name: str = "auto", folder: Path = FOLDER) -> Classifier:
    """The classifier of these sets' classes, trained on their training pictures, or from the cache.

    Args:
        sets: with the same classes and picture size; their pictures are pooled.
        name: pixels (a small network), a featurizer's name (logistic regression on its features), or auto: pixels for
            procedural cars, mobilenet_v2 for others if its weights are available.
    """
    if name == "auto":
        drawn = all(data.source == "procedural" for data in sets)
        name = PIXELS if drawn or not view_features.has_weights("mobilenet_v2") else "mobilenet_v2"
    featurizer = None if name == PIXELS else load_featurizer(name)
    train, held_out = ([opened(data) for data in sets] for opened in (open_training_rows, open_evaluation_rows))
    class_names = _class_names([*train, *held_out])
    trained_by = class_net.RECIPE if featurizer is None else f"{featurizer.sha256} {REGRESSION_C} {featurizer.resizer}"
    key = key_sha256([VERSION, name, trained_by, *(packed.sha256 for packed in train)])
    tensors = cached(
        folder / f"{key[:20]}.safetensors",
        {"sha256": key},
        lambda: _fit(featurizer, *_read_all(train), len(class_names)),
        must_keep=False,
    )
    scores = _scores_of(featurizer, tensors, len(class_names))
    pictures, labels = _read_all(held_out)
    found = scores(pictures)
    by_class = hits_by_class(found, labels, len(class_names))
    top1, top5 = hit_rate(found, labels, 1), hit_rate(found, labels, 5)
    return Classifier(name, class_names, scores, key, top1, top5, by_class, len(labels))


def _class_names(parts: Sequence[PackedRows]) -> list[str]:
    names = parts[0].packed.class_names
    for packed in (part.packed for part in parts):
        if packed.class_names != names:
            found, allowed = ", ".join(packed.class_names), ", ".join(names)
            raise UserError(f"{packed.path}: has the classes {found}, allowed {allowed}")
    if len(names) < 2:
        raise UserError(f"{parts[0].packed.path}: found one class, allowed two or more for a classifier")
    return names


def _read_all(parts: Sequence[PackedRows]) -> tuple[np.ndarray, np.ndarray]:
    pictures = np.concatenate([packed.read() for packed in parts])
    return pictures, np.concatenate([packed.labels for packed in parts])


def _fit(
    featurizer: Featurizer | None, pictures: np.ndarray, labels: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    if featurizer is None:
        return class_net.train_class_net(pictures, labels, classes)
    features = featurizer(pictures).astype(np.float64)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=REGRESSION_C, max_iter=MAX_ITERATIONS)
    model.fit((features - mean) / deviation, labels)
    found, offset = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(found) == 1:  # scikit-learn has one row for two classes
        found, offset = np.concatenate([-found, found]), np.concatenate([-offset, offset])
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)  # of a class without pictures
    weight[model.classes_], bias[model.classes_] = found, offset
    scaled = weight / deviation
    return {"weight": scaled.astype(np.float32), "bias": (bias - scaled @ mean).astype(np.float32)}


def _scores_of(featurizer: Featurizer | None, tensors: dict[str, np.ndarray], classes: int) -> Scores:
    if featurizer is None:
        return class_net.load_scores(tensors, classes)
    return lambda pictures: featurizer(pictures) @ tensors["weight"].T + tensors["bias"]
