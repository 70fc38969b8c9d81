"""Fully convolutional networks for any H x W, after the car-brand GAN (talathi/carbrandGAN, 2023); DCGAN's family.

G: linear -> base map -> 4x4 transposed convolutions of stride 2 with batch norm and activation in between -> tanh.
D: 4x4 convolutions of stride 2 with activations, then one convolution over the whole last map; no batch norm.
At 128 x 224 with conv_dim 64 the maps are 512 x 4 x 7, then 256, 128, 64, 64 and 3 channels; D's 64, 64, 128, 256, 512.
"""

import torch
from torch import Tensor, nn

from harness.networks.arch import ACTIVATIONS, ArchSpec, doublings
from harness.networks.autocast import to_full_precision, without_autocast
from harness.networks.base import Discriminator, Generator, batch_norm
from harness.networks.layers import SNConv2d, SNConvTranspose2d, init_weights

MAX_WIDTH = 8  # maximum channels, as a multiple of conv_dim
FEATURES = 4  # D's features, as a multiple of d_conv_dim


def block_channels(height: int, conv_dim: int) -> list[int]:
    """Channels of D's maps from the largest to the smallest; G's are reversed."""
    return [conv_dim * min(MAX_WIDTH, 2 ** max(0, block - 1)) for block in range(doublings(height))]


class ConvGeneratorBlock(nn.Module):
    """Norm, activation, transposed convolution: (B, C_in, h, w) -> (B, C_out, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int, spec: ArchSpec):
        super().__init__()
        self.conditional = spec.g_cond_mtd == "cBN"
        self.act = ACTIVATIONS[spec.g_act_fn]
        self.bn = batch_norm(in_channels, spec)
        kind = SNConvTranspose2d if spec.apply_g_sn else nn.ConvTranspose2d
        self.conv = kind(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.conv(self.act(self.bn(x, *((y,) if self.conditional else ()))))


class ConvGenerator(Generator):
    def __init__(self, spec: ArchSpec):
        channels = [*reversed(block_channels(spec.img_height, spec.g_conv_dim)), 3]
        super().__init__(spec, channels[0])
        for in_channels, out_channels in zip(channels[:-1], channels[1:], strict=True):
            self.add_block(ConvGeneratorBlock(in_channels, out_channels, spec), out_channels)
        init_weights(self, spec.g_init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.tanh(to_full_precision(self.run_blocks(z, y)))


class ConvDiscriminatorBlock(nn.Module):
    """Convolution, activation: (B, C_in, h, w) -> (B, C_out, h/2, w/2)."""

    def __init__(self, in_channels: int, out_channels: int, spec: ArchSpec):
        super().__init__()
        self.act = ACTIVATIONS[spec.d_act_fn]
        kind = SNConv2d if spec.apply_d_sn else nn.Conv2d
        self.conv = kind(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class ConvDiscriminator(Discriminator):
    def __init__(self, spec: ArchSpec):
        super().__init__(spec)
        channels = [3, *block_channels(spec.img_height, spec.d_conv_dim)]
        factor, features = 2 ** (len(channels) - 1), FEATURES * spec.d_conv_dim
        for in_channels, out_channels in zip(channels[:-1], channels[1:], strict=True):
            self.add_block(ConvDiscriminatorBlock(in_channels, out_channels, spec), out_channels)
        kind = SNConv2d if spec.apply_d_sn else nn.Conv2d
        self.conv = kind(channels[-1], features, (spec.img_height // factor, spec.img_width // factor))
        self.act = ACTIVATIONS[spec.d_act_fn]
        self.add_head(features)
        init_weights(self, spec.d_init)

    def features(self, x: Tensor) -> Tensor:
        """One convolution over the whole last map: float32 (B, d)."""
        x = self.conv(self.feature_maps(x)[-1])
        with without_autocast(x):
            return self.act(to_full_precision(x)).flatten(1)
