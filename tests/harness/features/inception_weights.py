"""A file of Inception weights that is right in everything but its numbers: they are drawn."""

from pathlib import Path

import torch
from torch import Tensor

from harness.features.inception import InceptionNet


def draw_weights(seed: int = 0) -> dict[str, Tensor]:
    """All that the published file holds, drawn so that activations neither fade nor grow on their way."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in InceptionNet().state_dict().items()}
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=rng)
        if name.endswith("conv.weight"):
            noise *= (2 / shape[1:].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            noise = 1 + 0.1 * noise.clamp(-2, 2)
        elif name.endswith("num_batches_tracked"):
            continue  # the published file is older than this buffer
        else:
            noise *= 0.1
        weights[name] = noise
    return weights


def write_weights(path: Path, seed: int = 0) -> Path:
    """In the format of torch 1.4 and before, of whose time the published file is."""
    torch.save(draw_weights(seed), path, _use_new_zipfile_serialization=False)
    return path
