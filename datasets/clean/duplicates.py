"""Copies of one photo: resized, recompressed, cropped a little, or mirrored.

Two steps. Perceptual hashes and 8 x 8 colours propose pairs. Then one picture is aligned with the other by shift and
scale (Lucas and Kanade, 1981), and the remaining difference decides: `same` if resizing and compression explain it,
otherwise uncertain up to MAX_MAYBE_SAME. Another car of the same model in the same place differs more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.scan.fingerprints import COLOURS_PX, THUMB_PX
from datasets.scan.store import LISTED, ScanStore

HASH_BITS = 12  # of 64 that may differ; a crop of 2 % at each edge changes up to 10
MAX_COLOURS = 0.30  # of the contrast, root mean square
MIN_CONTRAST = 8  # levels; lower contrast counts as this
COARSE_PX, MAX_COARSE = 16, 0.14
ROUNDS = 7
MAX_SCALE = 0.2  # largest difference of scale in each direction
# Allowed difference (root mean square of levels): a constant for compression, plus a share of the contrast for
# resampling. For the whole picture, and for the worst of its 8 x 8 parts.
SAME_RMS, SAME_PART = (1.1, 0.030), (3.0, 0.20)
MAX_SHARE = 0.1  # of the contrast, so that nearly black pictures are not the same
MAX_MAYBE_SAME = 2.0  # times the allowed difference
BATCH_PAIRS = 64  # compared at once
HASHES, COLOURS = 2**20, 4096  # pairs of hashes, of colours at once


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions in the listing. `same`: certain, not only possible copies. `mirrored`: one is the mirror image."""

    first: int
    second: int
    same: bool
    mirrored: bool


def find_pairs(store: ScanStore) -> Iterator[Pair]:
    """All pairs among the files without a reason in `decided`."""
    query = f"select l.pos, s.hash, s.mirrored_hash, s.colours {LISTED} join decided d on d.pos = l.pos"
    rows = list(store.select(query, "d.reason is null and s.colours not null"))
    if len(rows) < 2:
        return
    positions, *hashes, colours = zip(*rows, strict=True)
    places = np.array(positions)
    values, flipped = (np.array(column, np.int64).view(np.uint64) for column in hashes)
    grid = np.frombuffer(b"".join(colours), np.uint8).reshape(-1, COLOURS_PX, COLOURS_PX, 3)
    for mirrored in (False, True):
        found = _candidates(values, flipped if mirrored else values, grid, mirrored)
        yield from _confirmed(store, places, found, mirrored)


def _candidates(
    hashes: np.ndarray, others: np.ndarray, colours: np.ndarray, mirrored: bool
) -> Iterator[list[tuple[int, int]]]:
    """Batches of (i, j), i < j, with similar hashes and colours; `mirrored`: of j's mirror image."""
    contrast = colours.std(axis=(1, 2)).mean(axis=1)
    theirs = colours[:, :, ::-1] if mirrored else colours
    found: list[tuple[int, int]] = []
    for i, j in _near_hashes(hashes, others):
        gap = (theirs[j].astype(np.float32) - colours[i]) ** 2
        limit = MAX_COLOURS * np.maximum(np.minimum(contrast[j], contrast[i]), MIN_CONTRAST)
        near = np.sqrt(gap.mean(axis=(1, 2, 3))) <= limit
        found += zip(i[near].tolist(), j[near].tolist(), strict=True)
        while len(found) >= BATCH_PAIRS:
            yield found[:BATCH_PAIRS]
            found = found[BATCH_PAIRS:]
    yield found


