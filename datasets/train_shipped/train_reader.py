"""Trains the factor reader on procedural cars and leaves it as one small file, which `harness.features` loads.

The reader says how futuristic a picture's car is, what its other factors are, and whether there is a usable car at all.
"""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from datasets.procedural.factors import FACTOR_NAMES, RANGES
from datasets.train_shipped.augment import add_artifacts, augment, continue_rows, uniform, warp
from datasets.train_shipped.fit import fit, to_float
from datasets.train_shipped.negatives import make_negatives
from datasets.train_shipped.reader_data import Cars, draw_cars, draw_empty, draw_messy, draw_mixed_cars
from datasets.train_shipped.view_data import draw_negatives
from harness.errors import UserError
from harness.features import READER_PATH, Reader, ReaderNet, load_reader, output_names, reader_to_bytes
from harness.messages import log
from harness.runtime.device import one_thread
from harness.storage.atomic import atomic_write
from harness.storage.output import check_output

DRAWN_PX = 64
BATCH_CARS, BATCH_NEGATIVES, BATCH_OTHERS = 96, 32, 24
NOSE_WEIGHT = 0.2  # of its loss
LOSS_WEIGHTS = {"futurism": 4.0, "framing": 0.3, "distance": 0.3, "spokes": 0.1}  # all others 1
COLOURED = 0.3  # paint of less saturation has no hue to read
CALIBRATION_RECALL = 0.99  # of calibration renders, at every size; 95 % are promised, and bad pictures score far below
HELD_OUT_SIZES = ((32, 32), (64, 64), (32, 64))  # height, width
HELD_OUT_COUNT = 500


def train_reader(
    out: Path = READER_PATH, count: int = 5000, steps: int = 1800, seed: int = 0, workers: int = 1
) -> Path:
    """Draws, trains, measures on held-out renders and writes the weights file. A function of its arguments alone.

    Args:
        out: the safetensors file to write.
        count: cars drawn for training; about a tenth as many messy pictures go with them.
        steps: updates of 96 cars and 56 others each.
        workers: processes that draw; they change nothing but the time.
    """
    started_sec = time.process_time()
    with one_thread():
        cars = draw_mixed_cars(count, _set_seed(seed, "train"), DRAWN_PX, workers)
        others = _draw_negatives(count // 6, _set_seed(seed, "train"), workers)
        log(f"drew {count} cars and {len(others)} pictures without a usable car")
        factors = _factor_table(cars.factors)
        network = _fit(cars, others, factors, steps, seed)
        recipe = {"count": count, "steps": steps, "seed": seed, "drawn_px": DRAWN_PX}
        content = _calibrate_and_measure(network, factors, recipe, seed, workers)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, content)
    log(f"{out}: {len(content) / 1e6:.2f} MB after {time.process_time() - started_sec:.0f} s of CPU time")
    return out


def _is_reader(path: Path) -> bool:
    try:
        load_reader(path)
    except UserError:
        return False
    return True


