"""Fingerprints of thumbs: perceptual hashes and colours to find duplicates, brightness for the rules.

Vectorised over pictures, since NumPy's overhead per call exceeds the work for one picture.
"""

import math
from dataclasses import dataclass

import numpy as np

THUMB_PX, GREY_PX, COLOURS_PX, HASH_SIDE = 64, 32, 8, 8
LUMA_SHARE = 50  # the darkest and brightest 1 in 50 pixels are ignored
_waves = np.arange(HASH_SIDE)[:, None] * (2 * np.arange(GREY_PX) + 1) * math.pi / (2 * GREY_PX)
COSINES = np.cos(_waves)  # (8, 32): the lowest frequencies of a DCT-II
MIRRORED = np.where(np.arange(HASH_SIDE) % 2, -1.0, 1.0)  # (8,)


@dataclass(frozen=True)
class Fingerprints:
    """`hashes`, `mirrored`: int64 (N,), of pictures and of their mirror images. `colours`: uint8 (N, 8, 8, 3), cell
    means. `luma`: uint8 (N, 2), see `luma_range`."""

    hashes: np.ndarray
    mirrored: np.ndarray
    colours: np.ndarray
    luma: np.ndarray


def fingerprint(thumbs: np.ndarray) -> Fingerprints:
    """Of uint8 (N, 64, 64, 3)."""
    greys = to_greys(thumbs)
    return Fingerprints(*perceptual_hashes(greys), to_colours(thumbs), luma_range(greys))


def to_greys(thumbs: np.ndarray) -> np.ndarray:
    """uint8 (N, 32, 32), brightness by ITU-R 601-2: what Pillow's `convert("L").reduce(2)` gives."""
    red, green, blue = (thumbs[..., channel].astype(np.uint32) for channel in range(3))
    grey = (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16
    rows = grey[:, ::2] + grey[:, 1::2]
    return ((rows[..., ::2] + rows[..., 1::2] + 2) >> 2).astype(np.uint8)


def to_colours(thumbs: np.ndarray) -> np.ndarray:
    """uint8 (N, 8, 8, 3), cell means."""
    square = THUMB_PX // COLOURS_PX
    rows = thumbs.reshape(-1, COLOURS_PX, square, THUMB_PX * 3).sum(axis=2, dtype=np.uint32)
    sums = rows.reshape(-1, COLOURS_PX, COLOURS_PX, square, 3).sum(axis=3)
    return ((sums + square**2 // 2) // square**2).astype(np.uint8)


def perceptual_hashes(greys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes as int64 (N,), of uint8 (N, 32, 32) and of their mirror images; equal to `imagehash.phash`."""
    low = COSINES @ greys.astype(np.float64) @ COSINES.T
    return _above_median(low), _above_median(low * MIRRORED)  # mirroring flips the sign of odd frequencies


def _above_median(low: np.ndarray) -> np.ndarray:
    flat = low.reshape(-1, HASH_SIDE**2)
    bits = np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)
    return bits.view(">i8")[:, 0].astype(np.int64)  # signed, as SQLite stores 64 bits


def luma_range(greys: np.ndarray) -> np.ndarray:
    """uint8 (N, 2): 2nd and 98th percentile of brightness."""
    levels = np.sort(greys.reshape(-1, math.prod(greys.shape[1:])), axis=1, kind="stable")  # a radix sort for bytes
    edge = levels.shape[1] // LUMA_SHARE
    return levels[:, [edge, -1 - edge]]
