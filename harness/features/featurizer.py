"""The Featurizer class, and conversion of pictures to network inputs.

In: uint8 (N, H, W, 3) of any size. Out: float32 (N, d).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.images.tensors import pictures_to_tensor

Network = Callable[[Tensor], Tensor]


def array_to_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W) in [-1, 1]."""
    assert pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[3] == 3, pictures.shape
    return pictures_to_tensor(torch.tensor(np.ascontiguousarray(pictures)))


def pictures_to_input(pictures: np.ndarray, size_px: int) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, size_px, size_px) in [-1, 1].

    Pictures are padded to a square by replicating edge rows or columns on both sides, which keeps the car's
    proportions, then resized with antialiased bilinear interpolation.
    """
    x = array_to_tensor(pictures)
    height, width = x.shape[2:]
    if height != width:
        rows, columns = max(width - height, 0), max(height - width, 0)
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), mode="replicate")
    if x.shape[2] != size_px:
        x = F.interpolate(x, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Featurizer:
    """Pictures → features. Equal `sha256` means equal features, so it can serve as a cache key.

    Attributes:
        size_px: side of `network`'s square input.
        sha256: of the weights file.
        network: float32 (B, 3, size_px, size_px) in [-1, 1] → (B, dim), both on the CPU.
        resizer: description of `to_input`, on which the features depend.
        to_input: uint8 (B, H, W, 3), size_px → `network`'s input.
        head: features float32 (N, dim) → logits (N, classes); None without a classifier.
    """

    name: str
    size_px: int
    sha256: str
    dim: int
    network: Network
    resizer: str = "squared bilinear antialiased"
    to_input: Callable[[np.ndarray, int], Tensor] = pictures_to_input
    head: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, pictures: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """uint8 (N, H, W, 3) → float32 (N, dim)."""
        parts = [self.network(x).numpy() for x in batches(pictures, self.size_px, batch_size, self.to_input)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def logits(self, features: np.ndarray) -> np.ndarray | None:
        """Features (N, dim) → logits (N, classes); None without a classifier."""
        return None if self.head is None else self.head(features)


@torch.inference_mode()
def batches(
    pictures: np.ndarray, size_px: int, batch_size: int, to_input: Callable[[np.ndarray, int], Tensor]
) -> Iterator[Tensor]:
    for start in range(0, len(pictures), batch_size):
        yield to_input(pictures[start : start + batch_size], size_px)


def mirror_averaged(network: Network) -> Network:
    """The mean of a network's outputs for a picture and for its mirror image."""
    return lambda x: 0.5 * (network(x) + network(x.flip(3)))


def linear_head(layer: nn.Linear) -> Callable[[np.ndarray], np.ndarray]:
    """A linear layer on arrays: features float32 (N, dim) → logits (N, classes)."""
    weight, bias = layer.weight.cpu().numpy(), layer.bias.cpu().numpy()
    return lambda features: features @ weight.T + bias
