"""Features of pictures for every stage that needs them: cleaning, measures of a design, metrics, brands.

In: uint8 (N, H, W, 3) of any size. Out: float32 (N, d), and what the factor reader sees in a picture.
"""

import torch

from harness.errors import UserError
from harness.features.car_reader import READER_PATH, Reader, ReaderNet, load_reader, output_names, reader_to_bytes
from harness.features.featurizer import Featurizer, pictures_to_input
from harness.features.inception import load_inception
from harness.features.mobilenet_v2 import load_mobilenet_v2
from harness.features.resnet18 import load_resnet18

__all__ = [
    "FEATURIZERS",
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
FEATURIZERS = ("reader", "inception", "mobilenet_v2", "resnet18")


def load_featurizer(name: str = "reader", device: str | torch.device = "cpu") -> Featurizer:
    """The featurizer of this name. UserError when there is none, or its weights are missing or damaged.

    `device` is where Inception is computed; the others are small and stay on the CPU."""
    if name not in FEATURIZERS:
        raise UserError(f"featurizer: found {name!r}, allowed {', '.join(FEATURIZERS)}")
    if name == "inception":
        return load_inception(device=device)
    if name == "reader":
        return load_reader().featurizer
    return load_mobilenet_v2() if name == "mobilenet_v2" else load_resnet18()
