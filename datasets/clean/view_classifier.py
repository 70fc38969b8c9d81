"""Classifies a picture: one usable car or why not, and the side from which the car is seen.

Input: uint8 (N, S, S, 3) (`datasets.scan.scan.make_classifier_input`). Features come from
`harness.features.view_features`; linear heads read them, pretrained on procedural pictures and adapted to a person's
labels (`ViewClassifier.fit_labels`). A picture and its mirror image get the same result, with left and right swapped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.clean.few_shot import MAX_LOST, FewShotHeads, cross_validated_logits, fit_few_shot
from datasets.clean.kinds import KINDS, MIRRORED, NO_CAR
from datasets.clean.manual_labels import VIEWS
from harness.errors import UserError
from harness.features.view_features import VIEW_FEATURIZERS, ViewFeatures, has_weights, load_view_features
from harness.features.weights_file import read_tensors
from harness.messages import log

DEFAULT_VIEWS = ("left", "right", "front_left", "front_right", "rear_left", "rear_right")
BEST_FIRST = ("clip", "mobilenet_v2", "resnet18", "reader")
SWAPPED = np.array([VIEWS.index(MIRRORED[view]) for view in VIEWS])
WEIGHTS = Path(__file__).resolve().parents[2] / "harness" / "weights"
TINY = 1e-6
# A usable car's logit grows with the probability of ImageNet's car classes: not at all at SHARE_NEUTRAL.
SHARE_NEUTRAL, SHARE_FLOOR = 0.05, 0.03


@dataclass(frozen=True)
class Predictions:
    """Predictions for N pictures.

    Attributes:
        ok_score: float32 (N,) in [0, 1], the probability of one usable car in one of the wanted views.
        reasons: the most likely slug in case the picture is dropped.
        view_probs: float32 (N, len(VIEWS)), rows sum to 1.
    """

    ok_score: np.ndarray
    reasons: list[str]
    view_probs: np.ndarray


@dataclass(frozen=True)
class Heads:
    """Linear heads; standardisation is folded into the weights.

    Attributes:
        kind_weight, kind_bias: (even + sided, len(KINDS)), (len(KINDS),); input: even part, mean of the sided parts.
        view_weight, view_bias: (sided, len(VIEWS)), (len(VIEWS),).
        threshold: of ok_score, for DEFAULT_VIEWS.
        sha256: of the file.
    """

    kind_weight: np.ndarray
    kind_bias: np.ndarray
    view_weight: np.ndarray
    view_bias: np.ndarray
    threshold: float
    sha256: str


@dataclass(frozen=True)
class ViewClassifier:
    """Features and heads.

    Attributes:
        sha256: of featurizer, heads and labels; equal means equal predictions.
        threshold: of `ok_score`; pictures below it should be dropped.
        few_shot: what a person's labels add; None = pretrained heads alone.
    """

    featurizer: ViewFeatures
    heads: Heads
    sha256: str
    threshold: float
    few_shot: FewShotHeads | None = None

    @property
    def name(self) -> str:
        return self.featurizer.name

    @property
    def input_px(self) -> int:
        return self.featurizer.input_px

    @property
    def dim(self) -> int:
        """Length of the features of one picture."""
        return self.featurizer.dim

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """uint8 (N, input_px, input_px, 3) → float32 (N, dim)."""
        return self.featurizer(inputs)

    def predict(self, features: np.ndarray, views: Sequence[str] | None = DEFAULT_VIEWS) -> Predictions:
        """`features`: float32 (N, dim). `views`: those that are wanted, None = all."""
        kinds, seen = self._probabilities(np.asarray(features, np.float32))
        in_view = seen[:, [VIEWS.index(view) for view in (views or VIEWS)]].sum(1)
        score = np.clip(kinds[:, 0] * in_view, 0, 1).astype(np.float32)
        causes = np.concatenate([kinds[:, :1] * (1 - in_view[:, None]), kinds[:, 1:]], 1)
        reasons = [("view", *KINDS[1:])[cause] for cause in causes.argmax(1)]
        # Without a car the view is "other", but not for pictures that pass: they must not fail for their view.
        no_car = kinds[:, [KINDS.index(kind) for kind in NO_CAR]].sum(1)
        hidden = np.where((no_car > 0.5) & (score < self.threshold), no_car, 0)[:, None]
        view_probs = seen * (1 - hidden) + hidden * (np.arange(len(VIEWS)) == VIEWS.index("other"))
        return Predictions(score, reasons, view_probs.astype(np.float32))

    def fit_labels(self, features: np.ndarray, ok: np.ndarray, views: np.ndarray) -> "ViewClassifier":
        """A classifier adapted to a person's labels, in seconds; always starts from the pretrained heads.

        Args:
            features: (N, dim).
            ok: int8 (N,), 1 = usable, 0 = not, -1 = unlabelled.
            views: int8 (N,), index into VIEWS, -1 = unlabelled.
        """
        features = np.asarray(features, np.float32)
        ok, views = np.asarray(ok, np.int8), np.asarray(views, np.int8)
        assert features.shape == (len(ok), self.dim) and ok.shape == views.shape, (features.shape, ok.shape)
        kinds, seen = self._pretrained(features)
        ok_rows, view_rows, mirrored_rows = self._rows(features, kinds, seen)
        few_shot = fit_few_shot(ok_rows, ok, view_rows, mirrored_rows, views, SWAPPED)
        content = [self.heads.sha256.encode(), *(part.tobytes() for part in (features, ok, views))]
        sha256 = hashlib.sha256(b"\n".join(content)).hexdigest()
        fitted = replace(self, few_shot=few_shot, threshold=self.heads.threshold, sha256=sha256)
        if few_shot.ok is None:
            return fitted
        labelled = ok >= 0
        unseen = add_to_usable_logit(kinds[labelled], cross_validated_logits(ok_rows[labelled], ok[labelled]))[:, 0]
        in_view = fitted._probabilities(features[labelled])[1][:, [VIEWS.index(view) for view in DEFAULT_VIEWS]].sum(1)
        threshold = float(np.quantile((unseen * in_view)[ok[labelled] == 1], MAX_LOST))
        return replace(fitted, threshold=threshold)

    def _probabilities(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of kinds, float64 (N, len(KINDS)), and of views given a car, (N, len(VIEWS))."""
        kinds, seen = self._pretrained(features)
        if self.few_shot is None:
            return kinds, seen
        ok_rows, view_rows, mirrored_rows = self._rows(features, kinds, seen)
        kinds = add_to_usable_logit(kinds, self.few_shot.ok(ok_rows)[:, 0]) if self.few_shot.ok is not None else kinds
        if self.few_shot.view is None:
            return kinds, seen
        sides = np.zeros((2, len(features), len(VIEWS)))
        for part, rows in zip(sides, (view_rows, mirrored_rows), strict=True):
            part[:, self.few_shot.classes] = softmax(self.few_shot.view(rows))
        return kinds, self.few_shot.blend_views(0.5 * (sides[0] + sides[1][:, SWAPPED]), seen)

    def _pretrained(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole, here, mirrored = split_features(self.featurizer, features)
        kinds = softmax(whole @ self.heads.kind_weight + self.heads.kind_bias)
        if self.featurizer.car_share is not None:
            share = self.featurizer.car_share(features[:, : self.featurizer.even])
            kinds = add_to_usable_logit(kinds, np.log((share + SHARE_FLOOR) / SHARE_NEUTRAL))
        both = [softmax(part @ self.heads.view_weight + self.heads.view_bias) for part in (here, mirrored)]
        return kinds, 0.5 * (both[0] + both[1][:, SWAPPED])

    def _rows(
        self, features: np.ndarray, kinds: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs of the few-shot heads: features and the pretrained heads' log-probabilities. For the verdict, for the
        view, and for the view of the mirror image."""
        whole, here, mirrored = split_features(self.featurizer, features)
        turned = seen[:, SWAPPED]
        log_kinds, log_views = np.log(kinds + TINY), np.log(0.5 * (seen + turned) + TINY)
        here, mirrored = (
            np.concatenate([part, np.log(side + TINY)], 1) for part, side in ((here, seen), (mirrored, turned))
        )
        return np.concatenate([whole, log_kinds, log_views], 1), here, mirrored


def split_features(featurizer: ViewFeatures, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirror-invariant features (N, even + sided), and the sided parts of the picture and of its mirror image."""
    even, here, mirrored = featurizer.split(features)
    return np.concatenate([even, 0.5 * (here + mirrored)], 1), here, mirrored


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
    return shares / shares.sum(1, keepdims=True)


def add_to_usable_logit(kinds: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Adds `more` (N,) to the logit of the first of `kinds`, probabilities (N, len(KINDS)); the rest is rescaled."""
    usable = kinds[:, :1].clip(TINY, 1 - TINY)
    raised = 1 / (1 + (1 - usable) / usable * np.exp(-np.clip(more, -30, 30))[:, None])
    others = kinds[:, 1:] / kinds[:, 1:].sum(1, keepdims=True).clip(TINY)
    return np.concatenate([raised, others * (1 - raised)], 1)


# ---- loading ----------------------------------------------------------------------------------------------------


def heads_path(name: str) -> Path:
    return WEIGHTS / f"sorter_{name}.safetensors"


def load_view_classifier(name: str = "auto") -> ViewClassifier:
    """The classifier on these features; auto = the best whose weights are on this machine, at worst the reader's."""
    if name != "auto":
        if name not in VIEW_FEATURIZERS:
            raise UserError(f"clean.features: found {name!r}, allowed auto, {', '.join(VIEW_FEATURIZERS)}")
        return open_view_classifier(load_view_features(name))
    for best in BEST_FIRST[:-1]:
        if not (heads_path(best).is_file() and has_weights(best)):
            continue
        try:
            classifier = open_view_classifier(load_view_features(best, may_download=False))
        except UserError as error:  # damaged, or not the weights that the heads were trained on
            log(f"view classifier: {error}")
            continue
        log(f"view classifier: features of {best}")
        return classifier
    return open_view_classifier(load_view_features(BEST_FIRST[-1]))


def open_view_classifier(featurizer: ViewFeatures) -> ViewClassifier:
    """With the heads trained on exactly these features. UserError when there are none."""
    path, remedy = heads_path(featurizer.name), f"try `python -m datasets sorter train --features {featurizer.name}`"
    tensors, meta, sha256 = read_tensors(path, "sorter_heads", f"the view classifier on {featurizer.name}", remedy)
    if meta["featurizer"] != featurizer.sha256:
        raise UserError(f"{path}: found heads for other weights than {featurizer.name}'s on this machine; {remedy}")
    parts = {part: value.float().numpy() for part, value in tensors.items()}
    heads = Heads(**parts, threshold=meta["threshold"], sha256=sha256)
    return ViewClassifier(featurizer, heads, sha256, heads.threshold)
