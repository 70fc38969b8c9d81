"""How well an encoder recovers the latents of pictures it was not trained on, and which directions of z."""

from typing import Any

import numpy as np
import torch

from blend.encoder.model import Encoders, encode
from blend.generator.input_pictures import load_held_out
from blend.generator.kinds import KINDS, Kind
from blend.generator.picture_error import mean_picture_error
from blend.generator.styled_generator import StyledGenerator
from harness.config.experiment import Config, finetune_config
from harness.runtime.rng import RandomStreams
from harness.storage.splits import annotate_figures

BASELINE_LATENT_MSE = 0.970  # of the encoder of an earlier system, on its own data


def measure_encoder(
    encoders: Encoders, generator: StyledGenerator, styles: list[int], count: int, seed: int
) -> dict[str, Any]:
    """Errors on `count` generated pictures of each style, without augmentation; the latents depend on the seed alone.

    Returns latent_mse (mean over styles; 1 = always the mean latent), latent_mse_styles, explained, explained_mean,
    and class_accuracy where there are classes.
    """
    streams = RandomStreams(seed, torch.device("cpu"))  # the same latents on every device
    z, y = generator.latents.draw(streams, "encoder.valid", 0, count)
    mses, explained, right = {}, [], []
    for style in styles:
        guess, classes = encode(encoders.of(KINDS[style]), generator.draw(z, style, y))
        mses[str(style)] = float((guess - z).square().mean())
        explained.append(explained_shares(z.double().numpy(), guess.double().numpy()))
        if classes is not None:
            right.append(float((classes == y).double().mean()))
    shares = np.mean(explained, axis=0)
    return {
        "latent_mse": float(np.mean(list(mses.values()))),
        "latent_mse_styles": mses,
        "explained": [round(float(share), 4) for share in shares],
        "explained_mean": float(shares.mean()),
        **({"class_accuracy": float(np.mean(right))} if right else {}),
    }


def measure_reconstruction(config: Config, encoders: Encoders, generator: StyledGenerator) -> dict[str, Any]:
    """Errors of held-out pictures that are encoded and drawn again, in one pass.

    Returns picture_error, of ordinary pictures, and picture_error_concept where there is a fine-tuned run. Both are
    left out where a set holds no pictures out.
    """
    figures, notes = {}, []
    kinds: list[tuple[str, Kind, Config]] = [("picture_error", "ordinary", config)]
    if generator.tuned is not None:
        kinds.append(("picture_error_concept", "concept", finetune_config(config)))
    for name, kind, part in kinds:
        parents = load_held_out(part.data, config.inversion.count)
        z, y = encode(encoders.of(kind), parents.pictures)
        drawn = generator.draw(z, KINDS.index(kind), y)
        figures[name] = mean_picture_error(drawn, parents.pictures)
        notes.append(parents.note)
    return annotate_figures(figures, notes, list(figures))


def explained_shares(z: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """1 - error / variance along z_dim orthogonal directions, from best to worst explained; float64 (z_dim,).

    The directions are the principal axes of the error: those that a generator shows or hides do not lie along the axes
    of z. Each half of the rows (N, z_dim) is measured along the directions of the other half, since along its own some
    would look explained by chance.
    """
    half = len(z) // 2
    parts = [slice(0, half), slice(half, None)]
    found = []
    for mine, other in (parts, parts[::-1]):
        error = guess[other] - z[other]
        _, axes = np.linalg.eigh(error.T @ error)  # columns, from the smallest error on
        mse = np.square((guess[mine] - z[mine]) @ axes).mean(0)
        found.append(1 - mse / np.square(z[mine] @ axes).mean(0))
    return np.sort(np.mean(found, axis=0))[::-1]
