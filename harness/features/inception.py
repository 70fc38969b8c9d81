"""The Inception network (2015-12-05) of published FID and Inception Scores, ported to PyTorch, as a Featurizer.

In: uint8 (N, H, W, 3). Out: features (N, 2048) of its last pooling, and from them logits (N, 1008).
Pictures are resized to 299 px as in StudioGAN 0.2.0 (src/metrics/inception_network.py): bilinear, not antialiased,
align_corners=False, values in [-1, 1], without keeping the aspect ratio. The only difference: our pictures are uint8,
as saved, where StudioGAN 0.2.0 uses the generator's float values. Always computed in fp32, as published figures.
"""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.features.download_weights import PublishedWeights, fill_network
from harness.features.featurizer import Featurizer, array_to_tensor, linear_head
from harness.networks.autocast import full_precision

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS = PublishedWeights(
    (INCEPTION_FILE,),
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION_FILE}",
    {INCEPTION_FILE: "6726825d"},  # from the file's name, as in torch.hub
    advice="; or use it anyway with CARFORGE_INCEPTION={path}",
)
SIZE_PX, FEATURES, CLASSES = 299, 2048, 1008

# ---- the network ------------------------------------------------------------------------------------------------
# A mixed block has parallel chains of layers. A layer is (name, channels, kernel[, stride]); a chain may start with a
# pooling, and end in a fork: two layers with the same input.

Kernel = int | tuple[int, int]
AVERAGE, MAX, MAX_HALVED = "average", "max", "max halved"


def _mixed_a(pool: int) -> tuple:
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        (AVERAGE, ("branch_pool", pool, 1)),
    )


def _mixed_c(width: int) -> tuple:
    across, down = (1, 7), (7, 1)
    double = [("branch7x7dbl_1", width, 1)]
    double += [(f"branch7x7dbl_{k}", width, down if k % 2 == 0 else across) for k in (2, 3, 4)]
    return (
        (("branch1x1", 192, 1),),
        (("branch7x7_1", width, 1), ("branch7x7_2", width, across), ("branch7x7_3", 192, down)),
        (*double, ("branch7x7dbl_5", 192, across)),
        (AVERAGE, ("branch_pool", 192, 1)),
    )


def _mixed_e(pooling: str) -> tuple:
    across, down = (1, 3), (3, 1)
    fork = (("branch3x3_2a", 384, across), ("branch3x3_2b", 384, down))
    double_fork = (("branch3x3dbl_3a", 384, across), ("branch3x3dbl_3b", 384, down))
    return (
        (("branch1x1", 320, 1),),
        (("branch3x3_1", 384, 1), fork),
        (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), double_fork),
        (pooling, ("branch_pool", 192, 1)),
    )


HALVE_B = (
    (("branch3x3", 384, 3, 2),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)),
    (MAX_HALVED,),
)
HALVE_D = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, 2),
    ),
    (MAX_HALVED,),
)
# The last block has max pooling in the network of these weights, average pooling in others.
MIXED = {
    "Mixed_5b": (192, _mixed_a(32)),
    "Mixed_5c": (256, _mixed_a(64)),
    "Mixed_5d": (288, _mixed_a(64)),
    "Mixed_6a": (288, HALVE_B),
    "Mixed_6b": (768, _mixed_c(128)),
    "Mixed_6c": (768, _mixed_c(160)),
    "Mixed_6d": (768, _mixed_c(160)),
    "Mixed_6e": (768, _mixed_c(192)),
    "Mixed_7a": (768, HALVE_D),
    "Mixed_7b": (1280, _mixed_e(AVERAGE)),
    "Mixed_7c": (2048, _mixed_e(MAX)),
}
POOLINGS = {
    AVERAGE: lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    MAX: lambda x: F.max_pool2d(x, 3, 1, 1),
    MAX_HALVED: lambda x: F.max_pool2d(x, 3, 2),
}


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inside: int, outside: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inside, outside, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Parallel chains of layers, concatenated."""

    def __init__(self, inside: int, chains: tuple) -> None:
        super().__init__()
        self.chains = chains
        for chain in chains:
            width = inside
            for step in (step for step in chain if not isinstance(step, str)):
                layers = (step,) if isinstance(step[0], str) else step
                for name, outside, kernel, *stride in layers:
                    setattr(self, name, ConvNorm(width, outside, kernel, *stride, padded=not stride))
                width = layers[0][1]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(chain, x) for chain in self.chains], 1)

    def _run(self, chain: tuple, x: Tensor) -> Tensor:
        for step in chain:
            if isinstance(step, str):
                x = POOLINGS[step](x)
            elif isinstance(step[0], str):
                x = getattr(self, step[0])(x)
            else:
                x = torch.cat([getattr(self, layer[0])(x) for layer in step], 1)
        return x


class InceptionNet(nn.Module):
    """float32 (B, 3, 299, 299) in [-1, 1] → features (B, 2048). `fc` maps them to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, padded=False)
        for name, (inside, chains) in MIXED.items():
            setattr(self, name, Mixed(inside, chains))
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, 2)
        for name in MIXED:
            x = getattr(self, name)(x)
        return x.mean((2, 3))


def pictures_to_299(pictures: np.ndarray, size_px: int = SIZE_PX) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, size_px, size_px) in [-1, 1], as in the module's docstring."""
    x = F.interpolate(array_to_tensor(pictures), (size_px, size_px), mode="bilinear", align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


# ---- weights ----------------------------------------------------------------------------------------------------


def load_inception(path: Path | None = None, device: str | torch.device = "cpu") -> Featurizer:
    """Inception with the published weights, named "inception"; downloaded once if not found.

    `path` or $CARFORGE_INCEPTION name other weights of this shape. Unless they are the published ones, the name is
    "inception-unverified", and the distance is not called FID.
    """
    chosen = path or os.environ.get("CARFORGE_INCEPTION")
    if chosen:
        found = Path(chosen).expanduser()
        content, sha256 = WEIGHTS.read_content(found)
    else:
        found, content, sha256 = WEIGHTS.read()
    with torch.device("meta"):
        network = InceptionNet()
    network = fill_network(network, content, found, "Inception weights", WEIGHTS.remedy()).to(device)
    verified = sha256.startswith(WEIGHTS.sha256[INCEPTION_FILE])

    def features(x: Tensor) -> Tensor:
        with full_precision(), torch.inference_mode(), torch.autocast(torch.device(device).type, enabled=False):
            return network(x.to(device)).cpu()

    name, resizer = "inception" if verified else "inception-unverified", f"bilinear {SIZE_PX}"
    head = linear_head(network.fc)
    return Featurizer(name, SIZE_PX, sha256, FEATURES, features, resizer, pictures_to_299, head)
