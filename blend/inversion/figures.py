"""How well parents are redrawn: the errors of inversions beside those of simpler ways to redraw.

In: held-out pictures of both kinds. Out: metrics["inversion"].
"""

from typing import Any

import numpy as np
import torch

from blend.encoder.model import Encoders
from blend.generator.input_pictures import load_held_out
from blend.generator.kinds import Kind
from blend.generator.styled_generator import StyledGenerator
from blend.inversion.cached import STYLES, Inversions, invert_parents
from harness.config.experiment import Config, finetune_config
from harness.runtime.rng import RandomStreams
from harness.storage.hdf5 import open_packed
from harness.storage.splits import annotate_figures

RANDOM_SAMPLES = 1000
READ_ROWS = 512
OF_UNSEEN = ("encoder_error",)  # the encoder may have learned from training pictures themselves


def measure_inversion(config: Config, generator: StyledGenerator, encoders: Encoders) -> dict[str, Any]:
    """Inverts held-out pictures of both kinds; metrics["inversion"]: errors beside those of simpler ways to redraw.

    The figures themselves are those of ordinary pictures; those of concept pictures are below "concept".
    """
    kinds: list[tuple[Kind, Config]] = [("ordinary", config)]
    if generator.tuned is not None:
        kinds.append(("concept", finetune_config(config)))
    figures = {}
    for kind, part in kinds:
        parents = load_held_out(part.data, config.inversion.count)
        inversions = invert_parents(config, generator, encoders, parents, kind)
        figures[kind] = annotate_figures(inversion_figures(inversions, generator, part), [parents.note], OF_UNSEEN)
    whole = {**figures["ordinary"], **figures, "settings": config.inversion.model_dump(mode="json")}
    generator.base.run.write_metrics("inversion", whole)
    return whole


def inversion_figures(inversions: Inversions, generator: StyledGenerator, config: Config) -> dict[str, Any]:
    """Means of picture errors over the targets; `config` names the set that the mean picture is of."""
    targets = inversions.targets
    drawn = _random_samples(generator, inversions.kind, config.seed)
    return {
        "targets": len(inversions),
        "encoder_error": float(inversions.first_error.mean()),
        "refined_error": float(inversions.error.mean()),
        "refined_error_worst": float(inversions.error.max()),
        "mean_picture_error": float(picture_errors(targets, mean_picture(config)[None]).mean()),
        "best_of_1000_error": float(picture_errors(targets, drawn).min(1).mean()),
        "latent_length": float(inversions.z.norm(dim=1).mean()),
    }


def _random_samples(generator: StyledGenerator, kind: Kind, seed: int) -> np.ndarray:
    streams = RandomStreams(seed, torch.device("cpu"))
    z, y = generator.latents.draw(streams, "best of random samples", 0, RANDOM_SAMPLES)
    return generator.draw(z, STYLES[kind], y)


def mean_picture(config: Config) -> np.ndarray:
    """float64 (H, W, 3), 0 to 255: the mean of all training pictures."""
    with open_packed(config.data.hdf5_path("train")) as packed:
        total = np.zeros((packed.height, packed.width, 3))
        for start in range(0, packed.count, READ_ROWS):
            total += packed.read(np.arange(start, min(start + READ_ROWS, packed.count))).sum(0, dtype=np.float64)
        return total / packed.count


def picture_errors(targets: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Picture error of each of (N, H, W, 3) to each of (M, H, W, 3), levels 0 to 255: float64 (N, M)."""
    a, b = (levels.reshape(len(levels), -1) / 127.5 - 1 for levels in (targets, others))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(squares, 0) / a.shape[1]
