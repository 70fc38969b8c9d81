"""Evaluation by class: do generated pictures show the class that was asked for, according to a classifier?

In: a conditional run's checkpoint and its packed sets. Out: figures by class, and grids of generated and of real
pictures, one row per class, in runs/<name>/brands/.
"""

from pathlib import Path
from typing import Any

import numpy as np

from harness.checkpoints.load import LoadedCheckpoint
from harness.checkpoints.sample import draw_choice
from harness.config.class_choice import Choice
from harness.config.experiment import Data, Evaluate
from harness.errors import UserError
from harness.features import Featurizer
from harness.images.decode import picture_grid, save_png
from harness.metrics.class_figures import class_rows
from harness.metrics.classifier import load_classifier
from harness.metrics.real_features import RealKey, load_real_features
from harness.storage.splits import PackedRows, annotate_figures, open_evaluation_rows, open_training_rows

PICTURES_SHOWN = 6  # pictures of each class in the grids
FROM_HELD_OUT = ("copies", "copy_distance")  # need held-out pictures
GRIDS = {"drawn": "drawn.png", "real": "real.png"}


def evaluate_classes(
    loaded: LoadedCheckpoint, data: Data, settings: Evaluate, featurizer: Featurizer, seed: int, folder: Path
) -> dict[str, Any]:
    """`rows`, one per class, figures of all classes, and facts of the classifier; or `left_out` with the reason."""
    try:
        return _figures(loaded, data, settings, featurizer, seed, folder)
    except UserError as error:
        return {"left_out": str(error)}


def _figures(
    loaded: LoadedCheckpoint, data: Data, settings: Evaluate, featurizer: Featurizer, seed: int, folder: Path
) -> dict[str, Any]:
    classifier = load_classifier([data], settings.brand_classifier)
    names, count = classifier.class_names, settings.brand_count
    if loaded.num_classes != len(names):
        raise UserError(f"{data.set}: has {len(names)} classes, but the run was trained with {loaded.num_classes}")
    pictures, _ = draw_choice(loaded, Choice("all"), count, seed)
    labels = np.repeat(np.arange(len(names)), count)
    with open_evaluation_rows(data) as real, open_training_rows(data) as training:
        train = None if real.note else _features_of(training, featurizer)
        rows, overall = class_rows(
            names, classifier.scores(pictures), labels, featurizer(pictures),
            (_features_of(real, featurizer), real.labels), train, classifier.by_class,
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        shown = min(PICTURES_SHOWN, count)
        drawn = pictures.reshape(len(names), count, *pictures.shape[1:])[:, :shown]
        save_png(folder / GRIDS["drawn"], picture_grid(drawn.reshape(-1, *pictures.shape[1:]), shown))
        save_png(folder / GRIDS["real"], picture_grid(_real_examples(real, len(names), shown), shown))
        return annotate_figures({**overall, **classifier.facts(), "count_each": count, "extractor": featurizer.name,
                         "seed": seed, "shown": shown, "rows": rows}, [real.note], FROM_HELD_OUT)  # fmt: skip


def _features_of(packed: PackedRows, featurizer: Featurizer) -> np.ndarray:
    """Features of these pictures, cached."""
    key = RealKey(packed.sha256, packed.split, featurizer.name, featurizer.sha256, featurizer.resizer, packed.count)
    return load_real_features(key, lambda: featurizer(packed.read())).features


def _real_examples(real: PackedRows, classes: int, shown: int) -> list[np.ndarray]:
    """`shown` real pictures of each class; white where there are fewer."""
    blank = np.full((real.packed.height, real.packed.width, 3), 255, np.uint8)
    cells: list[np.ndarray] = []
    for c in range(classes):
        numbers = np.flatnonzero(real.labels == c)[:shown]
        cells += [*(real.read(numbers) if len(numbers) else []), *[blank] * (shown - len(numbers))]
    return cells


def classes_to_text(brands: dict[str, Any]) -> str:
    """The table of `make evaluate`."""
    if "rows" not in brands:
        return f"brands: left out: {brands['left_out']}"
    width = max(5, *(len(row["brand"]) for row in brands["rows"]))
    head = f"  {'brand':<{width}}  top-1 (real)   top-5  diversity (real)  copies      KID"
    lines = [
        f"brands, {brands['count_each']} drawn of each, read by {brands['classifier']}: top-1 {brands['top1']:.3f}, "
        f"real held-out pictures {brands['real_accuracy']:.3f}, chance {brands['chance']:.3f}; top-5 "
        f"{brands['top5']:.3f}, {brands['real_accuracy_top5']:.3f}, {brands['chance_top5']:.3f}",
        head,
    ]
    for row in brands["rows"]:
        lines.append(
            f"  {row['brand']:<{width}}  {row['top1']:5.3f} ({_shown(row['real_top1'])})   {row['top5']:5.3f}  "
            f"{_shown(row['diversity'], 2)} ({_shown(row['real_diversity'], 2)})      {_shown(row['copies'])}  "
            + ("  pooled" if row["pooled"] else f"{row['kid']:8.4f}")
        )
    lines += [f"  {name}: left out: {reason}" for name, reason in brands.get("left_out", {}).items()]
    if brands["kid_pooled"] is not None:
        lines.append(f"  KID of the brands with few held-out pictures, pooled: {brands['kid_pooled']:.4f}")
    return "\n".join(lines)


def _shown(value: float | None, digits: int = 3) -> str:
    return "  –  " if value is None else f"{value:5.{digits}f}"
