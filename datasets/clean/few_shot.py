"""Few-shot heads of the view classifier: logistic regressions on features and on the pretrained heads' predictions.

Fitted to a few dozen labels of a person, on one thread, so equal labels give equal heads.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

MIN_OK = 6  # labels of each verdict needed to fit it
MIN_VIEWS = 12  # labelled views needed to fit views
OK_C, VIEW_C = 0.01, 1.0  # scikit-learn's C
VIEW_COMPONENTS = 250
MIN_PER_VIEW = 3  # a view with fewer labels is left to the pretrained heads
HALF_TRUST = 12  # labels of a view or its mirror image at which few-shot and pretrained heads count equally
FOLDS = 5
MAX_LOST = 0.03  # share of usable pictures in held-out folds that may fall below the threshold


@dataclass(frozen=True)
class Affine:
    """features (N, F) → (N, C) = features @ weight + bias."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight + self.bias


@dataclass(frozen=True)
class FewShotHeads:
    """Corrections of the pretrained heads.

    Attributes:
        ok: → (N, 1), added to the logit of a usable car; None with too few labels.
        view: → (N, len(classes)), logits of these views; None with too few labels.
        trust: (views,) in [0, 1], weight of `view` against the pretrained head.
    """

    ok: Affine | None
    view: Affine | None
    classes: np.ndarray
    trust: np.ndarray

    def blend_views(self, fitted: np.ndarray, pretrained: np.ndarray) -> np.ndarray:
        """Probabilities (N, views) of both heads, averaged by `trust`."""
        both = self.trust * fitted + (1 - self.trust) * pretrained
        return both / both.sum(1, keepdims=True)


@threadpool_limits.wrap(limits=1)
def fit_few_shot(
    ok_rows: np.ndarray, ok: np.ndarray, view_rows: np.ndarray, mirrored_rows: np.ndarray, views: np.ndarray,
    swapped: np.ndarray,
) -> FewShotHeads:  # fmt: skip
    """Fits the heads to labels.

    Args:
        ok_rows: float32 (N, F), equal for mirror images.
        ok: (N,) 1, 0, or -1 = unlabelled.
        view_rows, mirrored_rows: float32 (N, G), of the pictures and of their mirror images.
        views: (N,) indices of views, -1 = unlabelled.
        swapped: view → view of the mirror image.
    """
    counts = np.bincount(views[views >= 0], minlength=len(swapped))
    counts = np.where(swapped == np.arange(len(swapped)), counts, counts + counts[swapped])
    labelled, viewed = ok >= 0, (views >= 0) & (counts[views] >= MIN_PER_VIEW)
    enough = min((ok == 0).sum(), (ok == 1).sum()) >= MIN_OK
    verdict = _fit_ok(ok_rows[labelled], ok[labelled]) if enough else None
    if viewed.sum() < MIN_VIEWS or len(np.unique(views[viewed])) < 2:
        return FewShotHeads(verdict, None, np.zeros(0, np.int64), np.zeros(len(swapped)))
    rows = np.concatenate([view_rows[viewed], mirrored_rows[viewed]])
    labels = np.concatenate([views[viewed], swapped[views[viewed]]])
    view, classes = _fit_views(rows, labels)
    trust = np.zeros(len(swapped))
    trust[classes] = counts[classes] / (counts[classes] + HALF_TRUST)
    return FewShotHeads(verdict, view, classes, trust)


@threadpool_limits.wrap(limits=1)
def cross_validated_logits(ok_rows: np.ndarray, ok: np.ndarray) -> np.ndarray:
    """Each row's logit by a fit on the other folds: float64 (N,)."""
    logits = np.zeros(len(ok))
    folds = StratifiedKFold(min(FOLDS, (ok == 0).sum(), (ok == 1).sum()), shuffle=True, random_state=0)
    for rest, fold in folds.split(ok_rows, ok):
        logits[fold] = _fit_ok(ok_rows[rest], ok[rest])(ok_rows[fold])[:, 0]
    return logits


def _fit_ok(rows: np.ndarray, ok: np.ndarray) -> Affine:
    scaled, mean, scale = standardised(rows)
    model = LogisticRegression(C=OK_C, class_weight="balanced", max_iter=2000).fit(scaled, ok)
    return unscaled(model.coef_.T, model.intercept_, mean, scale)


def _fit_views(rows: np.ndarray, labels: np.ndarray) -> tuple[Affine, np.ndarray]:
    """Principal components limit overfitting; classes are balanced."""
    scaled, mean, scale = standardised(rows)
    components = min(VIEW_COMPONENTS, len(rows) // 2, rows.shape[1])
    reduced = PCA(components, svd_solver="full").fit(scaled)
    assert reduced.components_ is not None
    model = LogisticRegression(C=VIEW_C, class_weight="balanced", max_iter=1000)
    model.fit(reduced.transform(scaled), labels)
    coefficients, intercept = model.coef_.T, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one row for two classes
        coefficients, intercept = np.repeat(coefficients, 2, 1) * [[-0.5, 0.5]], intercept * np.array([-0.5, 0.5])
    whole = reduced.components_.T @ coefficients
    return unscaled(whole, intercept - reduced.mean_ @ whole, mean, scale), model.classes_


def standardised(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows scaled to mean 0 and standard deviation 1 (constant columns only centred), the means, the deviations."""
    mean, scale = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
    scale[scale < 1e-9] = 1.0
    return ((rows - mean) / scale).astype(np.float32), mean, scale


def unscaled(weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Affine:
    """The same map as `weight` and `bias` on standardised rows, for the rows themselves."""
    weight = weight / scale[:, None]
    return Affine(weight, bias - mean @ weight)
