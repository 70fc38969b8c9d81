"""ResNet-18 (He et al. 2016, §4.1) without its classifier, in torchvision's parameter names.

In: pictures float32 (B, 3, H, W) in [-1, 1]. Out: feature maps. torchvision itself is not needed.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.layers import BatchNorm2d, Normalise

STAGES = 4
IMAGENET_WIDTH = 64
EPS = 1e-5  # of torchvision's batch norms
HALVINGS = {"imagenet": 5, "small": 4, "unshuffle4": 5, "unshuffle2": 4}  # of a picture, by stem


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(out_channels, eps=EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(out_channels, eps=EPS)
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, BatchNorm2d(out_channels, eps=EPS))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) → (B, C_out, h / stride, w / stride), rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class ResNet18(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] → float (B, 8 * width, h, w).

    h, w are H, W halved HALVINGS[stem] times, always rounded up.

    Args:
        stem: imagenet = convolution and max-pooling, each of stride 2; small = without the pooling (same weight
            shapes); unshuffle4, unshuffle2 = pixel unshuffle by 4 or 2, then a 3x3 convolution.
        width: channels of the first stage; 64 for ImageNet weights.
    """

    def __init__(self, stem: str = "imagenet", width: int = IMAGENET_WIDTH) -> None:
        super().__init__()
        assert stem in HALVINGS, stem
        self.stem, self.width = stem, width
        self.scale = Normalise()
        if stem.startswith("unshuffle"):
            factor = int(stem[-1])
            self.unshuffle: nn.Module = nn.PixelUnshuffle(factor)
            self.conv1 = nn.Conv2d(3 * factor**2, width, 3, 1, 1, bias=False)
        else:
            self.unshuffle = nn.Identity()
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(width, eps=EPS)
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        channels = width
        for number in range(STAGES):
            out_channels, stride = width << number, 1 if number == 0 else 2
            blocks = BasicBlock(channels, out_channels, stride), BasicBlock(out_channels, out_channels, 1)
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
            channels = out_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The outputs of the four stages, from the first (B, width, h, w) to the last (B, 8 * width, h / 8, w / 8)."""
        x = self.pool(F.relu(self.bn1(self.conv1(self.unshuffle(self.scale(x))))))
        maps = []
        for number in range(STAGES):
            x = getattr(self, f"layer{number + 1}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_maps(x)[-1]
