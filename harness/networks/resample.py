"""A 3x3 convolution fused with upsampling before it or downsampling after it: same function, 4/9 of the operations.

Nearest-neighbour upsampling makes four equal pixels, so the nine taps cover only 2x2 different ones: upsampling + 3x3
convolution is one 4x4 transposed convolution of stride 2. A mean over 2x2 pixels is linear, so 3x3 convolution +
downsampling is one 4x4 convolution of stride 2. (Karras et al. 2018 train such fused layers; here the 4x4 kernels are
derived from the 3x3 weights in each forward pass, so parameters and checkpoints do not change.) The large map in
between is never created, which also saves memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.layers import layer_weight

# With fewer positions than this (batch x pixels of the small map) deriving the kernels costs about as much as it saves
# (measured on CPU with 512 and 1024 channels).
FUSE_FROM_PLACES = 1024


class Resampler(nn.Module):
    """Has no parameters and no entries in the state dict."""

    taps: Tensor
    doubles: bool

    def __init__(self, fuse: bool):
        super().__init__()
        self.fuse = fuse
        # In one dimension, tap t of the 4-tap kernel is the sum of the 3-tap weights marked 1 in row t.
        rows = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
        rows = rows.flip(0) if self.doubles else rows / 2
        self.register_buffer("taps", torch.kron(rows, rows), persistent=False)  # (16, 9)

    def _kernel(self, conv: nn.Conv2d) -> Tensor:
        """(O, I, 3, 3) weights of `conv` -> (O, I, 4, 4). Under autocast computed in its precision."""
        weight = layer_weight(conv)
        out, inner = weight.shape[:2]
        if weight.is_contiguous():
            return (weight.reshape(out * inner, 9) @ self.taps.t()).view(out, inner, 4, 4)
        rows = weight.permute(0, 2, 3, 1).reshape(out, 9, inner)  # the memory order of a channels-last weight
        return torch.matmul(self.taps, rows).view(out, 4, 4, inner).permute(0, 3, 1, 2)

    def _is_faster(self, x: Tensor, pixels: int) -> bool:
        return self.fuse and x.shape[0] * pixels >= FUSE_FROM_PLACES


class DoubleThenConv(Resampler):
    """(B, I, h, w) -> (B, O, 2h, 2w): conv of x, upsampled."""

    doubles = True

    def forward(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        if not self._is_faster(x, x.shape[2] * x.shape[3]):
            return conv(double(x))
        return F.conv_transpose2d(x, self._kernel(conv).transpose(0, 1), conv.bias, stride=2, padding=1)


class ConvThenHalve(Resampler):
    """(B, I, h, w) -> (B, O, h/2, w/2): mean of conv(x) over 2x2 pixels."""

    doubles = False

    def forward(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        if not self._is_faster(x, x.shape[2] * x.shape[3] // 4):
            return halve(conv(x))
        return F.conv2d(x, self._kernel(conv), conv.bias, stride=2, padding=1)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)
