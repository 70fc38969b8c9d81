"""FreezeD (Mo et al. 2020): fine-tuning with the first blocks of the discriminator frozen."""

from torch import nn

from harness.errors import UserError
from harness.networks.base import Discriminator
from harness.networks.encoder import Encoder
from harness.networks.layers import BatchNorm2d
from harness.networks.spectral_norm import SpectralNorm


def freeze_discriminator(d: Discriminator, n: int) -> None:
    """Freeze blocks 0..n-1: weights, spectral-norm vectors and running statistics.

    StudioGAN 0.2.0 keeps updating the vectors, so its frozen layers drift a little, and for n >= blocks it silently
    freezes nothing.
    """
    blocks = len(d.blocks)
    if not 0 < n < blocks:
        raise UserError(
            f"finetune.freeze_layers: found {n}, allowed 1 to {blocks - 1} (the discriminator has {blocks} blocks), "
            f"try finetune.freeze_layers={min(2, blocks - 1)}"
        )
    d.frozen_blocks = n
    for layer in d.blocks[:n].modules():
        if isinstance(layer, SpectralNorm | BatchNorm2d):
            layer.frozen = True
    d.blocks[:n].requires_grad_(False)


def freeze_whitening(encoder: Encoder) -> None:
    """Keep the base run's whitening, so that a latent shows the same car in both styles."""
    if encoder.whitening is not None:
        encoder.whitening.frozen = True


def trainable_parameters(d: Discriminator) -> list[nn.Parameter]:
    """The parameters that are not frozen, in state-dict order."""
    frozen = {id(p) for p in d.blocks[: d.frozen_blocks].parameters()}
    return [p for p in d.parameters() if id(p) not in frozen]


def set_trainable(d: Discriminator, on: bool) -> None:
    """Switch gradients on for D's step or off for G's; frozen parameters stay off."""
    for parameter in trainable_parameters(d):
        parameter.requires_grad_(on)