def reader_command(
    out: Annotated[Path, typer.Option(help="The weights file to write.")] = READER_PATH,
    count: Annotated[int, typer.Option(min=200, help="Cars to draw.")] = 5000,
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 1800,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Train the factor reader on procedural cars. Prints its held-out figures as JSON."""
    check_output(out, _is_reader)
    path = train_reader(out, count, steps, seed, workers)
    print(json.dumps(load_reader(path).report, indent=1))


def _set_seed(seed: int, purpose: str) -> int:
    """Renders of the three purposes, and those of training sets (small seeds), never meet."""
    return 77_000_000 + 10 * (3 * seed + ("train", "calibration", "held_out").index(purpose))


def _draw_negatives(count: int, set_seed: int, workers: int) -> np.ndarray:
    """Pictures without a usable car and empty backdrops, four to one: uint8 (N, S, S, 3).

    The weights that the repository ships saw unusable pictures of the messy set in place of `draw_negatives`."""
    drawn = draw_negatives(count, set_seed, DRAWN_PX, workers)
    return np.concatenate([drawn, draw_empty(count // 4, set_seed, DRAWN_PX)])


def _factor_table(values: np.ndarray) -> list[dict[str, Any]]:
    """What the reader must know of each factor; `values` float64 (N, len(FACTOR_NAMES))."""
    table = []
    for column, name in enumerate(FACTOR_NAMES):
        low, high, unit = RANGES[name]
        mean, scale = float(values[:, column].mean()), float(values[:, column].std())
        table.append(
            {
                "name": name,
                "unit": unit,
                "low": low,
                "high": high,
                "mean": mean,
                "scale": scale,
                "circular": name == "paint_hue",
            }
        )
    return table


# ---- learning ---------------------------------------------------------------------------------------------------


def _targets(values: np.ndarray, factors: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Wanted outputs and their weights in the loss, both float32 (N, outputs without nose and car)."""
    targets, weights = [], []
    coloured = values[:, FACTOR_NAMES.index("paint_saturation")] > COLOURED
    for column, factor in enumerate(factors):
        value = values[:, column]
        if factor["circular"]:
            targets += [np.cos(2 * np.pi * value), np.sin(2 * np.pi * value)]
            weights += [coloured, coloured]
        else:
            targets.append((value - factor["mean"]) / factor["scale"])
            weights.append(np.full(len(value), LOSS_WEIGHTS.get(factor["name"], 1.0)))
    wanted, shares = (torch.tensor(np.stack(columns, 1), dtype=torch.float32) for columns in (targets, weights))
    return wanted, shares


def _fit(cars: Cars, others: np.ndarray, factors: list[dict[str, Any]], steps: int, seed: int) -> ReaderNet:
    def losses_of(network: ReaderNet, rows: np.ndarray, rng: torch.Generator) -> dict[str, Tensor]:
        x, mirrored, zoom = _batch(cars, others, rows, rng)
        _, outputs = network(x)
        values = cars.factors[rows]
        values[:, FACTOR_NAMES.index("framing")] *= zoom.numpy()
        return _losses(outputs, *_targets(values, factors), mirrored)

    return fit(lambda: ReaderNet(len(output_names(factors))), losses_of, len(cars.pictures), BATCH_CARS, steps, seed)


def _batch(cars: Cars, no_car: np.ndarray, first: np.ndarray, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One batch, and what was done to its cars.

    Returns:
        float32 (B, 3, size, size) in [-1, 1]: the cars of `first`, then spoiled ones, then what never was a usable car.
        bool (len(first),): which of the cars are mirrored.
        float32 (len(first),): how much they are magnified.
    """
    count = len(cars.pictures)
    second = torch.randint(count, (BATCH_NEGATIVES,), generator=rng).numpy()
    third = torch.randint(count, (BATCH_OTHERS,), generator=rng).numpy()  # pictures without a car take their shapes
    parts = cars.pictures[first], cars.pictures[second], no_car[third % len(no_car)]
    good, sound, others = (to_float(part) for part in parts)
    negatives = make_negatives(sound, torch.from_numpy(cars.masks[second])[:, None], rng)
    margins = torch.from_numpy(cars.margins[np.concatenate([first, second, third])])
    x = torch.cat([good, negatives, others])
    mixed = torch.randperm(len(x), generator=rng)  # neighbours are treated alike from here on
    x, margins = x[mixed], margins[mixed]
    mirrored = torch.rand(len(x), generator=rng) < 0.5
    zoom = uniform(rng, 0.86, 1.06, len(x))
    bend = uniform(rng, -0.01, 0.012, len(x)).clamp(min=0)  # a car that is slightly out of shape is still one
    x = warp(x, rng, zoom, mirrored, 0.04, bend, 5)
    cropped = torch.randint(DRAWN_PX // 6, (len(x),), generator=rng) * (torch.rand(len(x), generator=rng) < 0.2)
    x = continue_rows(add_artifacts(x, rng), margins.maximum(cropped))
    x = augment(x, rng, ReaderNet.SIZE_PX)[mixed.argsort()] * 2 - 1
    back = mixed.argsort()[: len(first)]
    return x.contiguous(memory_format=torch.channels_last), mirrored[back], zoom[back]


def _losses(outputs: Tensor, wanted: Tensor, weights: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
    count = len(wanted)
    gap = F.smooth_l1_loss(outputs[:count, :-2], wanted, reduction="none", beta=0.3)
    is_car = torch.zeros(len(outputs))
    is_car[:count] = 1
    return {
        "factors": (gap * weights).sum() / weights.sum(),
        "nose": NOSE_WEIGHT * F.binary_cross_entropy_with_logits(outputs[:count, -2], 1 - mirrored.float()),
        "car": F.binary_cross_entropy_with_logits(outputs[:, -1], is_car),
    }


# ---- measuring --------------------------------------------------------------------------------------------------


def _calibrate_and_measure(
    network: ReaderNet, factors: list[dict[str, Any]], recipe: dict[str, Any], seed: int, workers: int
) -> bytes:
    """The file's content: the threshold from calibration renders, all figures from held-out ones."""
    empty = {"factors": factors, "threshold": 0.0, "errors": {}, "report": {}}
    reader = Reader(network, empty, "")
    network.half().float()  # what the file will hold
    cut = []
    for height, width in HELD_OUT_SIZES:
        cars = draw_cars(HELD_OUT_COUNT, _set_seed(seed, "calibration"), height, width, workers)
        cut.append(np.quantile(reader.read(cars.pictures)["car_score"], 1 - CALIBRATION_RECALL))
    reader.threshold = float(min(cut))
    report: dict[str, Any] = {"recipe": recipe}
    for height, width in HELD_OUT_SIZES:
        set_seed = _set_seed(seed, "held_out")
        report[f"{height}x{width}"] = measure_reader(reader, height, width, set_seed, HELD_OUT_COUNT, workers)
    names = [factor["name"] for factor in factors]
    errors = {name: max(report[f"{h}x{w}"]["errors"][name] for h, w in HELD_OUT_SIZES) for name in names}
    found = {"threshold": reader.threshold, "errors": errors, "report": report}
    return reader_to_bytes(network, {"factors": factors, **found})


def measure_reader(
    reader: Reader, height: int, width: int, set_seed: int, count: int, workers: int = 1
) -> dict[str, Any]:
    """On fresh renders of this size: mean absolute error of every factor, shares accepted, and the nose's side."""
    cars, size_px = draw_cars(count, set_seed, height, width, workers), max(height, width)
    seen = reader.read(cars.pictures)
    messy, kinds = draw_messy(count, set_seed, size_px, workers)
    passed = reader.accepts(messy)
    errors = {name: factor_error(name, seen[name], cars.factors) for name in FACTOR_NAMES}
    truth = cars.factors[:, FACTOR_NAMES.index("futurism")]
    return {
        "renders": count,
        "messy": len(messy),
        "accepted_renders": float((seen["car_score"] >= reader.threshold).mean()),
        "accepted_messy": float(passed.mean()),
        "accepted_messy_kinds": dict(Counter(kind for kind, yes in zip(kinds, passed, strict=True) if yes)),
        "accepted_empty": float(reader.accepts(draw_empty(count // 5, set_seed, size_px)).mean()),
        "nose_right": float((seen["nose"] > 0.5).mean()),
        "futurism_correlation": float(np.corrcoef(seen["futurism"], truth)[0, 1]),
        "errors": errors,
    }


def factor_error(name: str, seen: np.ndarray, factors: np.ndarray) -> float:
    """Mean absolute error; of hues along the circle, in turns, and of coloured paint alone."""
    gap = np.abs(seen - factors[:, FACTOR_NAMES.index(name)])
    if name == "paint_hue":
        gap = np.minimum(gap, 1 - gap)[factors[:, FACTOR_NAMES.index("paint_saturation")] > COLOURED]
    return float(gap.mean())
