"""Progressive latents: only the first components of a latent are used, more of them at scheduled steps.

Unused components are 0 in every training latent, and so are their weights. The networks keep their shapes: weights and
moments carry over, a latent gives the same picture before and after a switch, and full-length noise can be used at any
time. (The car-brand GAN created new networks at a switch, with a new first layer.)
"""

import torch
from torch import nn

from harness.config.experiment import Optim
from harness.networks.base import Generator


def active_size(optim: Optim, z_dim: int, step: int) -> int:
    """Used components of the latent in generator update `step` (0-based)."""
    sizes = [size for start, size in optim.z_schedule or () if start <= step]
    return sizes[-1] if sizes else z_dim


def zero_unused_columns(generator: Generator, first_size: int) -> None:
    """Zero the weights of the components that are not used at the start."""
    with torch.no_grad():
        _latent_weight(generator)[:, first_size : generator.spec.z_dim] = 0


def init_new_columns(generator: Generator, optimizer: torch.optim.Optimizer, before: int, now: int) -> None:
    """Initialise Adam's second moments of columns `before` to `now`, before their first update.

    They are 0 so far, so Adam's first steps would be many times too long. All components have the same distribution, so
    each row starts with the mean of its used columns.
    """
    state = optimizer.state.get(_latent_weight(generator))
    if state:
        moments = state["exp_avg_sq"]
        moments[:, before:now] = moments[:, :before].mean(dim=1, keepdim=True)


def _latent_weight(generator: Generator) -> nn.Parameter:
    weight = getattr(generator.linear0, "weight_orig" if generator.spec.apply_g_sn else "weight")
    assert isinstance(weight, nn.Parameter)
    return weight
