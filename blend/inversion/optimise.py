"""Latents of pictures by optimisation: Adam on z, for many targets at once, with the generator frozen.

In: targets and first guesses. Out: for each target the best latent found.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from blend.inversion.distances import FeatureMaps, feature_distance, picture_error, pixel_distance
from harness.config.experiment import Inversion
from harness.networks.autocast import to_full_precision
from harness.runtime.latent_space import LatentSpace

# Gradients shrink by orders of magnitude in the first of about a hundred steps: with beta2 = 0.999 Adam would divide by
# the first gradients until the end.
ADAM_BETAS = (0.8, 0.9)
# Adam's first updates have full size in every direction, whatever the gradient: without a ramp they move a first guess
# out of its basin.
RAMP_SHARE = 0.1
# Called after each update with the number of updates and, for the batch being refined, the best latents so far
# (B, z_dim), their objective (B,) and classes (B,) or None. An exception from it ends the search.
StepCallback = Callable[[int, Tensor, Tensor, Tensor | None], None]


class Drawer(Protocol):
    """A generator, or what draws like one: z (B, z_dim), labels or None → pictures (B, 3, H, W)."""

    latents: LatentSpace
    training: bool

    def __call__(self, z: Tensor, y: Tensor | None, /) -> Tensor: ...


@dataclass(frozen=True)
class Inverted:
    """For N targets, in the dtype of the first guess.

    Attributes:
        z, z_first: (N, z_dim) refined and as given.
        error, first_error: (N,) picture error of these, drawn in full precision.
    """

    z: Tensor
    z_first: Tensor
    error: Tensor
    first_error: Tensor


def invert(
    targets: Tensor,
    network: Drawer,
    first_z: Tensor,
    settings: Inversion,
    features: FeatureMaps,
    y: Tensor | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    callback: StepCallback | None = None,
) -> Inverted:
    """Refines the latents of float (N, 3, H, W) in [-1, 1], `settings.batch_size` at once, each independently.

    Args:
        network: in eval mode, so that a picture does not depend on the others of its batch.
        first_z: (N, z_dim).
        y: as the network takes it, where it is conditional.
        autocast: the number format of the search; errors are measured outside of it.
    """
    assert not network.training and len(targets) == len(first_z)
    parts = []
    for start in range(0, len(targets), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        x, first, labels = targets[part], first_z[part].detach().clone(), None if y is None else y[part]
        objective = make_objective(x, network, settings, features, labels, autocast)
        z = _search(objective, first, settings, labels, callback)
        with torch.no_grad():
            parts.append((z, first, *(picture_error(network(found, labels), x) for found in (z, first))))
    return Inverted(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _search(
    objective: Callable[[Tensor], Tensor],
    first_z: Tensor,
    settings: Inversion,
    y: Tensor | None,
    callback: StepCallback | None,
) -> Tensor:
    """The best latent of each target, (B, z_dim)."""
    z = first_z.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([z], settings.lr, ADAM_BETAS)
    best_z, best = first_z.clone(), torch.full_like(first_z[:, 0], math.inf)
    for step in range(settings.steps + 1):
        with torch.set_grad_enabled(step < settings.steps):
            values = objective(z)
        better = values.detach() < best  # never for nan
        best = torch.where(better, values.detach(), best)
        best_z = torch.where(better[:, None], z.detach(), best_z)
        if callback is not None:
            callback(step, best_z, best, y)
        if step < settings.steps:
            optimizer.param_groups[0]["lr"] = learning_rate(step, settings)
            # Adam is elementwise, so the gradient of the sum keeps targets independent.
            (z.grad,) = torch.autograd.grad(values.sum(), z)
            optimizer.step()
    return best_z


def make_objective(
    targets: Tensor,
    network: Drawer,
    settings: Inversion,
    features: FeatureMaps,
    y: Tensor | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[[Tensor], Tensor]:
    """z (B, z_dim) → (B,): the distance of its pictures to the targets, and of |z| to its length in training."""
    with torch.no_grad(), autocast():
        target_maps = features(targets) if settings.features_lambda else []

    def objective(z: Tensor) -> Tensor:
        with autocast():
            x = network(z, y)
            maps = features(x) if settings.features_lambda else []
        value = settings.prior_lambda * network.latents.prior_distance(z)
        if settings.pixel_lambda:
            value = value + settings.pixel_lambda * pixel_distance(to_full_precision(x), targets)
        if settings.features_lambda:
            value = value + settings.features_lambda * feature_distance(maps, target_maps)
        return value

    return objective


def learning_rate(step: int, settings: Inversion) -> float:
    """Up to `lr` over the first tenth of the steps, then half a cosine down to nothing."""
    progress = step / settings.steps
    return settings.lr * min(1.0, (step + 1) / (RAMP_SHARE * settings.steps)) * (1 + math.cos(math.pi * progress)) / 2
