"""How well an encoder finds the latents of pictures that it has not seen, and which directions of z it finds."""

from typing import Any

import numpy as np
import torch

from blend.encoder.model import Encoders, encode
from blend.generator.input_pictures import load_held_out
from blend.generator.kinds import KINDS, Kind
from blend.generator.styled_generator import StyledGenerator
from harness.config.experiment import Config, finetune_config
from harness.runtime.rng import RandomStreams
from harness.storage.splits import annotate_figures

SEED_LATENT_MSE = 0.970  # what the first seed's encoder reached, on its own data


def measure_encoder(
    encoders: Encoders, generator: StyledGenerator, styles: list[int], count: int, seed: int
) -> dict[str, Any]:
    """Errors on `count` fresh undisturbed pictures of each style; the same latents for all styles, always the same.

    Returns latent_mse (mean over styles; a guess of nothing but the mean has 1), latent_mse_styles, explained,
    explained_mean, and class_accuracy where there are classes.
    """
    streams = RandomStreams(seed, torch.device("cpu"))  # one set of latents, whatever the device
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


def measure_redrawing(config: Config, encoders: Encoders, generator: StyledGenerator) -> dict[str, Any]:
    """How near the pictures come that the generators draw of held-out ones, in one pass.

    Returns picture_error, the mean squared difference of pixels in [-1, 1] of ordinary pictures, and
    picture_error_concept where there is a fine-tuned run. Where sets keep nothing aside both are left out.
    """
    figures, notes = {}, []
    kinds: list[tuple[str, Kind, Config]] = [("picture_error", "ordinary", config)]
    if generator.tuned is not None:
        kinds.append(("picture_error_concept", "concept", finetune_config(config)))
    for name, kind, part in kinds:
        parents = load_held_out(part.data, config.inversion.count)
        z, y = encode(encoders.of(kind), parents.pictures)
        drawn = generator.draw(z, KINDS.index(kind), y)
        figures[name] = float(np.square((parents.pictures - drawn.astype(np.float64)) / 127.5).mean())
        notes.append(parents.note)
    return annotate_figures(figures, notes, list(figures))


def explained_shares(z: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """1 - error / variance along z_dim orthogonal directions, from the best explained to the least; float64 (z_dim,).

    A generator shows some directions of z and hides others, and none of them lies along an axis: the directions are the
    principal axes of the error. Each half of the rows (N, z_dim) is measured along those of the other half: along its
    own, chance alone would make some look explained.
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