def _near_hashes(hashes: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of i and j, i < j, where hashes[i] and others[j] are similar."""
    rows = max(1, HASHES // len(hashes))
    for start in range(0, len(hashes) - 1, rows):
        differ = np.bitwise_count(others[start + 1 :] ^ hashes[start : start + rows, None])
        i, j = np.nonzero(np.triu(differ <= HASH_BITS))  # column 0 is start + 1
        for begin in range(0, len(i), COLOURS):
            yield start + i[begin : begin + COLOURS], start + 1 + j[begin : begin + COLOURS]


def _confirmed(
    store: ScanStore, places: np.ndarray, batches: Iterator[list[tuple[int, int]]], mirrored: bool
) -> Iterator[Pair]:
    for batch in batches:
        if not batch:
            continue
        thumbs = _read_thumbs(store, {int(places[i]) for pair in batch for i in pair})
        first = np.stack([thumbs[int(places[i])] for i, _ in batch])
        second = np.stack([thumbs[int(places[j])] for _, j in batch])
        second = second[:, :, ::-1] if mirrored else second
        rms, _, contrast = compare(_blur(_shrink(first, COARSE_PX)), _blur(_shrink(second, COARSE_PX)))
        rest = np.flatnonzero(rms <= MAX_COARSE * np.maximum(contrast, MIN_CONTRAST))
        if not len(rest):
            continue
        ratios = difference_ratio(first[rest], second[rest])
        for k, amount in zip(rest, ratios, strict=True):
            if amount <= MAX_MAYBE_SAME:
                i, j = batch[k]
                yield Pair(int(places[i]), int(places[j]), bool(amount <= 1), mirrored)


def difference_ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For pairs of thumbs (P, 64, 64, 3): the difference after alignment, as a multiple of what is allowed: (P,)."""
    rms, part, contrast = compare(_blur(_blur(first)), _blur(_blur(second)))
    limit = np.minimum(SAME_RMS[0] + SAME_RMS[1] * contrast, MAX_SHARE * contrast)
    return np.maximum(rms / np.maximum(limit, 1e-3), part / (SAME_PART[0] + SAME_PART[1] * contrast))


def _read_thumbs(store: ScanStore, positions: set[int]) -> dict[int, np.ndarray]:
    marks = ", ".join(map(str, positions))
    rows = store.base.execute(f"select pos, thumb from scanned join listed using (key) where pos in ({marks})")
    return {pos: np.frombuffer(thumb, np.uint8).reshape(THUMB_PX, THUMB_PX, 3) for pos, thumb in rows}


# ---- alignment --------------------------------------------------------------------------------------------------


def compare(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For pairs of pictures (P, S, S, 3): difference after alignment, that of the worst part, contrast: (P,) each."""
    first, second = first.astype(np.float32), second.astype(np.float32)
    side = first.shape[1]
    axis = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    params = np.tile(np.array([1, 0, 1, 0], np.float32), (len(first), 1))  # scale and shift across, then down
    ours = first.mean(axis=3)
    greys = second.mean(axis=3, keepdims=True)
    for _ in range(ROUNDS):
        warped, inside = _warp(greys, params, axis)
        step = _step(ours, warped[..., 0], inside, axis)
        params = np.clip(params + step, (1 - MAX_SCALE, -MAX_SCALE, 1 - MAX_SCALE, -MAX_SCALE),
                      (1 + MAX_SCALE, MAX_SCALE, 1 + MAX_SCALE, MAX_SCALE)).astype(np.float32)  # fmt: skip
    warped, inside = _warp(second, params, axis)
    return _measure(first, warped, inside)


def _warp(pictures: np.ndarray, params: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures (P, S, S, C) scaled and shifted, and a mask of the pixels inside them: float32 (P, S, S)."""
    side = len(axis)
    across = ((params[:, :1] * axis + params[:, 1:2]) + 1) * side / 2 - 0.5
    down = ((params[:, 2:3] * axis + params[:, 3:]) + 1) * side / 2 - 0.5
    warped = _interpolate(_interpolate(pictures, across, 2), down, 1)
    within = [(place >= -0.01) & (place <= side - 0.99) for place in (across, down)]
    inside = (within[1][:, :, None] & within[0][:, None, :]).astype(np.float32)
    inside[:, (0, -1)] = 0
    inside[:, :, (0, -1)] = 0
    return warped, inside


def _interpolate(pictures: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear, at `places` (P, S) along one axis of (P, S, S, C)."""
    places = np.clip(places, 0, places.shape[1] - 1)
    below = np.minimum(places.astype(np.int64), places.shape[1] - 2)
    shape = (len(places), -1, 1, 1) if axis == 1 else (len(places), 1, -1, 1)
    low = np.take_along_axis(pictures, below.reshape(shape), axis)
    high = np.take_along_axis(pictures, below.reshape(shape) + 1, axis)
    return low + (high - low) * (places - below).astype(np.float32).reshape(shape)


def _step(target: np.ndarray, warped: np.ndarray, inside: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Update of scale and shift (P, 4) by least squares on the gradients of grey pictures (P, S, S)."""
    side = len(axis)
    slope_x, slope_y = np.gradient(warped, axis=2) * side / 2, np.gradient(warped, axis=1) * side / 2
    columns = (slope_x * axis, slope_x, slope_y * axis[:, None], slope_y)
    matrix = np.stack([(column * inside).reshape(len(warped), -1) for column in columns], axis=2)
    gap = ((target - warped) * inside).reshape(len(warped), -1, 1)
    normal = matrix.transpose(0, 2, 1) @ matrix
    damping = 1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 4 + 1e-3
    right = matrix.transpose(0, 2, 1) @ gap
    step = np.linalg.solve(normal + damping * np.eye(4, dtype=np.float32), right)[..., 0]
    return np.clip(step, -0.04, 0.04)


def _measure(first: np.ndarray, warped: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count, side = len(first), first.shape[1]
    square = ((first - warped) ** 2).mean(axis=3) * inside
    parts, covered = (x.reshape(count, 8, side // 8, 8, side // 8).sum(axis=(2, 4)) for x in (square, inside))
    total = np.maximum(inside.sum(axis=(1, 2)), 1)
    mean = (first * inside[..., None]).sum(axis=(1, 2)) / total[:, None]
    spread = ((first - mean[:, None, None]) ** 2 * inside[..., None]).sum(axis=(1, 2)) / total[:, None]
    worst = (parts / np.maximum(covered, 1)).max(axis=(1, 2))
    return np.sqrt(square.sum(axis=(1, 2)) / total), np.sqrt(worst), np.sqrt(spread).mean(axis=1)


def _shrink(pictures: np.ndarray, side: int) -> np.ndarray:
    """Cell means: uint8 (..., S, S, 3) → float32 (..., side, side, 3)."""
    cell = pictures.shape[-2] // side
    shape = (*pictures.shape[:-3], side, cell, side, cell, 3)
    return pictures.reshape(shape).mean(axis=(-4, -2), dtype=np.float32)


def _blur(pictures: np.ndarray) -> np.ndarray:
    """1-2-1 filter along both axes: single pixels, which resampling changes most, count less."""
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (1, 1)
        padded = np.pad(pictures.astype(np.float32), edges, mode="edge")
        size = pictures.shape[axis]
        parts = [np.take(padded, range(k, k + size), axis) for k in range(3)]
        pictures = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return pictures
