"""Distances between pictures, in features and in pixels: one differentiable number a picture.

After Zhang et al. 2018 (LPIPS): squared differences of feature maps normalised to unit length at every position.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blend.generator.picture_error import picture_error
from harness.checkpoints.load import LoadedCheckpoint
from harness.errors import UserError
from harness.features.resnet18 import imagenet_state
from harness.networks.autocast import to_full_precision
from harness.networks.resnet18 import ResNet18

# x float (B, 3, H, W) in [-1, 1] → maps of features (B, C, h, w).
FeatureMaps = Callable[[Tensor], list[Tensor]]

PIXEL_SCALES = 3
IMAGENET_STEM_FROM_PX = 100  # smaller pictures shrink to one position after ResNet-18's own stem
UNIT_EPSILON = 1e-10


def make_features(name: str, run: LoadedCheckpoint) -> FeatureMaps:
    """Unit-length feature maps by the name in `inversion.features`; UserError when their weights cannot be loaded.

    Args:
        run: the run that draws; its discriminator was trained on pictures of its style.
    """
    if name == "discriminator":
        return lambda x: [unit_length(m) for m in run.discriminator.feature_maps(x)]
    device = next(run.generator.parameters()).device
    if name == "resnet18":
        return _resnet18_features(device, run.config.data.img_size)
    assert name == "lpips", name
    return _lpips_features(device)


def feature_distance(maps: list[Tensor], target_maps: list[Tensor]) -> Tensor:
    """Squared difference, summed over channels, averaged over positions and maps: (B,)."""
    parts = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(maps, target_maps, strict=True)]
    return torch.stack(parts).mean(0)


def pixel_distance(x: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference, averaged over full, half and quarter size: (B,)."""
    parts = []
    for scale in range(PIXEL_SCALES):
        if scale:
            x, target = F.avg_pool2d(x, 2), F.avg_pool2d(target, 2)
        parts.append(picture_error(x, target))
    return torch.stack(parts).mean(0)


def unit_length(features: Tensor) -> Tensor:
    """(B, C, h, w) with length 1 over C at each position, in full precision; zeros stay zeros."""
    features = to_full_precision(features)
    return features / (features.square().sum(1, keepdim=True) + UNIT_EPSILON).sqrt()


def _resnet18_features(device: torch.device, img_size: tuple[int, int]) -> FeatureMaps:
    network = ResNet18("imagenet" if min(img_size) >= IMAGENET_STEM_FROM_PX else "small")
    network.load_state_dict(imagenet_state("imagenet"))
    network = network.to(device).requires_grad_(False).eval()
    return lambda x: [unit_length(m) for m in network.feature_maps(x)]


def _lpips_features(device: torch.device) -> FeatureMaps:
    """The package's own maps and weights, scaled so that `feature_distance` equals its distance."""
    hint = "allowed discriminator, resnet18, lpips; try discriminator"
    try:
        lpips: Any = importlib.import_module("lpips")
    except (ImportError, RuntimeError, OSError) as error:  # also for a torchvision built for another torch
        raise UserError(
            f"inversion.features: found lpips, whose packages cannot be imported ({error}); {hint}, or install "
            "carforge[metrics]"
        ) from error
    try:
        metric = lpips.LPIPS(net="alex", verbose=False).to(device).requires_grad_(False).eval()
    except OSError as error:  # its AlexNet is downloaded
        raise UserError(f"inversion.features: found lpips, whose weights cannot be loaded ({error}); {hint}") from error
    # (1, C, 1, 1), none negative; times the number of maps, since LPIPS is their sum.
    scales = [(len(metric.lins) * lin.model[-1].weight).sqrt() for lin in metric.lins]

    def maps(x: Tensor) -> list[Tensor]:
        return [unit_length(m) * s for m, s in zip(metric.net(metric.scaling_layer(x)), scales, strict=True)]

    return maps
