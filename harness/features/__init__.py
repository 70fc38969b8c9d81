"""Feature extractors for cleaning, design measures, metrics and classifiers.

In: uint8 (N, H, W, 3) of any size. Out: float32 (N, d); from the factor reader also the factors of a picture.
"""

from collections.abc import Callable

import torch

from harness.errors import UserError
from harness.features.car_reader import READER_PATH, Reader, ReaderNet, load_reader, output_names, reader_to_bytes
from harness.features.featurizer import Featurizer, pictures_to_input
from harness.features.inception import load_inception
from harness.features.mobilenet_v2 import load_mobilenet_v2
from harness.features.resnet18 import load_resnet18

__all__ = [
    "READER_PATH",
    "Featurizer",
    "Reader",
    "ReaderNet",
    "load_featurizer",
    "load_reader",
    "output_names",
    "pictures_to_input",
    "reader_to_bytes",
]
# Inception runs on the caller's device; the others are small and stay on the CPU.
FEATURIZERS: dict[str, Callable[[str | torch.device], Featurizer]] = {
    "reader": lambda device: load_reader().featurizer,
    "inception": lambda device: load_inception(device=device),
    "mobilenet_v2": lambda device: load_mobilenet_v2(),
    "resnet18": lambda device: load_resnet18(),
}


def load_featurizer(name: str = "reader", device: str | torch.device = "cpu") -> Featurizer:
    """The featurizer of this name. UserError when there is none, or its weights are missing or damaged."""
    if name not in FEATURIZERS:
        raise UserError(f"featurizer: found {name!r}, allowed {', '.join(FEATURIZERS)}")
    return FEATURIZERS[name](device)
