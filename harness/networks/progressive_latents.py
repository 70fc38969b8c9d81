"""Progressive latents: a latent of z_dim components of which only the first are used, and more from step to step.

What is not used is 0 in every latent drawn for training, and meets weights that are 0. So the networks keep their
shapes: every weight and moment is carried over by itself, the same latent draws the same picture before and after a
switch, and noise of full length can be drawn from at any time. (The car-brand GAN made new networks at a switch, whose
first layer began anew.)
"""

import torch
from torch import nn

from harness.config.experiment import Optim
from harness.networks.base import Generator


def active_size(optim: Optim, z_dim: int, step: int) -> int:
    """Components of the latent that are used in generator update number `step` (0-based)."""
    sizes = [size for start, size in optim.z_schedule or () if start <= step]
    return sizes[-1] if sizes else z_dim


def zero_unused_columns(generator: Generator, first_size: int) -> None:
    """Zero weights for the components that are not used from the start."""
    with torch.no_grad():
        _latent_weight(generator)[:, first_size : generator.spec.z_dim] = 0


def init_new_columns(generator: Generator, optimizer: torch.optim.Optimizer, before: int, now: int) -> None:
    """Before the first update with components `before` to `now`: Adam's second moments of their columns.

    They were 0 through all updates so far, and Adam takes that for a gradient that has always been tiny: its first
    steps would be many times too long. The components have one distribution, so the columns start with the mean of
    what the used columns have, row by row.
    """
    state = optimizer.state.get(_latent_weight(generator))
    if state:
        moments = state["exp_avg_sq"]
        moments[:, before:now] = moments[:, :before].mean(dim=1, keepdim=True)


def _latent_weight(generator: Generator) -> nn.Parameter:
    weight = getattr(generator.linear0, "weight_orig" if generator.spec.apply_g_sn else "weight")
    assert isinstance(weight, nn.Parameter)
    return weight
