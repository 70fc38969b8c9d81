"""Labelled photos for measuring the sorter: their looks, their labels, and which of them show the same photo.

The folder (CARFORGE_PHOTOS) holds messy/labels.csv (file, verdict) and views.csv (file, view, whole, confidence).
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from datasets.clean.manual_labels import VIEWS
from datasets.scan.scan import make_classifier_input
from harness.errors import UserError
from harness.images.decode import decode, read_file

SAME_BITS = 8  # of 64 bits of a difference hash, so many may differ between copies of a photo
UNLABELLED = {  # all of these are good photos: what is dropped of them is lost
    "dealer": "dealer/*.jpg",
    "brands/wiki": "brands/*/wiki_*.jpg",
    "brands/stan": "brands/*/stan_*.jpg",
    "concept": "concept/concept_*.jpg",
}


@dataclass(frozen=True)
class Labelled:
    """Photos and what a person said of them.

    Attributes:
        files: names inside the folder.
        features: float32 (N, dim).
        ok: int8 (N,), 1, 0, or -1 = not said.
        views: int8 (N,), index into VIEWS or -1.
        sure: bool (N,), not marked as low confidence.
        labels: the person's word for it.
        groups: int64 (N,), equal for copies of a photo, mirrored ones too.
    """

    files: list[str]
    features: np.ndarray
    ok: np.ndarray
    views: np.ndarray
    sure: np.ndarray
    labels: list[str]
    groups: np.ndarray


def read_messy_photos(folder: Path, classifier) -> Labelled:
    rows = _read(folder / "messy" / "labels.csv", ("file", "verdict", "label"))
    files = [f"messy/{row['file']}" for row in rows]
    inputs = read_inputs(folder, files, classifier.input_px)
    ok = np.array([row["verdict"] == "ok" for row in rows], np.int8)
    unknown, sure = np.full(len(rows), -1, np.int8), np.ones(len(rows), bool)
    return Labelled(
        files, classifier.features(inputs), ok, unknown, sure, [row["label"] for row in rows], find_copies(inputs)
    )


def read_view_photos(folder: Path, classifier) -> Labelled:
    rows = _read(folder / "views.csv", ("file", "view", "confidence"))
    files, labels = [row["file"] for row in rows], [row["view"] for row in rows]
    inputs = read_inputs(folder, files, classifier.input_px)
    views = np.array([VIEWS.index(label) for label in labels], np.int8)
    sure = np.array([row["confidence"] != "low" for row in rows])
    unknown = np.full(len(rows), -1, np.int8)
    return Labelled(files, classifier.features(inputs), unknown, views, sure, labels, find_copies(inputs))


def sample_good_photos(folder: Path, count: int) -> dict[str, list[str]]:
    """Some files of every group in UNLABELLED that is there, evenly spread over its names."""
    found = {group: sorted(folder.glob(pattern)) for group, pattern in UNLABELLED.items()}
    chosen = {group: paths[:: max(1, len(paths) // count)][:count] for group, paths in found.items() if paths}
    return {group: [path.relative_to(folder).as_posix() for path in paths] for group, paths in chosen.items()}


def read_inputs(folder: Path, files: list[str], input_px: int) -> np.ndarray:
    """uint8 (N, input_px, input_px, 3)."""
    inputs = [make_classifier_input(decode(read_file(folder / file)).image, input_px) for file in files]
    return np.stack(inputs) if inputs else np.zeros((0, input_px, input_px, 3), np.uint8)


def find_copies(inputs: np.ndarray) -> np.ndarray:
    """A number for each look, the same for looks that all but equal one another or one another's mirror image."""
    hashes = [_hash(picture) for picture in inputs]
    mirrored = [_hash(picture[:, ::-1]) for picture in inputs]
    groups = np.arange(len(inputs))
    for first in range(len(inputs)):
        for second in range(first):
            if min(hashes[first] - hashes[second], hashes[first] - mirrored[second]) <= SAME_BITS:
                groups[groups == groups[first]] = groups[second]
    return groups


def _hash(picture: np.ndarray) -> imagehash.ImageHash:
    return imagehash.dhash(Image.fromarray(np.ascontiguousarray(picture)))


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); try CARFORGE_PHOTOS=<folder of photos>") from error
    if not rows or not set(columns) <= set(rows[0]):
        raise UserError(f"{path}: found columns {', '.join(rows[0]) if rows else 'none'}, allowed {', '.join(columns)}")
    return rows
