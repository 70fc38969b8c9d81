"""Frozen feature maps for the reconstruction loss and the feature discriminator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.features.car_reader import load_reader
from harness.features.download_weights import frozen
from harness.features.efficientnet_lite0 import CHANNELS, find_weights, load_efficientnet_lite0
from harness.messages import log

ROWS = 64  # larger pictures are downsampled to this height
LITE0_BLOCKS = (2, 4, 10, 14)  # at strides 4, 8, 16 and 32


class FrozenMaps(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] -> maps (B, C_i, h_i, w_i), differentiable in x.

    Attributes:
        sha256: of the weights file.
        channels: C_i of each map.
    """

    def __init__(self, name: str, sha256: str, channels: tuple[int, ...], network: nn.Module) -> None:
        super().__init__()
        self.name, self.sha256, self.channels, self.network = name, sha256, channels, network

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network(F.avg_pool2d(x, x.shape[2] // ROWS) if x.shape[2] > ROWS else x)


class ReaderMaps(nn.Module):
    """The rectified outputs of every second convolution of the factor reader."""

    def __init__(self, trunk: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList([part for part in trunk if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.ReLU)])
        self.channels = tuple(part.out_channels for part in trunk if isinstance(part, nn.Conv2d))[::2]

    def forward(self, x: Tensor) -> list[Tensor]:
        rectified = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                rectified.append(x)
        return rectified[::2]


def load_frozen_maps(name: str, device: torch.device) -> FrozenMaps:
    """Feature maps for `reconstruction.features`. Falls back to the reader, with a message, if the package of
    efficientnet_lite0 is missing."""
    if name == "efficientnet_lite0" and find_weights() is None:
        log("efficientnet_lite0: its package is not installed, using the reader instead; try `make setup`")
        name = "reader"
    if name == "reader":
        reader = load_reader()
        maps = frozen(ReaderMaps(reader.network.trunk))
        return FrozenMaps(name, reader.sha256, maps.channels, maps).to(device)
    network, sha256 = load_efficientnet_lite0(LITE0_BLOCKS)
    return FrozenMaps(name, sha256, tuple(CHANNELS[block] for block in LITE0_BLOCKS), network).to(device)
