"""The block of mobile networks (inverted bottleneck), and batch norm folded into the convolution before it."""

from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedConv(nn.Conv2d):
    """Symmetric padding (torchvision), or TensorFlow's "SAME" padding, which depends on the stride."""

    same = False

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if not self.same:
            return F.conv2d(x, self.weight, self.bias, stride, kernel // 2, 1, self.groups)
        down, across = (max(kernel - (side % stride or stride), 0) for side in x.shape[2:])
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, self.bias, stride, 0, 1, self.groups)


class Bottleneck(nn.Module):
    """Inverted bottleneck with a linear output (Sandler et al. 2018, table 1)."""

    def __init__(self, inside: int, outside: int, expansion: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        width = inside * expansion
        self.expand = PaddedConv(inside, width, 1) if expansion > 1 else None
        self.depthwise = PaddedConv(width, width, kernel, stride, groups=width)
        self.project = PaddedConv(width, outside, 1)
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        narrow = self.project(F.relu6(self.depthwise(wide)))
        return x + narrow if self.adds else narrow


def make_blocks(stages: Iterable[tuple[int, int, int, int, int]], channels: int) -> list[Bottleneck]:
    """Bottlenecks of stages (blocks, kernel, stride of the first, expansion, channels), for an input of `channels`."""
    blocks = []
    for count, kernel, stride, expansion, outside in stages:
        for number in range(count):
            blocks.append(Bottleneck(channels, outside, expansion, stride if number == 0 else 1, kernel))
            channels = outside
    return blocks


def pad_same(network: nn.Module) -> None:
    """Switch TensorFlow's padding on in all layers."""
    for module in network.modules():
        if isinstance(module, PaddedConv):
            module.same = True


def fold_batch_norm(
    weights: Mapping[str, Tensor], name: str, convolution: str, norm: str, epsilon: float
) -> dict[str, Tensor]:
    """`name`.weight and .bias: the layer `convolution` of a state dict with the batch norm `norm` folded into it."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + epsilon).sqrt()
    return {
        f"{name}.weight": weights[f"{convolution}.weight"] * scale[:, None, None, None],
        f"{name}.bias": weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale,
    }
