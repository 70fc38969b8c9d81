"""Measures the view classifier on labelled photos, pretrained and after few-shot fits, and on procedural pictures.

Cross-validation: 5 stratified folds for each of 5 seeds. Copies of a photo, mirrored ones included, share a fold.
Intervals: 95 %, by bootstrap over pictures.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from datasets.clean.kinds import NOSE_LEFT, NOSE_RIGHT
from datasets.clean.manual_labels import VIEWS
from datasets.clean.view_classifier import DEFAULT_VIEWS, ViewClassifier, load_view_classifier
from datasets.procedural.messy import USABLE
from datasets.train_shipped.labelled_photos import (
    Labelled,
    read_inputs,
    read_messy_photos,
    read_view_photos,
    sample_good_photos,
)
from datasets.train_shipped.view_data import draw_messy_inputs, draw_views
from harness.errors import UserError

SEEDS, FOLDS, RESAMPLES = 5, 5, 1000
QUARTERS = ("front_left", "front_right", "rear_left", "rear_right")
MEASURE_SEED = 88_000_500  # not used by training or calibration


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap(count: int, measure: Callable[[np.ndarray], float]) -> Estimate:
    """`measure` takes row numbers; resamples for which it returns nan are left out."""
    rng = np.random.default_rng(0)
    values = [measure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(measure(np.arange(count)), float(low), float(high))


# ---- verdict on photos ------------------------------------------------------------------------------------------


def auc(ok: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(ok, scores)) if 0 < ok.sum() < len(ok) else float("nan")


def pretrained_auc(classifier: ViewClassifier, photos: Labelled) -> Estimate:
    scores = classifier.predict(photos.features).ok_score
    return bootstrap(len(scores), lambda rows: auc(photos.ok[rows], scores[rows]))


def few_shot_auc(photos: Labelled, scores: np.ndarray) -> Estimate:
    """Mean over seeds of the AUC over all folds; scores (seeds, N) of `cross_validated_scores`."""
    return bootstrap(len(photos.ok), lambda rows: float(np.mean([auc(photos.ok[rows], one[rows]) for one in scores])))


def cross_validated_scores(
    classifier: ViewClassifier, photos: Labelled, seeds: int = SEEDS
) -> tuple[np.ndarray, np.ndarray]:
    """Each picture's score by a fit on the other folds, and whether it reaches that fit's threshold: (seeds, N)."""
    scores, passed = np.zeros((seeds, len(photos.ok))), np.zeros((seeds, len(photos.ok)), bool)
    for seed in range(seeds):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for rest, fold in folds.split(photos.features, photos.ok, photos.groups):
            fitted = classifier.fit_labels(photos.features[rest], photos.ok[rest], photos.views[rest])
            scores[seed, fold] = fitted.predict(photos.features[fold]).ok_score
            passed[seed, fold] = scores[seed, fold] >= fitted.threshold
    return scores, passed


# ---- views on photos --------------------------------------------------------------------------------------------


def cross_validated_views(classifier: ViewClassifier, photos: Labelled, seed: int) -> np.ndarray:
    """(N, 9): view probabilities by a fit on the sure labels of the other folds."""
    probs = np.zeros((len(photos.views), len(VIEWS)))
    strata = np.where(_is_one_of(photos.views, QUARTERS), photos.views, -1)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, fold in folds.split(photos.features, strata, photos.groups):
        rest = rest[photos.sure[rest]]
        fitted = classifier.fit_labels(photos.features[rest], np.full(len(rest), -1), photos.views[rest])
        probs[fold] = fitted.predict(photos.features[fold], None).view_probs
    return probs


def _is_one_of(views: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return np.isin(views, [VIEWS.index(name) for name in names])


def view_figures(photos: Labelled, probs: np.ndarray, rows: np.ndarray) -> dict[str, Estimate]:
    """Accuracies of probs (seeds, N, 9) on `rows`: the nose's side, the view, three-quarter views also balanced."""
    truth, probs = photos.views[rows], probs[:, rows]
    left, sided, quarters = (_is_one_of(truth, names) for names in (NOSE_LEFT, NOSE_LEFT + NOSE_RIGHT, QUARTERS))
    lefts, rights = (probs[..., [VIEWS.index(v) for v in names]].sum(2) for names in (NOSE_LEFT, NOSE_RIGHT))
    nose = np.where(left, lefts > rights, rights > lefts).mean(0)
    exact = (probs.argmax(2) == truth).mean(0)

    def balanced(chosen: np.ndarray) -> float:
        rights = [exact[chosen][truth[chosen] == VIEWS.index(view)] for view in QUARTERS]
        return float(np.mean([right.mean() for right in rights])) if all(map(len, rights)) else float("nan")

    measures: dict[str, Callable[[np.ndarray], float]] = {"exact": lambda k: float(exact[k].mean())}
    if np.isin([VIEWS.index(view) for view in QUARTERS], truth).all():
        measures = {
            "nose side": lambda k: float(nose[k][sided[k]].mean()),
            **measures,
            "exact, three-quarter views": lambda k: float(exact[k][quarters[k]].mean()),
            "balanced, three-quarter views": balanced,
        }
    return {name: bootstrap(len(truth), measure) for name, measure in measures.items()}


