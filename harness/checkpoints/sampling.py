"""Sampling from a generator, with batch-norm statistics that belong to its weights and not to a batch."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.class_choice import Label
from harness.images.tensors import pictures_to_tensor, tensor_to_pictures
from harness.networks.base import Generator
from harness.networks.encoder import Encoder
from harness.networks.layers import synchronise_batch_norm
from harness.runtime.rng import RandomStreams

STANDING_BATCHES = 16
STANDING_BATCH_SIZE = 64


@torch.no_grad()
def standing_copy(generator: Generator, seed: int = 0) -> Generator:
    """A copy in eval mode with standing statistics: batch-norm statistics averaged over fixed noise.

    A latent then gives the same picture in any batch. Running statistics lag behind the weights during training, and
    those of a moving average belong to no weights at all.
    """
    standing = copy.deepcopy(generator).train()
    norms = [m for m in standing.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return standing.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    synchronise_batch_norm(standing, on=False)  # only rank 0 samples
    device = next(generator.parameters()).device
    streams = RandomStreams(seed, device)
    for index in range(STANDING_BATCHES):
        standing(*generator.latents.draw(streams, "standing", index, STANDING_BATCH_SIZE))
    return standing.eval()


def label_to_y(label: Label, count: int) -> Tensor:
    """The generator's labels for `count` pictures: int64 (count,), or float32 (count, num_classes) of a mix."""
    return torch.full((count,), label) if isinstance(label, int) else torch.tensor(label).repeat(count, 1)


@torch.no_grad()
def latents_to_pictures(generator: nn.Module, z: Tensor, y: Tensor | None, batch_size: int = 64) -> np.ndarray:
    """uint8 (N, H, W, 3) of a generator in eval mode; z float32 (N, z_dim), y as for the generator."""
    device = next(generator.parameters()).device
    parts = []
    for start in range(0, len(z), batch_size):
        part = slice(start, start + batch_size)
        parts.append(tensor_to_pictures(generator(z[part].to(device), None if y is None else y[part].to(device))))
    return np.concatenate(parts)


class Sampler:
    """Draws samples: pictures of latents from the prior N(0, I).

    With the encoder of joint training each latent is replaced `passes` times by the encoder's latent of its picture.
    Features that no training picture has, such as a third wheel, get lost in that latent, so each pass leaves fewer of
    them (Bengio et al. 2014 sample denoising autoencoders in this way).
    """

    def __init__(self, generator: Generator, encoder: Encoder | None = None, passes: int = 0) -> None:
        self.generator, self.passes = standing_copy(generator), passes
        self.encoder = copy.deepcopy(encoder).eval() if encoder is not None and passes else None

    @torch.no_grad()
    def reencode(self, z: Tensor, y: Tensor | None, batch_size: int = 64) -> Tensor:
        """Prior latents → re-encoded latents, both float32 (N, z_dim); y as for the generator."""
        if self.encoder is None:
            return z
        device = next(self.encoder.parameters()).device
        for _ in range(self.passes):
            pictures = torch.from_numpy(latents_to_pictures(self.generator, z, y, batch_size))
            parts = [self.encoder(pictures_to_tensor(part.to(device)))[0] for part in pictures.split(batch_size)]
            z = torch.cat(parts).to(z.device)
        return z

    def draw(self, z: Tensor, y: Tensor | None, truncation: float = 1.0, batch_size: int = 64) -> np.ndarray:
        """uint8 (N, H, W, 3) of prior latents; `truncation` as in `LatentSpace.truncate`."""
        z = self.generator.latents.truncate(self.reencode(z, y, batch_size), truncation)
        return latents_to_pictures(self.generator, z, y, batch_size)
