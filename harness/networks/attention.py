"""Self-attention over the pixels of a feature map (SAGAN, Zhang et al. 2018), with StudioGAN 0.2.0's parameter
names.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.layers import conv2d


class SelfAttention(nn.Module):
    """x + sigma * attention(x). Keys and values come from the map max-pooled by 2. sigma = 0 at the start: identity."""

    def __init__(self, channels: int, sn: bool):
        super().__init__()
        self.conv1x1_theta = conv2d(channels, channels // 8, 1, sn=sn, bias=False)
        self.conv1x1_phi = conv2d(channels, channels // 8, 1, sn=sn, bias=False)
        self.conv1x1_g = conv2d(channels, channels // 2, 1, sn=sn, bias=False)
        self.conv1x1_attn = conv2d(channels // 2, channels, 1, sn=sn, bias=False)
        self.sigma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        query = self.conv1x1_theta(x).flatten(2).transpose(1, 2)  # (B, HW, C/8)
        key = F.max_pool2d(self.conv1x1_phi(x), 2).flatten(2)  # (B, C/8, HW/4)
        value = F.max_pool2d(self.conv1x1_g(x), 2).flatten(2)  # (B, C/2, HW/4)
        weights = torch.softmax(torch.bmm(query, key), dim=-1)  # (B, HW, HW/4), unscaled as in SAGAN
        read = torch.bmm(value, weights.transpose(1, 2)).unflatten(2, (height, width))
        return x + self.sigma * self.conv1x1_attn(read)
