"""The SNGAN ResNet generator and discriminator (Miyato et al. 2018), equal to StudioGAN 0.2.0's `models/resnet.py`.

Equal in names, shapes and function. Pictures may have any size H x W = base * 2^k with a base height of 4 to 7; where
the base is 4x4 the networks are StudioGAN's own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.native.attention import SelfAttention
from harness.native.layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    conv2d,
    embedding,
    init_weights,
    linear,
    to_full_precision,
    without_autocast,
)
from harness.native.resample import ConvThenHalve, DoubleThenConv, double, halve

# Channels as multiples of conv_dim, by the number of doublings from base to picture (3 = 32 px, ..., 7 = 512 px).
G_CHANNELS = {
    3: (4, 4, 4, 4),
    4: (16, 8, 4, 2, 1),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}
D_CHANNELS = {
    3: (2, 2, 2, 2),
    4: (1, 2, 4, 8, 16),
    5: (1, 2, 4, 8, 16, 16),
    6: (1, 2, 4, 8, 8, 16, 16),
    7: (1, 1, 2, 4, 8, 8, 16, 16),
}
D_HALVINGS = {3: 2, 4: 4, 5: 5, 6: 6, 7: 7}  # blocks that halve the map; those after them keep its size


@dataclass(frozen=True)
class ArchSpec:
    """Everything that decides the two networks.

    `num_classes` 0 = unconditional. Self-attention stands after block `attn_*_loc` (1 = the first).
    `commute_1x1` computes the 1x1 shortcut convolutions at the smaller size, and `fuse_resampling` the 3x3 ones beside
    a doubling or halving too (`resample.py`): fewer operations for the same function, up to rounding.
    """

    img_height: int
    img_width: int
    z_dim: int = 128
    g_conv_dim: int = 64
    d_conv_dim: int = 64
    num_classes: int = 0
    g_cond_mtd: str | None = None
    d_cond_mtd: str | None = None
    apply_g_sn: bool = False
    apply_d_sn: bool = True
    apply_attn: bool = False
    attn_g_loc: int = 2
    attn_d_loc: int = 1
    g_init: str = "ortho"
    d_init: str = "ortho"
    commute_1x1: bool = True
    fuse_resampling: bool = True

    def __post_init__(self) -> None:
        check_size(self.img_height, self.img_width)
        assert self.g_cond_mtd in (None, "cBN") and self.d_cond_mtd in (None, "PD")
        if (self.g_cond_mtd or self.d_cond_mtd) and self.num_classes < 1:
            raise UserError(
                "model.g_cond_mtd, model.d_cond_mtd: found a conditional model and a set without classes, "
                "allowed null, or a set with classes; try model.g_cond_mtd=null model.d_cond_mtd=null"
            )
        if self.apply_attn:
            for key, value, blocks in (
                ("attn_g_loc", self.attn_g_loc, doublings(self.img_height)),
                ("attn_d_loc", self.attn_d_loc, len(D_CHANNELS[doublings(self.img_height)])),
            ):
                if not 1 <= value <= blocks:
                    raise UserError(f"model.{key}: found {value}, allowed 1 to {blocks}, try model.{key}=1")


def doublings(height: int) -> int:
    """How often the base is doubled to reach `height`; the base height is then 4 to 7."""
    return (height // 4).bit_length() - 1


def check_size(height: int, width: int) -> None:
    count = doublings(height)
    if count not in G_CHANNELS or height % 2**count or width % 2**count or width < 1:
        raise UserError(
            f"data.img_size: found {height}x{width}, allowed a height of 4 to 7 times 2^k with k from 3 to 7 and a "
            f"width that is a multiple of 2^k (32, 64, 96, 128, 256, [128, 224]), try data.img_size=64"
        )


def g_block_channels(height: int, conv_dim: int) -> list[tuple[int, int]]:
    """(in, out) channels of each generator block."""
    widths = [conv_dim * m for m in G_CHANNELS[doublings(height)]]
    return list(zip(widths[:-1], widths[1:], strict=True))


def d_block_channels(height: int, conv_dim: int) -> list[tuple[int, int, bool]]:
    """(in, out, halves the map) of each discriminator block."""
    count = doublings(height)
    widths = [3] + [conv_dim * m for m in D_CHANNELS[count]]
    return [(i, o, n < D_HALVINGS[count]) for n, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True))]


def d_block_count(spec: ArchSpec) -> int:
    """Items in the discriminator's `blocks`, the attention block included: what FreezeD counts."""
    return len(D_CHANNELS[doublings(spec.img_height)]) + int(spec.apply_attn)


