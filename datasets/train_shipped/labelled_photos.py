"""Labelled photos for measuring the view classifier: features, labels, and which of them are copies of one photo.

The folder (CARFORGE_PHOTOS) has messy/labels.csv (file, verdict, label) and views.csv (file, view, confidence).
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.clean.manual_labels import VIEWS
from datasets.clean.view_classifier import ViewClassifier
from datasets.scan.scan import make_classifier_input
from harness.errors import UserError
from harness.images.decode import decode, read_file

LANCZOS = Image.Resampling.LANCZOS
SAME_BITS = 8  # of 64 bits of a difference hash that may differ between copies of a photo
UNLABELLED = {  # all of these are good photos, so each one dropped is a mistake
    "dealer": "dealer/*.jpg",
    "brands/wiki": "brands/*/wiki_*.jpg",
    "brands/stan": "brands/*/stan_*.jpg",
    "concept": "concept/concept_*.jpg",
}


@dataclass(frozen=True)
class Labelled:
    """Photos and their labels.

    Attributes:
        files: names inside the folder.
        features: float32 (N, dim).
        ok: int8 (N,), 1, 0, or -1 = unlabelled.
        views: int8 (N,), index into VIEWS, or -1.
        sure: bool (N,), False for labels of low confidence.
        labels: the label as written in the table.
        groups: int64 (N,), equal for copies of a photo, mirrored ones included.
    """

    files: list[str]
    features: np.ndarray
    ok: np.ndarray
    views: np.ndarray
    sure: np.ndarray
    labels: list[str]
    groups: np.ndarray


def read_messy_photos(folder: Path, classifier: ViewClassifier) -> Labelled:
    rows = _read(folder / "messy" / "labels.csv", ("file", "verdict", "label"))
    files, labels = [f"messy/{row['file']}" for row in rows], [row["label"] for row in rows]
    ok = np.array([row["verdict"] == "ok" for row in rows], np.int8)
    return _labelled(folder, classifier, files, labels, ok=ok)


def read_view_photos(folder: Path, classifier: ViewClassifier) -> Labelled:
    rows = _read(folder / "views.csv", ("file", "view", "confidence"))
    files, labels = [row["file"] for row in rows], [row["view"] for row in rows]
    views = np.array([VIEWS.index(label) for label in labels], np.int8)
    sure = np.array([row["confidence"] != "low" for row in rows])
    return _labelled(folder, classifier, files, labels, views=views, sure=sure)


def _labelled(
    folder: Path, classifier: ViewClassifier, files: list[str], labels: list[str], **known: np.ndarray
) -> Labelled:
    inputs, unknown = read_inputs(folder, files, classifier.input_px), np.full(len(files), -1, np.int8)
    parts = {"ok": unknown, "views": unknown, "sure": np.ones(len(files), bool), **known}
    return Labelled(files, classifier.features(inputs), labels=labels, groups=find_copies(inputs), **parts)


def sample_good_photos(folder: Path, count: int) -> dict[str, list[str]]:
    """Up to `count` files of every group in UNLABELLED, evenly spread over the sorted names."""
    found = {group: sorted(folder.glob(pattern)) for group, pattern in UNLABELLED.items()}
    chosen = {group: paths[:: max(1, len(paths) // count)][:count] for group, paths in found.items() if paths}
    return {group: [path.relative_to(folder).as_posix() for path in paths] for group, paths in chosen.items()}


def read_inputs(folder: Path, files: list[str], input_px: int) -> np.ndarray:
    """uint8 (N, input_px, input_px, 3)."""
    inputs = [make_classifier_input(decode(read_file(folder / file)).image, input_px) for file in files]
    return np.stack(inputs) if inputs else np.zeros((0, input_px, input_px, 3), np.uint8)


def find_copies(inputs: np.ndarray) -> np.ndarray:
    """A group number for each picture, equal for near-identical pictures and mirror images: int64 (N,)."""
    hashes, mirrored = _difference_hashes(inputs), _difference_hashes(inputs[:, :, ::-1])
    groups = np.arange(len(inputs))
    for first in range(len(inputs)):
        for second in range(first):
            if min((hashes[first] != other[second]).sum() for other in (hashes, mirrored)) <= SAME_BITS:
                groups[groups == groups[first]] = groups[second]
    return groups


def _difference_hashes(pictures: np.ndarray) -> np.ndarray:
    """bool (N, 8, 8): whether brightness rises from one of 9 columns to the next."""
    greys = [Image.fromarray(np.ascontiguousarray(one)).convert("L").resize((9, 8), LANCZOS) for one in pictures]
    return np.array([np.diff(np.asarray(grey, np.int16)) > 0 for grey in greys])


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); try CARFORGE_PHOTOS=<folder of photos>") from error
    if not rows or not set(columns) <= set(rows[0]):
        raise UserError(f"{path}: found columns {', '.join(rows[0]) if rows else 'none'}, allowed {', '.join(columns)}")
    return rows
