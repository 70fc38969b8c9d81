"""Training and test pictures of the factor reader: cars with their factors, and pictures without a usable car."""

import itertools
from dataclasses import astuple, dataclass, fields

import numpy as np

from datasets.procedural.backdrop import draw_scene
from datasets.procedural.messy import DAMAGED, SCHEDULE, USABLE, make_messy, messy_kind
from datasets.procedural.render import render_with_mask, to_uint8
from datasets.procedural.sets import draw_picture_factors, map_jobs
from datasets.scan.scan import make_classifier_input
from harness.images.decode import decode_picture

FULL_RANGE = (0.0, 1.0)  # of futurism; the sets cover only its ends
SHAPES = ((0.5, 1.0), (0.1, 9 / 16), (0.4, 0.5))  # share of the pictures, height / width
MESSY_PX = 96  # height at which messy pictures are drawn before they are shrunk


@dataclass(frozen=True)
class Cars:
    """Renders and their ground truth.

    Attributes:
        pictures: uint8 (N, H, W, 3).
        masks: bool (N, H, W), True on the car.
        factors: float64 (N, len(FACTOR_NAMES)).
        margins: int64 (N,), padded rows at the top, and as many at the bottom.
    """

    pictures: np.ndarray
    masks: np.ndarray
    factors: np.ndarray
    margins: np.ndarray


def draw_cars(count: int, seed: int, height: int, width: int, workers: int = 1) -> Cars:
    """Cars of every futurism in [0, 1], in the views of the sets."""
    rows = list(map_jobs(_draw_car, [(seed, index, height, width) for index in range(count)], workers))
    pictures, masks, factors = (np.stack([row[k] for row in rows]) for k in range(3))
    return Cars(pictures, masks, factors, np.zeros(count, np.int64))


def draw_mixed_cars(count: int, seed: int, size_px: int, workers: int = 1) -> Cars:
    """Square pictures and wider ones (`SHAPES`), padded at top and bottom by repeated rows: all `size_px` square."""
    counts, parts = [round(share * count) for share, _ in SHAPES[:-1]], []
    for number, part_count in enumerate([*counts, count - sum(counts)]):
        height = round(SHAPES[number][1] * size_px / 2) * 2
        cars, margin = draw_cars(part_count, seed + number, height, size_px, workers), (size_px - height) // 2
        around = ((0, 0), (margin, margin), (0, 0))
        pictures = np.pad(cars.pictures, (*around, (0, 0)), mode="edge")
        parts.append(Cars(pictures, np.pad(cars.masks, around), cars.factors, np.full(part_count, margin)))
    return Cars(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Cars)))


def _draw_car(job: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seed, index, height, width = job
    factors, picture_seed = draw_picture_factors("ordinary", seed, index, FULL_RANGE)
    picture, mask = render_with_mask(factors, height, width, picture_seed)
    return picture, mask, np.array(astuple(factors))


def draw_empty(count: int, seed: int, size_px: int) -> np.ndarray:
    """Backdrops without a car: uint8 (N, S, S, 3)."""
    seeds = np.random.SeedSequence([seed, 3]).generate_state(count)
    return np.stack([to_uint8(draw_scene(size_px, size_px, int(seed)).picture, int(seed)) for seed in seeds])


def draw_messy(count: int, seed: int, size_px: int, workers: int = 1) -> tuple[np.ndarray, list[str]]:
    """Pictures of the messy set without a usable car, uint8 (N, S, S, 3), and their kinds.

    Copies of good cars, usable pictures themselves, and files that cannot be decoded are left out.
    """
    kinds = [kind for kind in SCHEDULE if kind not in (*USABLE, *DAMAGED) and "duplicate" not in kind]
    indices = (index for index in itertools.count() if messy_kind(index) in kinds)
    jobs = [(seed, index, size_px) for index in itertools.islice(indices, count)]
    return np.stack(list(map_jobs(_draw_messy, jobs, workers))), [messy_kind(index) for _, index, _ in jobs]


def _draw_messy(job: tuple[int, int, int]) -> np.ndarray:
    seed, index, size_px = job
    return make_classifier_input(decode_picture(make_messy(seed, index, MESSY_PX).data), size_px)
