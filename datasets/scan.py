"""One file → all that the build wants to know of it. Runs in worker processes; imports no torch.

read → sha256 → safe decode → letterbox bars off → cropped or padded to the set's size; beside it a look for the
features, a small picture with its perceptual hashes for duplicates, and how dark and how bright it is.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets.prepare import open_inner
from harness.images import Fit, PictureError, fit_image, read_file

SCAN_VERSION = 2  # rises when the same file would be scanned differently
THUMB_PX, GREY_PX, COLOURS_PX, HASH_SIDE = 64, 32, 8, 8
REDUCED_PX = 128  # thumbs are made from a picture whose longer side is at least this
_waves = np.arange(HASH_SIDE)[:, None] * (2 * np.arange(GREY_PX) + 1) * math.pi / (2 * GREY_PX)
COSINES = np.cos(_waves)  # (8, 32): the lowest rows of a DCT-II
MIRRORED = np.where(np.arange(HASH_SIDE) % 2, -1.0, 1.0)  # (8,)


@dataclass(frozen=True)
class Job:
    """A file and what is to be made of it.

    `expected`: the sha256 that was noted when it was fetched. `look_px`: side of the look; 0 = the set is not cleaned,
    and the picture alone is made."""

    path: str
    height: int
    width: int
    fast_decode: bool = False
    expected: str | None = None
    look_px: int = 0
    fit: Fit = "crop"


@dataclass(frozen=True)
class Scanned:
    """What a file is. `picture`: uint8 (H, W, 3), or None and a `reason`. Sizes are width, height in pixels.

    `hashes`: perceptual ones, 64 bits each, of the picture and of its mirror image. `thumb`: uint8 (64, 64, 3).
    `colours`: of its squares, uint8 (8, 8, 3). `luma`: see `luma_range`."""

    picture: np.ndarray | None = None
    reason: str | None = None
    sha256: str | None = None
    size_px: tuple[int, int] | None = None
    inner_px: tuple[int, int] | None = None
    look: np.ndarray | None = None
    thumb: np.ndarray | None = None
    colours: np.ndarray | None = None
    hashes: tuple[int, int] | None = None
    luma: tuple[int, int] | None = None


def scan(job: Job) -> Scanned:
    """Reads and looks at one file. Whatever is wrong with it becomes a reason, never an error."""
    try:
        content = read_file(job.path)
    except PictureError as error:
        return Scanned(reason=error.reason)
    sha256 = hashlib.sha256(content).hexdigest()
    if job.expected and job.expected != sha256:
        return Scanned(reason="damaged: its sha256 is not the one noted when it was fetched", sha256=sha256)
    try:
        inner, size_px = open_inner(content, (job.height, job.width) if job.fast_decode else None)
        picture = fit_image(inner, job.height, job.width, job.fit)
        if not job.look_px:
            return Scanned(picture, None, sha256, size_px, inner.size)
        return _with_look(inner, job.look_px, Scanned(picture, None, sha256, size_px, inner.size))
    except PictureError as error:
        return Scanned(reason=error.reason, sha256=sha256)
    except MemoryError:
        return Scanned(reason="too_large: not enough memory to decode it", sha256=sha256)


def _with_look(inner: Image.Image, look_px: int, plain: Scanned) -> Scanned:
    factor = max(1, max(inner.size) // max(look_px, REDUCED_PX))
    small = inner.reduce(factor) if factor > 1 else inner
    shrunk = make_thumb(small, (inner.width / factor, inner.height / factor))
    grey = to_grey(shrunk)
    return Scanned(
        plain.picture, None, plain.sha256, plain.size_px, plain.inner_px,
        make_look(small, look_px), np.asarray(shrunk), to_colours(shrunk), perceptual_hashes(grey), luma_range(grey),
    )  # fmt: skip


def make_look(picture: Image.Image | np.ndarray, look_px: int) -> np.ndarray:
    """uint8 (look_px, look_px, 3): the whole picture for the features, its proportions kept.

    `picture`: RGB, without letterbox bars. It is made smaller by whole pixels first, which is cheap, then by an
    antialiased filter; edge rows or columns are continued to a square.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    factor = max(1, max(image.size) // look_px)
    if factor > 1:
        image = image.reduce(factor)
    width, height = image.size
    scale = look_px / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    top, left = (look_px - small.shape[0]) // 2, (look_px - small.shape[1]) // 2
    look = np.empty((look_px, look_px, 3), np.uint8)
    look[top : top + small.shape[0], left : left + small.shape[1]] = small
    look[:top], look[top + small.shape[0] :] = look[top], look[top + small.shape[0] - 1]
    look[:, :left], look[:, left + small.shape[1] :] = look[:, left, None], look[:, left + small.shape[1] - 1, None]
    return look


def make_thumb(picture: Image.Image, size_px: tuple[float, float]) -> Image.Image:
    """64 x 64: the whole picture, its proportions lost. `size_px`: how much of it is picture."""
    return picture.resize((THUMB_PX, THUMB_PX), Image.Resampling.BILINEAR, box=(0.0, 0.0, *size_px))


def to_colours(thumb: Image.Image) -> np.ndarray:
    """uint8 (8, 8, 3), means of its squares."""
    return np.asarray(thumb.reduce(THUMB_PX // COLOURS_PX))


def to_grey(thumb: Image.Image) -> np.ndarray:
    """uint8 (32, 32), brightness."""
    return np.asarray(thumb.convert("L").reduce(THUMB_PX // GREY_PX))


def perceptual_hashes(grey: np.ndarray) -> tuple[int, int]:
    """64 bits each, of a uint8 (32, 32) and of its mirror image: those of `imagehash.phash`."""
    low = COSINES @ grey.astype(np.float64) @ COSINES.T
    return _above_median(low), _above_median(low * MIRRORED)  # mirrored, waves of odd number change their sign


def _above_median(low: np.ndarray) -> int:
    ranked = np.sort(low, axis=None)
    middle = len(ranked) // 2
    bits = np.packbits(low > (ranked[middle - 1] + ranked[middle]) / 2)
    return int.from_bytes(bits.tobytes(), "big", signed=True)  # as SQLite and numpy keep 64 bits


def luma_range(grey: np.ndarray) -> tuple[int, int]:
    """The brightness, 0 to 255, that 2 % of a uint8 picture lie under, and that 2 % lie over."""
    levels = np.sort(grey, axis=None)
    edge = len(levels) // 50
    return int(levels[edge]), int(levels[-1 - edge])
