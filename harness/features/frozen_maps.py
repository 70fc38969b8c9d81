"""Frozen feature maps that training looks through: what compares a picture with its redrawing, and what is judged."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.features.car_reader import load_reader
from harness.features.download_weights import frozen
from harness.features.efficientnet_lite0 import CHANNELS, find_weights, load_efficientnet_lite0
from harness.messages import say

ROWS = 64  # pictures are seen at so many rows at most
LITE0_BLOCKS = (2, 4, 10, 14)  # at strides 4, 8, 16 and 32


@dataclass(frozen=True)
class FrozenMaps:
    """x float32 (B, 3, H, W) in [-1, 1] -> maps (B, C_i, h_i, w_i), differentiable in x.

    Attributes:
        sha256: of the weights file.
        channels: C_i of each map.
    """

    name: str
    sha256: str
    channels: tuple[int, ...]
    network: Callable[[Tensor], list[Tensor]]

    def __call__(self, x: Tensor) -> list[Tensor]:
        if x.shape[2] > ROWS:
            x = F.avg_pool2d(x, x.shape[2] // ROWS)
        return self.network(x)


def load_frozen_maps(name: str, device: torch.device) -> FrozenMaps:
    """By the name of `reconstruction.features`.

    Where the package of efficientnet_lite0 is missing, one line says so and the reader serves.
    """
    if name == "efficientnet_lite0" and find_weights() is None:
        say("efficientnet_lite0: its package is not installed, the reader serves; try `make setup`")
        name = "reader"
    if name == "reader":
        reader = load_reader()
        trunk = reader.network.trunk
        layers = [module for module in trunk if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.ReLU)]
        network = frozen(nn.Sequential(*layers)).to(device)
        kept = [index for index, layer in enumerate(layers) if isinstance(layer, nn.ReLU)][::2]

        def maps(x: Tensor) -> list[Tensor]:
            found = []
            for index, layer in enumerate(network):
                x = layer(x)
                if index in kept:
                    found.append(x)
            return found

        channels = [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)][::2]
        return FrozenMaps("reader", reader.sha256, tuple(channels), maps)
    net, sha256 = load_efficientnet_lite0(LITE0_BLOCKS)
    return FrozenMaps(name, sha256, tuple(CHANNELS[block] for block in LITE0_BLOCKS), net.to(device))
