"""Scans one file. Runs in worker processes; imports no torch.

read → sha256 → safe decode → remove letterbox bars → crop or pad to the set's size. For cleaning also the classifier's
input and a thumb for fingerprints.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets.scan.fingerprints import THUMB_PX
from harness.images.decode import Fit, PictureError, decode, fit_image, read_file

SCAN_VERSION = 4  # increased when scans of the same file change
REDUCED_PX = 128  # least longer side of the picture from which thumbs are made


@dataclass(frozen=True)
class ScanJob:
    """A file and how to scan it.

    `expected`: the ledger's sha256. `input_px`: side of the classifier's input; 0 = the set is not cleaned."""

    path: str
    height: int
    width: int
    fast_decode: bool = False
    expected: str | None = None
    input_px: int = 0
    fit: Fit = "crop"


@dataclass(frozen=True)
class Scanned:
    """`picture`: uint8 (H, W, 3), or None with a `reason`. Sizes: (width, height) in pixels, `inner_px` without bars.

    `classifier_input`: see `make_classifier_input`. `thumb`: uint8 (64, 64, 3), see `make_thumb`. Both are None if the
    set is not cleaned.
    `note`: how much of a truncated picture was decoded."""

    picture: np.ndarray | None = None
    reason: str | None = None
    sha256: str | None = None
    size_px: tuple[int, int] | None = None
    inner_px: tuple[int, int] | None = None
    classifier_input: np.ndarray | None = None
    thumb: np.ndarray | None = None
    note: str | None = None


def scan(job: ScanJob) -> Scanned:
    """Scans one file. Problems of the file become a reason, never an error."""
    try:
        content = read_file(job.path)
    except PictureError as error:
        return Scanned(reason=error.reason)
    sha256 = hashlib.sha256(content).hexdigest()
    if job.expected and job.expected != sha256:
        return Scanned(reason="damaged: its sha256 is not the one noted when it was fetched", sha256=sha256)
    try:
        found = decode(content, (job.height, job.width) if job.fast_decode else None)
        inner, seen, thumb = found.image, None, None
        picture = fit_image(inner, job.height, job.width, job.fit)
        if job.input_px:
            factor = max(1, max(inner.size) // max(job.input_px, REDUCED_PX))
            small = inner.reduce(factor) if factor > 1 else inner
            seen = make_classifier_input(small, job.input_px)
            thumb = make_thumb(small, (inner.width / factor, inner.height / factor))
        return Scanned(picture, None, sha256, found.size_px, inner.size, seen, thumb, found.note or None)
    except PictureError as error:
        return Scanned(reason=error.reason, sha256=sha256)


def make_classifier_input(picture: Image.Image | np.ndarray, input_px: int) -> np.ndarray:
    """uint8 (input_px, input_px, 3): the whole picture, proportions kept, padded to a square by its edge pixels.

    `picture`: RGB, without letterbox bars. First shrunk by a whole factor, which is fast, then resized antialiased.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    factor = max(1, max(image.size) // input_px)
    if factor > 1:
        image = image.reduce(factor)
    width, height = image.size
    scale = input_px / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    top, left = (input_px - small.shape[0]) // 2, (input_px - small.shape[1]) // 2
    square = np.empty((input_px, input_px, 3), np.uint8)
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    bottom, right = top + small.shape[0], left + small.shape[1]
    square[:top], square[bottom:] = square[top], square[bottom - 1]
    square[:, :left], square[:, right:] = square[:, left, None], square[:, right - 1, None]
    return square


def make_thumb(picture: Image.Image, size_px: tuple[float, float]) -> np.ndarray:
    """uint8 (64, 64, 3): the picture without its proportions. `size_px`: (width, height) of the part to use."""
    box = (0.0, 0.0, *size_px)
    return np.asarray(picture.resize((THUMB_PX, THUMB_PX), Image.Resampling.BILINEAR, box=box))
