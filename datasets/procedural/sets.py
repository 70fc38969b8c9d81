"""Sets of pictures with a table of their factors.

Picture i of a set depends on (kind, set seed, i, size, looseness) alone, not on the number of workers.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from datasets.procedural.brands import BRAND_STYLES, BRANDS, LOOSENESS, YAW_DEG, BrandStyle
from datasets.procedural.factors import BRAND_KINDS, FACTOR_NAMES, FUTURISM_RANGES, RANGES, Factors, Kind, draw_factors
from datasets.procedural.render import render
from harness.errors import UserError
from harness.runtime.progress import track

T = TypeVar("T")


def brand_style(kind: Kind, index: int) -> BrandStyle | None:
    """The brand of picture `index`; brands take turns. None for kinds without brands."""
    return BRAND_STYLES[index % len(BRAND_STYLES)] if kind in BRAND_KINDS else None


def draw_picture_factors(
    kind: Kind,
    set_seed: int,
    index: int,
    futurism_range: tuple[float, float] | None = None,
    looseness: float = 1.0,
) -> tuple[Factors, int]:
    """The factors of picture `index`, and the independent seed of its backdrop, light and noise."""
    root = [set_seed, index, list(FUTURISM_RANGES).index(kind)]
    rng, brand = np.random.default_rng([*root, 0]), brand_style(kind, index)
    if brand is None:
        factors = draw_factors(kind, rng, futurism_range, looseness=looseness)
    else:
        factors = draw_factors(kind, rng, futurism_range, (brand.body,), LOOSENESS * looseness)
        yaw_deg = float(np.interp(factors.yaw_deg, RANGES["yaw_deg"][:2], YAW_DEG))
        factors = replace(factors, yaw_deg=yaw_deg)
    return factors, int(np.random.SeedSequence([*root, 1]).generate_state(1)[0])


def render_index(job: tuple) -> tuple[Factors, int, np.ndarray]:
    """(kind, set seed, index, height, width, futurism range, looseness) → factors, seed, uint8 (H, W, 3)."""
    kind, set_seed, index, height, width, futurism_range, looseness = job
    factors, seed = draw_picture_factors(kind, set_seed, index, futurism_range, looseness)
    return factors, seed, render(factors, height, width, seed, brand_style(kind, index))


def render_many(
    kind: Kind,
    count: int,
    seed: int,
    size_px: int | tuple[int, int],
    workers: int = 1,
    futurism_range: tuple[float, float] | None = None,
    looseness: float = 1.0,
) -> Iterator[tuple[Factors, int, np.ndarray]]:
    """Pictures 0 … count-1 in order: (factors, seed, uint8 (H, W, 3)); `size_px` is a side or (height, width)."""
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if kind not in FUTURISM_RANGES:
        raise UserError(f"kind: found {kind!r}, allowed {', '.join(FUTURISM_RANGES)}")
    low, high = futurism_range or FUTURISM_RANGES[kind]
    if not 0 <= low <= high <= 1:
        raise UserError(f"futurism_range: found {low}..{high}, allowed 0 <= low <= high <= 1")
    if count < 1:
        raise UserError(f"count: found {count}, allowed 1 or more")
    if min(height, width) < 16 or max(height, width) > 1024:
        raise UserError(f"size_px: found {height}x{width}, allowed 16 to 1024 a side")
    jobs = [(kind, seed, index, height, width, futurism_range, looseness) for index in range(count)]
    yield from map_jobs(render_index, jobs, workers)


def map_jobs(function: Callable[[Any], T], jobs: Iterable[Any], workers: int) -> Iterator[T]:
    """function(job) in order; more than one worker means processes, and `function` must be importable by name."""
    if workers <= 1:
        yield from map(function, jobs)
        return
    # One BLAS thread per process: matrices here are small.
    with get_context("spawn").Pool(workers, threadpool_limits, (1,)) as pool:
        yield from pool.imap(function, jobs, chunksize=8)


def picture_name(kind: Kind, index: int) -> str:
    """Path of picture `index` below its set's folder."""
    brand = brand_style(kind, index)
    return f"{brand.name}/{kind}_{index:06d}.png" if brand else f"{kind}_{index:06d}.png"


def render_set(
    kind: Kind,
    count: int,
    seed: int,
    size_px: int | tuple[int, int],
    out: Path,
    workers: int = 1,
    futurism_range: tuple[float, float] | None = None,
    looseness: float = 1.0,
    label: str = "drawing",
) -> Path:
    """Writes PNG files and `factors.csv` (file, kind, seed, every factor) into `out`; returns the table's path.

    Each brand has a folder. `label`: of the progress shown.
    """
    for folder in [out, *(out / name for name in (BRANDS if kind in BRAND_KINDS else ()))]:
        folder.mkdir(parents=True, exist_ok=True)
    table = out / "factors.csv"
    partial = table.with_suffix(".csv.partial")
    with open(partial, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "kind", "seed", *FACTOR_NAMES])
        pictures = render_many(kind, count, seed, size_px, workers, futurism_range, looseness)
        for index, (factors, picture_seed, picture) in enumerate(track(pictures, count, label)):
            name = picture_name(kind, index)
            Image.fromarray(picture).save(out / name, compress_level=1)
            rows.writerow([name, kind, picture_seed, *map(repr, astuple(factors))])
    partial.replace(table)
    return table
