"""ImageNet weights for ResNet-18, and its features."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from harness.checkpoints.wrappers import without_wrappers
from harness.config.paths import expand_path
from harness.errors import UserError, reason_of
from harness.features.download_weights import PublishedWeights, frozen
from harness.features.featurizer import Featurizer, mirror_averaged
from harness.networks.resnet18 import IMAGENET_WIDTH, ResNet18

# ResNet18_Weights.IMAGENET1K_V1 of torchvision.
WEIGHTS_FILE = "resnet18-f37072fd.pth"
WEIGHTS_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
WEIGHTS = PublishedWeights(
    (WEIGHTS_FILE,), f"https://download.pytorch.org/models/{WEIGHTS_FILE}", {WEIGHTS_FILE: WEIGHTS_SHA256}
)


def imagenet_state(path_or_name: str | Path) -> dict[str, Tensor]:
    """State dict for `ResNet18(width=64)`, with names and shapes checked.

    Args:
        path_or_name: a file with torchvision's names (.pth, .pt or .safetensors; its classifier is ignored), or
            "imagenet" = torchvision's own, found in $CARFORGE_WEIGHTS or torch's hub cache, or downloaded once.
    """
    path = WEIGHTS.read()[0] if str(path_or_name) == "imagenet" else expand_path(str(path_or_name), "encoder.weights")
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
                f"{path}: is not a ResNet-18 with torchvision's names: found {shapes[0]} as {name}, allowed "
                f"{shapes[1]}; try imagenet (torchvision's own)"
            )
    return state


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(
            f"{path}: cannot be read as weights ({reason_of(error)}); try another file, or imagenet"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: has no state dict of weights; try another file, or imagenet")
    return without_wrappers(state)


def load_network() -> ResNet18:
    """The frozen network with ImageNet weights."""
    with torch.device("meta"):  # does not draw initial weights, so torch's generator is not advanced
        network = ResNet18()
    network.load_state_dict(imagenet_state("imagenet"), assign=True)
    return frozen(network)


def load_resnet18() -> Featurizer:
    """The last stage, averaged over positions and over the picture and its mirror image."""
    features = mirror_averaged(load_network())
    return Featurizer("resnet18", 224, WEIGHTS_SHA256, 8 * IMAGENET_WIDTH, lambda x: features(x).mean((2, 3)))
