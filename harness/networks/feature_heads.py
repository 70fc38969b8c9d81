"""A discriminator on a frozen network's features, with a small head for each feature map (Sauer et al. 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.autocast import to_full_precision
from harness.networks.layers import conv2d, init_weights

WIDTH = 64
SLOPE = 0.2
LOGIT_GAIN = 4.0  # with spectral norm logits would hardly reach the hinge's margins


class FeatureHeads(nn.Module):
    """Maps (B, C_i, h_i, w_i) -> logits float32 (heads, B), each the mean over a map's positions."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.ModuleList([conv2d(count, WIDTH, 1, sn=True), conv2d(WIDTH, WIDTH, 3, sn=True),
                                                   conv2d(WIDTH, 1, 1, sn=True)]) for count in channels])  # fmt: skip
        init_weights(self, "ortho")

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits = []
        for head, x in zip(self.heads, maps, strict=True):
            assert isinstance(head, nn.ModuleList)
            for layer in head[:-1]:
                x = F.leaky_relu(layer(x), SLOPE)
            logits.append(to_full_precision(head[-1](x)).mean((1, 2, 3)))
        return LOGIT_GAIN * torch.stack(logits)
