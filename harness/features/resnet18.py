"""ResNet-18 (He et al. 2016, §4.1) without its classifier, in torchvision's parameter names; ImageNet weights for it.

In: pictures float32 (B, 3, H, W) in [-1, 1]. Out: feature maps. torchvision itself is not needed.
"""

from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError, reason_of
from harness.features.download_weights import Published, frozen
from harness.features.featurizer import Featurizer, Normalise, both_ways

# ResNet18_Weights.IMAGENET1K_V1 of torchvision.
WEIGHTS_FILE = "resnet18-f37072fd.pth"
WEIGHTS_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
PUBLISHED = Published(
    (WEIGHTS_FILE,), f"https://download.pytorch.org/models/{WEIGHTS_FILE}", {WEIGHTS_FILE: WEIGHTS_SHA256}
)
STAGES = 4
IMAGENET_WIDTH = 64


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) → (B, C_out, h / stride, w / stride), rounded up."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class ResNet18(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] → float (B, 8 * width, h, w).

    h, w are a 32nd of H, W, with the small stem a 16th; always rounded up.

    Args:
        stem: imagenet = convolution and max-pooling, each halving the picture; small = without the pooling. The
            weights have the same shapes either way.
        width: channels of the first stage; ImageNet weights need 64.
    """

    def __init__(self, stem: str = "imagenet", width: int = IMAGENET_WIDTH) -> None:
        super().__init__()
        assert stem in ("imagenet", "small"), stem
        self.width = width
        self.scale = Normalise()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
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
        x = self.pool(F.relu(self.bn1(self.conv1(self.scale(x)))))
        maps = []
        for number in range(STAGES):
            x = getattr(self, f"layer{number + 1}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_maps(x)[-1]


# ---- ImageNet weights -------------------------------------------------------------------------------------------


def imagenet_state(path_or_name: str | Path) -> dict[str, Tensor]:
    """State dict for `ResNet18(width=64)`, checked name by name and shape by shape.

    Args:
        path_or_name: a file in torchvision's names (.pth, .pt or .safetensors; a classifier in it is left out), or
            "imagenet" = torchvision's own, which is looked for in $CARFORGE_WEIGHTS and in torch's hub cache and
            otherwise downloaded there, once.
    """
    path = PUBLISHED.read()[0] if str(path_or_name) == "imagenet" else Path(path_or_name).expanduser()
    if not path.is_file():
        raise UserError(f"ImageNet weights: found no file {path}, allowed a file, or imagenet for torchvision's own")
    state = _read_state(path)
    with torch.device("meta"):
        expected = ResNet18().state_dict()
    for name in expected:
        if name.endswith("num_batches_tracked") and name not in state:  # files older than torch 0.4.1 have none
            state[name] = torch.zeros((), dtype=torch.int64)
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    for name in sorted(set(expected) | set(state)):
        shapes = [tuple(part[name].shape) if name in part else "nothing" for part in (state, expected)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{path}: is no ResNet-18 in torchvision's names: found {shapes[0]} as {name}, allowed {shapes[1]}; "
                "try imagenet (torchvision's own)"
            )
    return state


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage is answered with errors of many kinds
        raise UserError(
            f"{path}: cannot be read as weights ({reason_of(error)}); try another file, or imagenet"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of weights; try another file, or imagenet")
    return state


def load_network() -> ResNet18:
    """With ImageNet weights, for looking only."""
    with torch.device("meta"):  # no draw of initial weights, so that torch's generator stays where it was
        network = ResNet18()
    network.load_state_dict(imagenet_state("imagenet"), assign=True)
    return frozen(network)


def load_resnet18() -> Featurizer:
    """The last stage, averaged over its places, alike for a picture and its mirror image."""
    features = both_ways(load_network())
    return Featurizer("resnet18", 224, WEIGHTS_SHA256, 8 * IMAGENET_WIDTH, lambda x: features(x).mean((2, 3)))
