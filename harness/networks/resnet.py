"""The SNGAN ResNet generator and discriminator (Miyato et al. 2018), as in StudioGAN 0.2.0's `models/resnet.py`.

Same names, shapes and function for a base of 4x4; here pictures of any size H x W = base * 2^k, base height 4 to 7, are
possible.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.arch import ArchSpec, doublings
from harness.networks.autocast import to_full_precision, without_autocast
from harness.networks.base import Discriminator, Generator, batch_norm
from harness.networks.layers import BatchNorm2d, conv2d, init_weights
from harness.networks.resample import ConvThenHalve, DoubleThenConv, double, halve

# Channels as multiples of conv_dim, by the doublings from base to picture (3 = 32 px, ..., 7 = 512 px).
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
D_HALVINGS = {3: 2, 4: 4, 5: 5, 6: 6, 7: 7}  # blocks that downsample; later blocks keep the size


def g_block_channels(height: int, conv_dim: int) -> list[tuple[int, int]]:
    """(in, out) channels of each generator block."""
    widths = [conv_dim * m for m in G_CHANNELS[doublings(height)]]
    return list(zip(widths[:-1], widths[1:], strict=True))


def d_block_channels(height: int, conv_dim: int) -> list[tuple[int, int, bool]]:
    """(in, out, downsamples) of each discriminator block."""
    count = doublings(height)
    widths = [3] + [conv_dim * m for m in D_CHANNELS[count]]
    return [(i, o, n < D_HALVINGS[count]) for n, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True))]


# ---- Generator -----------------------------------------------------------------------------------


class ResNetGeneratorBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, spec: ArchSpec):
        super().__init__()
        self.conditional = spec.g_cond_mtd == "cBN"
        self.commute = spec.commute_1x1
        self.bn1 = batch_norm(in_channels, spec)
        self.bn2 = batch_norm(out_channels, spec)
        self.conv2d0 = conv2d(in_channels, out_channels, 1, sn=spec.apply_g_sn)
        self.conv2d1 = conv2d(in_channels, out_channels, 3, sn=spec.apply_g_sn)
        self.conv2d2 = conv2d(out_channels, out_channels, 3, sn=spec.apply_g_sn)
        self.double_then_conv = DoubleThenConv(fuse=spec.fuse_resampling)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, 2h, 2w)."""
        labels = (y,) if self.conditional else ()
        out = self.double_then_conv(F.relu(self.bn1(x, *labels)), self.conv2d1)
        out = self.conv2d2(F.relu(self.bn2(out, *labels)))
        # Upsampling copies pixels, so the 1x1 convolution can come first.
        shortcut = double(self.conv2d0(x)) if self.commute else self.conv2d0(double(x))
        return out + shortcut


class ResNetGenerator(Generator):
    def __init__(self, spec: ArchSpec):
        channels = g_block_channels(spec.img_height, spec.g_conv_dim)
        super().__init__(spec, channels[0][0])
        for in_channels, out_channels in channels:
            self.add_block(ResNetGeneratorBlock(in_channels, out_channels, spec), out_channels)
        self.bn4 = BatchNorm2d(channels[-1][1])
        self.conv2d5 = conv2d(channels[-1][1], 3, 3, sn=spec.apply_g_sn)
        init_weights(self, spec.g_init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.conv2d5(F.relu(self.bn4(self.run_blocks(z, y))))
        return torch.tanh(to_full_precision(x))


# ---- Discriminator -------------------------------------------------------------------------------


class ResNetDiscriminatorBlock(nn.Module):
    """A residual block. The first block has pixels as input, so no activation in front.

    Without spectral norm StudioGAN adds batch norms: bn1, bn2 before the activations (bn1 after conv2d1 in the first
    block) and bn0 on the shortcut.
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
        norm = nn.Identity if sn else BatchNorm2d
        self.bn0 = norm(in_channels) if self.projects else nn.Identity()
        self.bn1 = norm(out_channels if first else in_channels)
        self.bn2 = nn.Identity() if first else norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h/2, w/2) if it downsamples, else (B, C_out, h, w)."""
        if self.first:
            out = F.relu(self.bn1(self.conv2d1(x)))
        else:
            active = F.relu(self.bn1(x))
            if not self.has_bn:
                # StudioGAN's in-place ReLU changes the block's input, so its shortcut sees the rectified map;
                # weights trained there need the same. With batch norm in between the shortcut sees x itself.
                x = active
            out = F.relu(self.bn2(self.conv2d1(active)))
        out = self.conv_then_halve(out, self.conv2d2) if self.halves else self.conv2d2(out)
        return out + self._shortcut(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.projects:
            return x
        if self.first:  # StudioGAN pools first here
            return self.conv2d0(self.bn0(halve(x)))
        x = self.bn0(x)
        if not self.halves:
            return self.conv2d0(x)
        # A 1x1 convolution and a mean over pixels commute.
        return self.conv2d0(halve(x)) if self.commute else halve(self.conv2d0(x))


class ResNetDiscriminator(Discriminator):
    def __init__(self, spec: ArchSpec):
        super().__init__(spec)
        channels = d_block_channels(spec.img_height, spec.d_conv_dim)
        for number, (in_channels, out_channels, halves) in enumerate(channels, start=1):
            self.add_block(ResNetDiscriminatorBlock(in_channels, out_channels, halves, number == 1, spec), out_channels)
        self.add_head(channels[-1][1])
        init_weights(self, spec.d_init)

    def features(self, x: Tensor) -> Tensor:
        """The last map, rectified and summed over its pixels: float32 (B, d)."""
        x = self.feature_maps(x)[-1]
        with without_autocast(x):
            return F.relu(to_full_precision(x)).sum(dim=(2, 3))
