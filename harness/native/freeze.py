"""FreezeD (Mo et al. 2020): fine-tune with the first blocks of the discriminator held as they are."""

from torch import nn

from harness.errors import UserError
from harness.networks.base import Discriminator
from harness.networks.encoder import Encoder
from harness.networks.layers import BatchNorm2d
from harness.networks.spectral_norm import SpectralNorm


def freeze_discriminator(d: Discriminator, n: int) -> None:
    """Hold blocks 0..n-1: their weights, their spectral-norm vectors and their running statistics.

    StudioGAN 0.2.0 leaves the vectors moving, so its frozen layers drift a little, and freezes nothing, silently, for
    n >= blocks.
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
    """Keep the whitening of the base run, so that one latent draws the same car in both styles."""
    if encoder.whitening is not None:
        encoder.whitening.frozen = True


def trainable_parameters(d: Discriminator) -> list[nn.Parameter]:
    """Every parameter that is not frozen, in state-dict order."""
    frozen = {id(p) for p in d.blocks[: d.frozen_blocks].parameters()}
    return [p for p in d.parameters() if id(p) not in frozen]


def set_trainable(d: Discriminator, on: bool) -> None:
    """Switch gradients on for D's step or off for G's; what is frozen stays off."""
    for parameter in trainable_parameters(d):
        parameter.requires_grad_(on)
