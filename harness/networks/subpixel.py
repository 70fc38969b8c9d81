"""Residual networks on small maps, rearranged into pixels by sub-pixel convolution (Shi et al. 2016): fast per pixel.

The latent scales and shifts the channels in every generator block (FiLM, Perez et al. 2018). There is no batch norm: a
latent gives the same picture in training, and interpolated weights need no statistics. The discriminator starts with a
pixel unshuffle; its residual blocks halve the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.arch import ArchSpec, doublings
from harness.networks.autocast import to_full_precision
from harness.networks.base import Discriminator, DiscriminatorOutput, Generator
from harness.networks.layers import conv2d, init_weights, linear
from harness.networks.resample import ConvThenHalve, DoubleThenConv, double, halve
from harness.networks.spectral_norm import SpectralNorm

G_WIDTHS = (1.0, 4 / 3, 8 / 3)  # channels of the last map, the one before, and all before that, times g_conv_dim
D_WIDTHS = (1, 2, 3, 4)  # of each halving, times d_conv_dim
SLOPE = 0.2  # of the leaky ReLU
RESIDUAL_GAIN = 0.3  # initial gain of each block: without batch norm the maps would grow from block to block
MODULATION_STD = 0.5  # of a channel's scale and shift from a normal latent, initially
LOGIT_GAIN = 8.0  # with spectral norm logits would hardly reach the hinge's margins


def pixel_factor(height: int) -> int:
    """Pixels per side that one position of the largest map becomes."""
    return 4 if height >= 128 else 2


def map_count(height: int) -> int:
    """Doublings from the base (4 to 7 rows) to the generator's largest map."""
    return doublings(height) - (pixel_factor(height) // 2)


def g_channels(height: int, conv_dim: int) -> list[int]:
    """Channels of the generator's maps, from the base to the largest; multiples of 8."""
    widths = [G_WIDTHS[min(level, len(G_WIDTHS) - 1)] for level in range(map_count(height) + 1)]
    return [max(8, round(conv_dim * width / 8) * 8) for width in reversed(widths)]


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class Modulation(nn.Module):
    """x (B, C, h, w), latent (B, d) -> x * (1 + scale) + shift, scale and shift per channel."""

    def __init__(self, inputs: int, channels: int, sn: bool) -> None:
        super().__init__()
        self.linear = linear(inputs, 2 * channels, sn=sn)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        scale, shift = self.linear(latent).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class SubpixelGeneratorBlock(nn.Module):
    """(B, C_in, h, w), latent (B, d) -> (B, C_out, 2h, 2w), or (B, C_out, h, w) without doubling."""

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int, doubles: bool, spec: ArchSpec) -> None:
        super().__init__()
        sn = spec.apply_g_sn
        self.doubles = doubles
        self.modulation1 = Modulation(latent_dim, in_channels, sn)
        self.modulation2 = Modulation(latent_dim, out_channels, sn)
        self.conv1 = conv2d(in_channels, out_channels, 3, sn=sn)
        self.conv2 = conv2d(out_channels, out_channels, 3, sn=sn)
        self.projection = conv2d(in_channels, out_channels, 1, sn=sn) if in_channels != out_channels else nn.Identity()
        self.gain = nn.Parameter(torch.full((out_channels, 1, 1), RESIDUAL_GAIN))
        self.double_then_conv = DoubleThenConv(fuse=spec.fuse_resampling)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        active, shortcut = leaky(self.modulation1(x, latent)), self.projection(x)
        if self.doubles:
            out, shortcut = self.double_then_conv(active, self.conv1), double(shortcut)
        else:
            out = self.conv1(active)
        out = self.conv2(leaky(self.modulation2(out, latent)))
        return torch.addcmul(shortcut, out, self.gain.to(out.dtype))


