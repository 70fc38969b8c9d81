"""How well pictures are reconstructed: errors of inversions, and of simpler ways to reconstruct for comparison.

In: held-out pictures of both kinds. Out: metrics["inversion"].
"""

from typing import Any

import numpy as np
import torch

from blend.encoder.model import Encoders
from blend.generator.input_pictures import load_held_out
from blend.generator.kinds import Kind
from blend.generator.picture_error import picture_errors
from blend.generator.styled_generator import StyledGenerator
from blend.inversion.cached import STYLES, Inversions, invert_parents
from harness.config.experiment import Config, finetune_config
from harness.runtime.rng import RandomStreams
from harness.storage.hdf5 import open_packed
from harness.storage.splits import annotate_figures

RANDOM_SAMPLES = 1000
READ_ROWS = 512
NEEDS_UNSEEN = ("encoder_error",)  # the encoder may have learned from training pictures


def measure_inversion(config: Config, generator: StyledGenerator, encoders: Encoders) -> dict[str, Any]:
    """Inverts held-out pictures of both kinds and writes metrics["inversion"].

    Its top level has the figures of ordinary pictures, which are under "ordinary" too; "concept" has the others.
    """
    kinds: list[tuple[Kind, Config]] = [("ordinary", config)]
    if generator.tuned is not None:
        kinds.append(("concept", finetune_config(config)))
    figures = {}
    for kind, part in kinds:
        parents = load_held_out(part.data, config.inversion.count)
        inversions = invert_parents(config, generator, encoders, parents, kind)
        figures[kind] = annotate_figures(inversion_figures(inversions, generator, part), [parents.note], NEEDS_UNSEEN)
    whole = {**figures["ordinary"], **figures, "settings": config.inversion.model_dump(mode="json")}
    generator.base.run.write_metrics("inversion", whole)
    return whole


def inversion_figures(inversions: Inversions, generator: StyledGenerator, config: Config) -> dict[str, Any]:
    """Means of picture errors over the targets; `config` names the set of the mean picture."""
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