# ---- Generator -----------------------------------------------------------------------------------


class GeneratorBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, spec: ArchSpec):
        super().__init__()
        self.conditional = spec.g_cond_mtd == "cBN"
        self.commute = spec.commute_1x1
        self.bn1 = self._norm(in_channels, spec)
        self.bn2 = self._norm(out_channels, spec)
        self.conv2d0 = conv2d(in_channels, out_channels, 1, sn=spec.apply_g_sn)
        self.conv2d1 = conv2d(in_channels, out_channels, 3, sn=spec.apply_g_sn)
        self.conv2d2 = conv2d(out_channels, out_channels, 3, sn=spec.apply_g_sn)
        self.double_then_conv = DoubleThenConv(fuse=spec.fuse_resampling)

    def _norm(self, channels: int, spec: ArchSpec) -> nn.Module:
        if self.conditional:
            return ConditionalBatchNorm2d(channels, spec.num_classes, sn=spec.apply_g_sn)
        return BatchNorm2d(channels)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, 2h, 2w)."""
        labels = (y,) if self.conditional else ()
        out = self.double_then_conv(F.relu(self.bn1(x, *labels)), self.conv2d1)
        out = self.conv2d2(F.relu(self.bn2(out, *labels)))
        # Each upsampled pixel is a copy, so a 1x1 convolution gives the same before it.
        shortcut = double(self.conv2d0(x)) if self.commute else self.conv2d0(double(x))
        return out + shortcut


class Generator(nn.Module):
    """z float32 (B, z_dim), y int64 (B,) or None -> float32 (B, 3, H, W) in [-1, 1]."""

    def __init__(self, spec: ArchSpec):
        super().__init__()
        self.spec = spec
        channels = g_block_channels(spec.img_height, spec.g_conv_dim)
        factor = 2 ** len(channels)
        self.base_shape = (channels[0][0], spec.img_height // factor, spec.img_width // factor)
        area = self.base_shape[1] * self.base_shape[2]
        self.linear0 = linear(spec.z_dim, channels[0][0] * area, sn=spec.apply_g_sn)
        self.blocks = nn.ModuleList()
        for number, (in_channels, out_channels) in enumerate(channels, start=1):
            self.blocks.append(nn.ModuleList([GeneratorBlock(in_channels, out_channels, spec)]))
            if spec.apply_attn and number == spec.attn_g_loc:
                self.blocks.append(nn.ModuleList([SelfAttention(out_channels, sn=spec.apply_g_sn)]))
        self.bn4 = BatchNorm2d(channels[-1][1])
        self.conv2d5 = conv2d(channels[-1][1], 3, 3, sn=spec.apply_g_sn)
        init_weights(self, spec.g_init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.linear0(z).unflatten(1, self.base_shape)
        for group in self.blocks:
            assert isinstance(group, nn.ModuleList)
            block = group[0]
            x = block(x) if isinstance(block, SelfAttention) else block(x, y)
        x = self.conv2d5(F.relu(self.bn4(x)))
        return torch.tanh(to_full_precision(x))


# ---- Discriminator -------------------------------------------------------------------------------


class DiscriminatorBlock(nn.Module):
    """A residual block. The first block of the network sees raw pixels, so it has no activation in front.

    Without spectral norm StudioGAN puts batch norms in: bn1, bn2 before the activations (bn1 after conv2d1 in the
    first block) and bn0 on the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, halves: bool, first: bool, spec: ArchSpec):
        super().__init__()
        sn = spec.apply_d_sn
        self.first, self.halves, self.has_bn, self.commute = first, halves, not sn, spec.commute_1x1
        self.projects = halves or in_channels != out_channels
        if self.projects:
            self.conv2d0 = conv2d(in_channels, out_channels, 1, sn=sn)
        self.conv2d1 = conv2d(in_channels, out_channels, 3, sn=sn)
        self.conv2d2 = conv2d(out_channels, out_channels, 3, sn=sn)
        self.conv_then_halve = ConvThenHalve(fuse=spec.fuse_resampling)
        if self.has_bn:
            if self.projects:
                self.bn0 = BatchNorm2d(in_channels)
            self.bn1 = BatchNorm2d(out_channels if first else in_channels)
            if not first:
                self.bn2 = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h/2, w/2) where it halves, else (B, C_out, h, w)."""
        if self.first:
            out = self.conv2d1(x)
            out = F.relu(self.bn1(out) if self.has_bn else out)
        else:
            active = F.relu(self.bn1(x) if self.has_bn else x)
            if not self.has_bn:
                # StudioGAN's ReLU works in place, and nothing stands between it and the block's input: its
                # shortcut sees the rectified map. Weights trained there need the same here. With batch norm in
                # between the shortcut sees x itself.
                x = active
            out = self.conv2d1(active)
            out = F.relu(self.bn2(out) if self.has_bn else out)
        out = self.conv_then_halve(out, self.conv2d2) if self.halves else self.conv2d2(out)
        return out + self._shortcut(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.projects:
            return x
        if self.first:  # StudioGAN pools first here
            x = halve(x)
            return self.conv2d0(self.bn0(x) if self.has_bn else x)
        x = self.bn0(x) if self.has_bn else x
        if not self.halves:
            return self.conv2d0(x)
        # A 1x1 convolution and a mean over pixels are linear and act on different axes: either may come first.
        return self.conv2d0(halve(x)) if self.commute else halve(self.conv2d0(x))


class Discriminator(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1], y int64 (B,) or None -> logits float32 (B,)."""

    def __init__(self, spec: ArchSpec):
        super().__init__()
        self.spec = spec
        self.frozen_blocks = 0  # set by freeze.freeze_discriminator
        self.blocks = nn.ModuleList()
        channels = d_block_channels(spec.img_height, spec.d_conv_dim)
        for number, (in_channels, out_channels, halves) in enumerate(channels, start=1):
            block = DiscriminatorBlock(in_channels, out_channels, halves, number == 1, spec)
            self.blocks.append(nn.ModuleList([block]))
            if spec.apply_attn and number == spec.attn_d_loc:
                self.blocks.append(nn.ModuleList([SelfAttention(out_channels, sn=spec.apply_d_sn)]))
        self.linear1 = linear(channels[-1][1], 1, sn=spec.apply_d_sn)
        if spec.d_cond_mtd == "PD":
            self.embedding = embedding(spec.num_classes, channels[-1][1], sn=spec.apply_d_sn)
        init_weights(self, spec.d_init)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The output of each block, (B, C, h, w), from the first to the last."""
        maps = []
        for group in self.blocks:
            assert isinstance(group, nn.ModuleList)
            x = group[0](x)
            maps.append(x)
        return maps

    def features(self, x: Tensor) -> Tensor:
        """The last map, rectified and summed over its pixels: float32 (B, d)."""
        for group in self.blocks:
            assert isinstance(group, nn.ModuleList)
            x = group[0](x)
        with without_autocast(x):
            return F.relu(to_full_precision(x)).sum(dim=(2, 3))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.features(x)
        with without_autocast(h):
            logits = self.linear1(h).squeeze(1)
            if self.spec.d_cond_mtd == "PD":
                assert y is not None, "a projection discriminator needs labels"
                logits = logits + (self.embedding(y) * h).sum(1)
            return logits
