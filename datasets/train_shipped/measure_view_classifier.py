"""How well the sorter sorts: on labelled photos as shipped and after few labels, and on procedural pictures.

Folds: 5, stratified, for each of 5 seeds; copies of a photo, mirrored ones too, are in one fold, and so is a picture's
mirror image, which `ViewClassifier.fit_labels` makes of it. No picture is
classified by a fit that saw its own fold.
Intervals: 95 %, from resampling the pictures.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

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
NOSE_LEFT, NOSE_RIGHT = ("left", "front_left", "rear_right"), ("right", "front_right", "rear_left")
QUARTERS = ("front_left", "front_right", "rear_left", "rear_right")
MEASURE_SEED = 88_000_500  # no seed that training or calibration draws from


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def resampled(count: int, measure: Callable[[np.ndarray], float]) -> Estimate:
    """`measure` takes row numbers; a resample in which it cannot be told gives nan and is left out."""
    rng = np.random.default_rng(0)
    values = [measure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(measure(np.arange(count)), float(low), float(high))


# ---- verdict on photos ------------------------------------------------------------------------------------------


def auc(ok: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(ok, scores)) if 0 < ok.sum() < len(ok) else float("nan")


def pretrained_auc(classifier: ViewClassifier, photos: Labelled) -> Estimate:
    scores = classifier.predict(photos.features).ok_score
    return resampled(len(scores), lambda rows: auc(photos.ok[rows], scores[rows]))


def few_shot_auc(photos: Labelled, scores: np.ndarray) -> Estimate:
    """Mean over seeds of the AUC over all folds; scores (seeds, N) of `unseen_scores`."""
    return resampled(len(photos.ok), lambda rows: float(np.mean([auc(photos.ok[rows], one[rows]) for one in scores])))


def cross_validated_scores(
    classifier: ViewClassifier, photos: Labelled, seeds: int = SEEDS
) -> tuple[np.ndarray, np.ndarray]:
    """Each picture's score by a lesson from the other four fifths, and whether it passes that lesson's threshold: both
    (seeds, N)."""
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
    """(N, 9): each picture's view as told by a lesson from the sure labels of the other folds."""
    told = np.zeros((len(photos.views), len(VIEWS)))
    common = np.where(np.isin(photos.views, [VIEWS.index(view) for view in QUARTERS]), photos.views, -1)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, fold in folds.split(photos.features, common, photos.groups):
        rest = rest[photos.sure[rest]]
        fitted = classifier.fit_labels(photos.features[rest], np.full(len(rest), -1), photos.views[rest])
        told[fold] = fitted.predict(photos.features[fold], None).view_probs
    return told


def view_figures(photos: Labelled, told: np.ndarray, rows: np.ndarray) -> dict[str, Estimate]:
    """Of told (seeds, N, 9), on `rows`: the nose's side, the exact view, and balanced accuracy over the quarters."""
    truth, said = photos.views[rows], told[:, rows]
    left, right = (np.isin(truth, [VIEWS.index(view) for view in names]) for names in (NOSE_LEFT, NOSE_RIGHT))
    lefts, rights = (said[..., [VIEWS.index(v) for v in names]].sum(2) for names in (NOSE_LEFT, NOSE_RIGHT))
    nose = np.where(left, lefts > rights, rights > lefts).mean(0)
    exact = (said.argmax(2) == truth).mean(0)
    sided = left | right

    def balanced(chosen: np.ndarray) -> float:
        rights = [exact[chosen][truth[chosen] == VIEWS.index(view)] for view in QUARTERS]
        return float(np.mean([right.mean() for right in rights])) if all(map(len, rights)) else float("nan")

    quarters = np.isin(truth, [VIEWS.index(view) for view in QUARTERS])
    if not all((truth == VIEWS.index(view)).any() for view in QUARTERS):
        return {"exact": resampled(len(truth), lambda k: float(exact[k].mean()))}
    return {
        "nose side": resampled(len(truth), lambda k: float(nose[k][sided[k]].mean())),
        "exact": resampled(len(truth), lambda k: float(exact[k].mean())),
        "exact, three-quarter views": resampled(len(truth), lambda k: float(exact[k][quarters[k]].mean())),
        "balanced, three-quarter views": resampled(len(truth), balanced),
    }


def confusion(truth: np.ndarray, said: np.ndarray) -> list[str]:
    """Lines of a Markdown table: rows are labels, columns what was said."""
    lines = [f"| label | {' | '.join(VIEWS)} |", "|---" * (len(VIEWS) + 1) + "|"]
    for k, view in enumerate(VIEWS):
        counts = np.bincount(said[truth == k], minlength=len(VIEWS))
        if counts.sum():
            lines.append(f"| {view} | {' | '.join(str(count or '.') for count in counts)} |")
    return lines


# ---- procedural pictures ----------------------------------------------------------------------------------------


def drawn_view_shares(classifier: ViewClassifier, count: int, workers: int = 1) -> dict[str, float]:
    """Share of renders of each view that are told right."""
    shares = {}
    for view in VIEWS:
        drawn = draw_views(view, count, MEASURE_SEED, classifier.input_px, workers)
        told = classifier.predict(classifier.features(drawn.inputs), None).view_probs.argmax(1)
        shares[view] = float((told == VIEWS.index(view)).mean())
    return shares


