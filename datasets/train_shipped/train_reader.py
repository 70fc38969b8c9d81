"""Trains the factor reader on procedural cars; `harness.features` loads the file.

The reader predicts a car's futurism and other factors, and whether the picture shows a usable car.
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
from datasets.train_shipped.fit import fit, set_seed, to_float, write_weights
from datasets.train_shipped.negatives import make_negatives
from datasets.train_shipped.reader_data import Cars, draw_cars, draw_empty, draw_messy, draw_mixed_cars
from datasets.train_shipped.view_data import draw_negatives
from harness.errors import UserError
from harness.features import READER_PATH, Reader, ReaderNet, load_reader, output_names, reader_to_bytes
from harness.messages import log
from harness.runtime.device import one_thread
from harness.storage.output import check_output

DRAWN_PX = 64
BATCH_CARS, BATCH_NEGATIVES, BATCH_OTHERS = 96, 32, 24
SEED_BASE = 77_000_000
NOSE_WEIGHT = 0.2  # of its loss
LOSS_WEIGHTS = {"futurism": 4.0, "framing": 0.3, "distance": 0.3, "spokes": 0.1}  # all others 1
COLOURED = 0.3  # paint below this saturation has no hue to predict
# Share of calibration renders that pass, at every size. Documented are 95 %; negatives score far lower.
CALIBRATION_RECALL = 0.99
HELD_OUT_SIZES = ((32, 32), (64, 64), (32, 64))  # height, width
HELD_OUT_COUNT = 500


def train_reader(
    out: Path = READER_PATH, count: int = 5000, steps: int = 1800, seed: int = 0, workers: int = 1
) -> Path:
    """Draws, trains, measures on held-out renders, writes the weights file. The result depends on the arguments alone.

    Args:
        out: the safetensors file to write.
        count: cars drawn for training; a fifth as many pictures without a usable car are added.
        steps: updates of 96 cars and 56 others each.
        workers: processes that draw; they do not change the result.
    """
    started_sec = time.process_time()
    with one_thread():
        train_seed = set_seed(SEED_BASE, seed, "train")
        cars = draw_mixed_cars(count, train_seed, DRAWN_PX, workers)
        others = _draw_negatives(count // 6, train_seed, workers)
        log(f"drew {count} cars and {len(others)} pictures without a usable car")
        factors = _factor_table(cars.factors)
        network = _fit(cars, others, factors, steps, seed)
        recipe = {"count": count, "steps": steps, "seed": seed, "drawn_px": DRAWN_PX}
        content = _calibrate_and_measure(network, factors, recipe, seed, workers)
    write_weights(out, content, started_sec)
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


def _draw_negatives(count: int, train_seed: int, workers: int) -> np.ndarray:
    """Pictures without a usable car and empty backdrops, four to one: uint8 (N, S, S, 3).

    The weights in the repository were trained with unusable pictures of the messy set instead of `draw_negatives`."""
    drawn = draw_negatives(count, train_seed, DRAWN_PX, workers)
    return np.concatenate([drawn, draw_empty(count // 4, train_seed, DRAWN_PX)])


def _factor_table(values: np.ndarray) -> list[dict[str, Any]]:
    """Range, unit, mean and scale of each factor; `values` float64 (N, len(FACTOR_NAMES))."""
    return [
        {
            "name": name,
            "unit": RANGES[name][2],
            "low": RANGES[name][0],
            "high": RANGES[name][1],
            "mean": float(column.mean()),
            "scale": float(column.std()),
            "circular": name == "paint_hue",
        }
        for name, column in zip(FACTOR_NAMES, values.T, strict=True)
    ]


# ---- training ---------------------------------------------------------------------------------------------------


def _targets(values: np.ndarray, factors: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Target outputs and their weights in the loss, both float32 (N, outputs without nose and car)."""
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
    return _to_columns(targets), _to_columns(weights)


def _to_columns(columns: list[np.ndarray]) -> Tensor:
    return torch.tensor(np.stack(columns, 1), dtype=torch.float32)


def _fit(cars: Cars, others: np.ndarray, factors: list[dict[str, Any]], steps: int, seed: int) -> ReaderNet:
    def losses_of(network: ReaderNet, rows: np.ndarray, rng: torch.Generator) -> dict[str, Tensor]:
        x, mirrored, zoom = _batch(cars, others, rows, rng)
        _, outputs = network(x)
        values = cars.factors[rows]
        values[:, FACTOR_NAMES.index("framing")] *= zoom.numpy()
        return _losses(outputs, *_targets(values, factors), mirrored)

    return fit(lambda: ReaderNet(len(output_names(factors))), losses_of, len(cars.pictures), BATCH_CARS, steps, seed)