class SubpixelHead(nn.Module):
    """(B, C, h, w) -> (B, 3, factor * h, factor * w); factor 2, or 4 in two steps with a convolution in between."""

    def __init__(self, channels: int, factor: int, sn: bool) -> None:
        super().__init__()
        assert factor in (2, 4), factor
        self.inner = None
        if factor == 4:
            width = max(8, channels // 3)
            # The second convolution sees neighbours that the first made separately: it avoids a grid of 4 pixels.
            self.inner = nn.ModuleList([conv2d(channels, 4 * width, 3, sn=sn), conv2d(width, width, 3, sn=sn)])
            channels = width
        self.to_pixels = conv2d(channels, 4 * 3, 3, sn=sn)

    @torch.no_grad()
    def start_without_grid(self) -> None:
        """ICNR initialisation (Aitken et al. 2017): the four pixels of a position start equal, without a grid."""
        for conv in [self.to_pixels, *([] if self.inner is None else self.inner[:1])]:
            weight = conv.weight_orig if isinstance(conv, SpectralNorm) else conv.weight
            assert isinstance(weight, nn.Parameter)
            weight.copy_(weight[::4].repeat_interleave(4, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        if self.inner is not None:
            widen, between = self.inner
            x = leaky(between(leaky(F.pixel_shuffle(widen(x), 2))))
        return F.pixel_shuffle(self.to_pixels(x), 2)


class SubpixelGenerator(Generator):
    """Conditional by `concat` only: the class embedding reaches every block with the latent."""

    def __init__(self, spec: ArchSpec) -> None:
        channels = g_channels(spec.img_height, spec.g_conv_dim)
        super().__init__(spec, channels[0])
        latent_dim = self.linear0.in_features
        self.add_block(SubpixelGeneratorBlock(channels[0], channels[0], latent_dim, False, spec), channels[0])
        for in_channels, out_channels in zip(channels[:-1], channels[1:], strict=True):
            block = SubpixelGeneratorBlock(in_channels, out_channels, latent_dim, True, spec)
            self.add_block(block, out_channels)
        self.head = SubpixelHead(channels[-1], pixel_factor(spec.img_height), sn=spec.apply_g_sn)
        init_weights(self, spec.g_init)
        self.head.start_without_grid()
        for layer in self.modules():
            if isinstance(layer, Modulation) and not spec.apply_g_sn:
                nn.init.normal_(layer.linear.weight, std=MODULATION_STD * latent_dim**-0.5)

    def condition(self, latent: Tensor, y: Tensor | None) -> Tensor:
        return latent

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.tanh(to_full_precision(self.head(leaky(self.run_blocks(z, y)))))


class SubpixelDiscriminatorBlock(nn.Module):
    """(B, C_in, h, w) -> (B, C_out, h/2, w/2); the first block's `stem` makes C_in channels of the pixels."""

    def __init__(self, in_channels: int, out_channels: int, spec: ArchSpec, pixels: int = 0) -> None:
        super().__init__()
        sn = spec.apply_d_sn
        self.factor = pixels
        if pixels:
            self.stem = conv2d(3 * pixels**2, in_channels, 3, sn=sn)
        self.conv1 = conv2d(in_channels, out_channels, 3, sn=sn)
        self.conv2 = conv2d(out_channels, out_channels, 3, sn=sn)
        self.projection = conv2d(in_channels, out_channels, 1, sn=sn)
        self.conv_then_halve = ConvThenHalve(fuse=spec.fuse_resampling)

    def forward(self, x: Tensor) -> Tensor:
        if self.factor:
            x = leaky(self.stem(F.pixel_unshuffle(x, self.factor)))
        return leaky(self.conv_then_halve(leaky(self.conv1(x)), self.conv2) + self.projection(halve(x)))


class SubpixelDiscriminator(Discriminator):
    """The logit is the sum of a global one from the last map, and the mean of local ones from the map before it."""

    def __init__(self, spec: ArchSpec) -> None:
        super().__init__(spec)
        count, factor = len(D_WIDTHS), pixel_factor(spec.img_height)
        halvings = min(count, map_count(spec.img_height) + 1)
        channels = [spec.d_conv_dim * width for width in (1, *D_WIDTHS[:halvings])]
        for number, (in_channels, out_channels) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            self.add_block(
                SubpixelDiscriminatorBlock(in_channels, out_channels, spec, 0 if number else factor), out_channels
            )
        shrink = factor * 2**halvings
        self.add_head(channels[-1] * (spec.img_height // shrink) * (spec.img_width // shrink))
        self.local = conv2d(channels[-2], 1, 1, sn=spec.apply_d_sn)
        init_weights(self, spec.d_init)

    def features(self, x: Tensor) -> Tensor:
        """The flattened last map: float32 (B, d)."""
        return to_full_precision(self.feature_maps(x)[-1]).flatten(1)

    def output(self, x: Tensor, y: Tensor | None = None) -> DiscriminatorOutput:
        maps = self.feature_maps(x)
        output = self.head_output(to_full_precision(maps[-1]).flatten(1), y)
        local = to_full_precision(self.local(maps[-2])).mean((1, 2, 3))
        return output._replace(logits=LOGIT_GAIN * (output.logits + local))