def drawn_messy_balance(classifier: ViewClassifier, count: int, seed: int) -> tuple[float, float, dict[str, int]]:
    """Of the procedural messy set, where it comes to a sorter: shares of usable files kept and of others dropped, and
    what kinds were kept wrongly."""
    inputs, kinds = draw_messy_inputs(count, seed, classifier.input_px)
    predictions, usable = classifier.predict(classifier.features(inputs)), np.isin(kinds, USABLE)
    in_view = np.isin(predictions.view_probs.argmax(1), [VIEWS.index(view) for view in DEFAULT_VIEWS])
    kept = (predictions.ok_score >= classifier.threshold) & in_view
    wrong = Counter(np.array(kinds)[kept & ~usable].tolist())
    return float(kept[usable].mean()), float(1 - kept[~usable].mean()), dict(wrong)


# ---- the tables -------------------------------------------------------------------------------------------------


def measure(classifier: ViewClassifier, folder: Path | None, renders: int, workers: int = 1) -> list[str]:
    """Markdown lines."""
    lines = [f"## {classifier.name}", ""]
    lines += _drawn_lines(classifier, renders, workers)
    return lines + (_photo_lines(classifier, folder) if folder else [])


def _drawn_lines(classifier: ViewClassifier, renders: int, workers: int) -> list[str]:
    usable, others, wrong = drawn_messy_balance(classifier, renders * 4, MEASURE_SEED)
    shares = drawn_view_shares(classifier, renders, workers)
    return [
        f"Procedural messy set ({renders * 4} files; no duplicates, damaged ones or extreme aspects): usable kept "
        f"{usable:.3f}, others dropped {others:.3f}, balanced accuracy {0.5 * (usable + others):.3f}; kept wrongly: "
        f"{wrong or 'none'}.",
        "",
        f"Views of {renders} renders each told right: "
        + ", ".join(f"{view} {share:.3f}" for view, share in shares.items())
        + ".",
        "",
    ]


def _photo_lines(classifier: ViewClassifier, folder: Path) -> list[str]:
    messy = read_messy_photos(folder, classifier)
    score = classifier.predict(messy.features).ok_score
    kept, (unseen, passed) = score >= classifier.threshold, cross_validated_scores(classifier, messy)
    lines = [
        f"Messy photos ({len(messy.ok)}, {int(messy.ok.sum())} usable), AUC and shares at the threshold:",
        "",
        f"- as shipped, at {classifier.threshold:.2f}: {pretrained_auc(classifier, messy)}; {_shares(messy, kept)}",
        f"- few labels: {few_shot_auc(messy, unseen)}; {_shares(messy, passed)}",
        "",
        "Good photos dropped at the threshold: " + ", ".join(_lost_lines(classifier, folder)) + ".",
        "",
    ]
    photos = read_view_photos(folder, classifier)
    told = np.stack([cross_validated_views(classifier, photos, seed) for seed in range(SEEDS)])
    pretrained = classifier.predict(photos.features, None).view_probs[None]
    sure, unsure = np.flatnonzero(photos.sure), np.flatnonzero(~photos.sure)
    for name, said, rows in (
        ("as shipped", pretrained, sure),
        ("few labels", told, sure),
        ("few labels, low-confidence rows", told, unsure),
    ):
        figures = view_figures(photos, said, rows)
        lines += [f"Views, {name} ({len(rows)}): " + "; ".join(f"{key} {value}" for key, value in figures.items()), ""]
    lines += [*confusion(photos.views[sure], told[0, sure].argmax(1)), ""]
    rare = [k for k in range(len(photos.files)) if photos.labels[k] not in QUARTERS]
    lines += [f"- {_rare_line(photos, told, pretrained, k)}" for k in sorted(rare, key=lambda k: photos.labels[k])]
    return [*lines, ""]


def _shares(photos: Labelled, passed: np.ndarray) -> str:
    lost, caught = (~passed[..., photos.ok == ok] for ok in (1, 0))
    return f"{lost.mean():.3f} of the usable lost, {caught.mean():.3f} of the others dropped"


def _lost_lines(classifier: ViewClassifier, folder: Path) -> list[str]:
    lines = []
    for group, files in sample_good_photos(folder, 200).items():
        scores = classifier.predict(classifier.features(read_inputs(folder, files, classifier.input_px))).ok_score
        lines.append(f"{group} {(scores < classifier.threshold).mean():.3f} of {len(files)}")
    return lines


def _rare_line(photos: Labelled, told: np.ndarray, pretrained: np.ndarray, k: int) -> str:
    said = told[:, k].mean(0)
    sure = "" if photos.sure[k] else ", low confidence"
    return (
        f"{photos.files[k]}: {photos.labels[k]}{sure}; told {VIEWS[said.argmax()]} ({said.max():.2f}), as shipped "
        f"{VIEWS[pretrained[0, k].argmax()]}"
    )


def measure_command(
    features: Annotated[str, typer.Option(help="auto, reader, mobilenet_v2, resnet18; several with commas.")] = "auto",
    renders: Annotated[int, typer.Option(min=10, help="Renders of each view.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Measure the sorter on procedural pictures, and on labelled photos where CARFORGE_PHOTOS names their folder."""
    given = os.environ.get("CARFORGE_PHOTOS")
    folder = Path(given).expanduser() if given else None
    if folder and not folder.is_dir():
        raise UserError(f"CARFORGE_PHOTOS: found {given!r}, which is no folder")
    lines = [
        line
        for name in features.split(",")
        for line in measure(load_view_classifier(name.strip()), folder, renders, workers)
    ]
    text = "\n".join(lines)
    print(text)