def _batch(cars: Cars, no_car: np.ndarray, first: np.ndarray, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One batch.

    Returns:
        float32 (B, 3, size, size) in [-1, 1]: the cars of `first`, then damaged ones, then pictures without a car.
        bool (len(first),): which of the cars are mirrored.
        float32 (len(first),): their magnification.
    """
    count = len(cars.pictures)
    second = torch.randint(count, (BATCH_NEGATIVES,), generator=rng).numpy()
    third = torch.randint(count, (BATCH_OTHERS,), generator=rng).numpy()  # pictures without a car take their margins
    negatives = make_negatives(to_float(cars.pictures[second]), torch.from_numpy(cars.masks[second])[:, None], rng)
    margins = torch.from_numpy(cars.margins[np.concatenate([first, second, third])])
    x = torch.cat([to_float(cars.pictures[first]), negatives, to_float(no_car[third % len(no_car)])])
    mixed = torch.randperm(len(x), generator=rng)  # `augment` treats neighbours alike
    x, margins = x[mixed], margins[mixed]
    mirrored = torch.rand(len(x), generator=rng) < 0.5
    zoom = uniform(rng, 0.86, 1.06, len(x))
    bend = uniform(rng, -0.01, 0.012, len(x)).clamp(min=0)  # a slightly bent car is still one
    x = warp(x, rng, 0.04, bend, 5, zoom, mirrored)
    cropped = torch.randint(DRAWN_PX // 6, (len(x),), generator=rng) * (torch.rand(len(x), generator=rng) < 0.2)
    x = continue_rows(add_artifacts(x, rng), margins.maximum(cropped))
    x = augment(x, rng, ReaderNet.SIZE_PX)[mixed.argsort()] * 2 - 1
    back = mixed.argsort()[: len(first)]
    return x.contiguous(memory_format=torch.channels_last), mirrored[back], zoom[back]


def _losses(outputs: Tensor, targets: Tensor, weights: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
    count = len(targets)
    gap = F.smooth_l1_loss(outputs[:count, :-2], targets, reduction="none", beta=0.3)
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
    """The file's content: threshold from calibration renders, all figures from held-out ones."""
    reader = Reader(network, {"factors": factors, "threshold": 0.0, "errors": {}, "report": {}}, "")
    network.half().float()  # as the file stores it
    cuts, figures = [], {}
    for height, width in HELD_OUT_SIZES:
        cars = draw_cars(HELD_OUT_COUNT, set_seed(SEED_BASE, seed, "calibration"), height, width, workers)
        cuts.append(np.quantile(reader.read(cars.pictures)["car_score"], 1 - CALIBRATION_RECALL))
    reader.threshold = float(min(cuts))
    held_out = set_seed(SEED_BASE, seed, "held_out")
    for height, width in HELD_OUT_SIZES:
        figures[f"{height}x{width}"] = measure_reader(reader, height, width, held_out, HELD_OUT_COUNT, workers)
    errors = {name: max(of_size["errors"][name] for of_size in figures.values()) for name in FACTOR_NAMES}
    found = {"threshold": reader.threshold, "errors": errors, "report": {"recipe": recipe, **figures}}
    return reader_to_bytes(network, {"factors": factors, **found})


def measure_reader(reader: Reader, height: int, width: int, seed: int, count: int, workers: int = 1) -> dict[str, Any]:
    """On renders of this size: mean absolute error of every factor, shares accepted, accuracy of the nose's side."""
    cars, size_px = draw_cars(count, seed, height, width, workers), max(height, width)
    seen = reader.read(cars.pictures)
    messy, kinds = draw_messy(count, seed, size_px, workers)
    passed = reader.accepts(messy)
    truth = cars.factors[:, FACTOR_NAMES.index("futurism")]
    return {
        "renders": count,
        "messy": len(messy),
        "accepted_renders": float((seen["car_score"] >= reader.threshold).mean()),
        "accepted_messy": float(passed.mean()),
        "accepted_messy_kinds": dict(Counter(kind for kind, yes in zip(kinds, passed, strict=True) if yes)),
        "accepted_empty": float(reader.accepts(draw_empty(count // 5, seed, size_px)).mean()),
        "nose_right": float((seen["nose"] > 0.5).mean()),
        "futurism_correlation": float(np.corrcoef(seen["futurism"], truth)[0, 1]),
        "errors": {name: factor_error(name, seen[name], cars.factors) for name in FACTOR_NAMES},
    }


def factor_error(name: str, seen: np.ndarray, factors: np.ndarray) -> float:
    """Mean absolute error; of the hue along the circle, in turns, over coloured paint alone."""
    gap = np.abs(seen - factors[:, FACTOR_NAMES.index(name)])
    if name == "paint_hue":
        gap = np.minimum(gap, 1 - gap)[factors[:, FACTOR_NAMES.index("paint_saturation")] > COLOURED]
    return float(gap.mean())
