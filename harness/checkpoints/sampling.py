"""Pictures from a generator, with batch-norm statistics that belong to its weights and not to a batch."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.class_choice import Label
from harness.images.tensors import tensor_to_pictures
from harness.networks.base import Generator
from harness.networks.layers import synchronise_batch_norm
from harness.runtime.rng import Draws

STANDING_BATCHES = 16
STANDING_BATCH_SIZE = 64


@torch.no_grad()
def standing_copy(generator: Generator, seed: int = 0) -> Generator:
    """A copy in eval mode whose batch-norm statistics are plain means over fixed noise ("standing statistics").

    One latent then gives one picture, alone or in any batch. Running statistics lag behind the weights while a run
    trains, and those of a weight average belong to no weights at all.
    """
    standing = copy.deepcopy(generator).train()
    norms = [m for m in standing.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return standing.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    synchronise_batch_norm(standing, on=False)  # only the first process samples
    device = next(generator.parameters()).device
    draws = Draws(seed, device)
    for index in range(STANDING_BATCHES):
        standing(*generator.latents.draw(draws, "standing", index, STANDING_BATCH_SIZE))
    return standing.eval()


def label_to_y(label: Label, count: int) -> Tensor:
    """What a generator takes for `count` pictures of this label: int64 (count,), or float32 (count, num_classes)."""
    return torch.full((count,), label) if isinstance(label, int) else torch.tensor(label).repeat(count, 1)


@torch.no_grad()
def latents_to_pictures(generator: nn.Module, z: Tensor, y: Tensor | None, batch_size: int = 64) -> np.ndarray:
    """uint8 (N, H, W, 3) of a generator in eval mode; z float32 (N, z_dim), y as the generator takes it."""
    device = next(generator.parameters()).device
    parts = []
    for start in range(0, len(z), batch_size):
        part = slice(start, start + batch_size)
        parts.append(tensor_to_pictures(generator(z[part].to(device), None if y is None else y[part].to(device))))
    return np.concatenate(parts)