def confusion(truth: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Lines of a Markdown table: rows are labels, columns predictions."""
    lines = [f"| label | {' | '.join(VIEWS)} |", "|---" * (len(VIEWS) + 1) + "|"]
    for k, view in enumerate(VIEWS):
        counts = np.bincount(predicted[truth == k], minlength=len(VIEWS))
        if counts.sum():
            lines.append(f"| {view} | {' | '.join(str(count or '.') for count in counts)} |")
    return lines


# ---- procedural pictures ----------------------------------------------------------------------------------------


def drawn_view_shares(classifier: ViewClassifier, count: int, workers: int = 1) -> dict[str, float]:
    """Accuracy on renders of each view."""
    shares = {}
    for view in VIEWS:
        drawn = draw_views(view, count, MEASURE_SEED, classifier.input_px, workers)
        predicted = classifier.predict(classifier.features(drawn.inputs), None).view_probs.argmax(1)
        shares[view] = float((predicted == VIEWS.index(view)).mean())
    return shares


def drawn_messy_balance(classifier: ViewClassifier, count: int, seed: int) -> tuple[float, float, dict[str, int]]:
    """On the procedural messy set: share of usable files kept, of others dropped, and the kinds kept wrongly."""
    inputs, kinds = draw_messy_inputs(count, seed, classifier.input_px)
    predictions, usable = classifier.predict(classifier.features(inputs)), np.isin(kinds, USABLE)
    kept = predictions.ok_score >= classifier.threshold
    kept &= _is_one_of(predictions.view_probs.argmax(1), DEFAULT_VIEWS)
    wrong = Counter(np.array(kinds)[kept & ~usable].tolist())
    return float(kept[usable].mean()), float(1 - kept[~usable].mean()), dict(wrong)


# ---- the tables -------------------------------------------------------------------------------------------------


def measure(classifier: ViewClassifier, folder: Path | None, renders: int, workers: int = 1) -> list[str]:
    """Lines of Markdown; without the photos' where there is no `folder`."""
    usable, others, wrong = drawn_messy_balance(classifier, renders * 4, MEASURE_SEED)
    shares = drawn_view_shares(classifier, renders, workers)
    lines = [
        f"## {classifier.name}",
        "",
        f"Procedural messy set ({renders * 4} files; no duplicates, damaged ones or extreme aspects): usable kept "
        f"{usable:.3f}, others dropped {others:.3f}, balanced accuracy {0.5 * (usable + others):.3f}; kept wrongly: "
        f"{wrong or 'none'}.",
        "",
        f"Accuracy of views, {renders} renders each: "
        + ", ".join(f"{view} {share:.3f}" for view, share in shares.items())
        + ".",
        "",
    ]
    if folder:
        lines += [*_verdict_lines(classifier, folder), *_view_lines(classifier, folder)]
    return lines


def _verdict_lines(classifier: ViewClassifier, folder: Path) -> list[str]:
    messy = read_messy_photos(folder, classifier)
    kept = classifier.predict(messy.features).ok_score >= classifier.threshold
    scores, passed = cross_validated_scores(classifier, messy)
    lost = []
    for group, files in sample_good_photos(folder, 200).items():
        inputs = read_inputs(folder, files, classifier.input_px)
        dropped = classifier.predict(classifier.features(inputs)).ok_score < classifier.threshold
        lost.append(f"{group} {dropped.mean():.3f} of {len(files)}")
    return [
        f"Messy photos ({len(messy.ok)}, {int(messy.ok.sum())} usable), AUC and shares at the threshold:",
        "",
        f"- pretrained, at {classifier.threshold:.2f}: {pretrained_auc(classifier, messy)}; {_shares(messy, kept)}",
        f"- few-shot: {few_shot_auc(messy, scores)}; {_shares(messy, passed)}",
        "",
        f"Good photos dropped at the threshold: {', '.join(lost)}.",
        "",
    ]


def _view_lines(classifier: ViewClassifier, folder: Path) -> list[str]:
    photos = read_view_photos(folder, classifier)
    fitted = np.stack([cross_validated_views(classifier, photos, seed) for seed in range(SEEDS)])
    pretrained = classifier.predict(photos.features, None).view_probs[None]
    sure, unsure = np.flatnonzero(photos.sure), np.flatnonzero(~photos.sure)
    lines = []
    for name, probs, rows in (
        ("pretrained", pretrained, sure),
        ("few-shot", fitted, sure),
        ("few-shot, low-confidence rows", fitted, unsure),
    ):
        figures = view_figures(photos, probs, rows)
        lines += [f"Views, {name} ({len(rows)}): " + "; ".join(f"{key} {value}" for key, value in figures.items()), ""]
    lines += [*confusion(photos.views[sure], fitted[0, sure].argmax(1)), ""]
    rare = [k for k in range(len(photos.files)) if photos.labels[k] not in QUARTERS]
    for k in sorted(rare, key=lambda k: photos.labels[k]):
        probs, doubt = fitted[:, k].mean(0), "" if photos.sure[k] else ", low confidence"
        lines.append(
            f"- {photos.files[k]}: {photos.labels[k]}{doubt}; few-shot {VIEWS[probs.argmax()]} ({probs.max():.2f}), "
            f"pretrained {VIEWS[pretrained[0, k].argmax()]}"
        )
    return [*lines, ""]


def _shares(photos: Labelled, passed: np.ndarray) -> str:
    lost, caught = (~passed[..., photos.ok == ok] for ok in (1, 0))
    return f"{lost.mean():.3f} of the usable lost, {caught.mean():.3f} of the others dropped"


def measure_command(
    features: Annotated[str, typer.Option(help="auto, reader, mobilenet_v2, resnet18; several with commas.")] = "auto",
    renders: Annotated[int, typer.Option(min=10, help="Renders of each view.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Measure the view classifier on procedural pictures, and on photos where CARFORGE_PHOTOS names their folder."""
    given = os.environ.get("CARFORGE_PHOTOS")
    folder = Path(given).expanduser() if given else None
    if folder and not folder.is_dir():
        raise UserError(f"CARFORGE_PHOTOS: found {given!r}, allowed a folder of labelled photos")
    for name in features.split(","):
        print(*measure(load_view_classifier(name.strip()), folder, renders, workers), sep="\n")
