"""The pictures that the factor reader learns from and is tested on: cars with factors, and what is no usable car."""

import itertools
from dataclasses import astuple, dataclass, fields

import numpy as np

from datasets.procedural.backdrop import draw_scene
from datasets.procedural.messy import DAMAGED, SCHEDULE, USABLE, make_messy, messy_kind
from datasets.procedural.render import render_with_mask, to_uint8
from datasets.procedural.sets import draw_picture_factors, map_jobs
from datasets.scan.scan import make_classifier_input
from harness.images.decode import decode_picture

FULL_RANGE = (0.0, 1.0)  # futurism: learnt on all of it, although the sets keep to its ends
SHAPES = ((0.5, 1.0), (0.1, 9 / 16), (0.4, 0.5))  # share of the pictures, height / width
MESSY_PX = 96  # drawn at this height, then shrunk as a photo would be


@dataclass(frozen=True)
class Cars:
    """Renders and what is true of them.

    Attributes:
        pictures: uint8 (N, H, W, 3).
        masks: bool (N, H, W), True on the car.
        factors: float64 (N, len(FACTOR_NAMES)).
        margins: int64 (N,), rows at the top, and as many at the bottom, that only continue the picture.
    """

    pictures: np.ndarray
    masks: np.ndarray
    factors: np.ndarray
    margins: np.ndarray


def draw_cars(count: int, set_seed: int, height: int, width: int, workers: int = 1) -> Cars:
    """Cars of every futurism in [0, 1] in all usual views."""
    rows = list(map_jobs(_draw_car, [(set_seed, index, height, width) for index in range(count)], workers))
    pictures, masks, factors = (np.stack([row[k] for row in rows]) for k in range(3))
    return Cars(pictures, masks, factors, np.zeros(count, np.int64))


def draw_mixed_cars(count: int, set_seed: int, size_px: int, workers: int = 1) -> Cars:
    """Square pictures and wider ones (`SHAPES`), these with continued rows at top and bottom: all `size_px` square."""
    parts, left = [], count
    for number, (share, rows) in enumerate(SHAPES):
        part_count = left if number == len(SHAPES) - 1 else round(share * count)
        left -= part_count
        height = round(rows * size_px / 2) * 2
        cars, margin = draw_cars(part_count, set_seed + number, height, size_px, workers), (size_px - height) // 2
        around = ((0, 0), (margin, margin), (0, 0))
        pictures = np.pad(cars.pictures, (*around, (0, 0)), mode="edge")
        parts.append(Cars(pictures, np.pad(cars.masks, around), cars.factors, np.full(part_count, margin)))
    return Cars(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Cars)))


def _draw_car(job: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    set_seed, index, height, width = job
    factors, seed = draw_picture_factors("ordinary", set_seed, index, FULL_RANGE)
    picture, mask = render_with_mask(factors, height, width, seed)
    return picture, mask, np.array(astuple(factors))


def draw_empty(count: int, set_seed: int, size_px: int) -> np.ndarray:
    """Backdrops without a car: uint8 (N, S, S, 3)."""
    seeds = np.random.SeedSequence([set_seed, 3]).generate_state(count)
    return np.stack([to_uint8(draw_scene(size_px, size_px, int(seed)).picture, int(seed)) for seed in seeds])


def draw_messy(count: int, set_seed: int, size_px: int, workers: int = 1) -> tuple[np.ndarray, list[str]]:
    """Pictures of the messy set that show no usable car, uint8 (N, S, S, 3), and their kinds.

    Copies of good cars are left out (each alone is a usable picture), and so are files that cannot be decoded.
    """
    kinds = [kind for kind in SCHEDULE if kind not in (*USABLE, *DAMAGED) and "duplicate" not in kind]
    indices = (index for index in itertools.count() if messy_kind(index) in kinds)
    jobs = [(set_seed, index, size_px) for index in itertools.islice(indices, count)]
    return np.stack(list(map_jobs(_draw_messy, jobs, workers))), [messy_kind(index) for _, index, _ in jobs]


def _draw_messy(job: tuple[int, int, int]) -> np.ndarray:
    set_seed, index, size_px = job
    return make_classifier_input(decode_picture(make_messy(set_seed, index, MESSY_PX).data), size_px)
