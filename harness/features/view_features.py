"""Features for the view classifier of `datasets`, of each picture and of its mirror image.

In: uint8 (N, S, S, 3). Out: float32 (N, even + 2 * sided) in three parts. `even` is the same for a picture and its
mirror image; the two `sided` parts swap when the picture is mirrored.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.features import clip, mobilenet_v2, resnet18
from harness.features.featurizer import linear_head, pictures_to_input
from harness.features.view_net import ViewNet, layout, load_view_net

# ImageNet classes of whole cars, numbered from 0: beach wagon, cab, convertible, jeep, limousine, minivan,
# pickup, racer, sports car.
CAR_CLASSES = (436, 468, 511, 609, 627, 656, 717, 751, 817)

BATCH_SIZE = 4


@dataclass(frozen=True)
class ViewFeatures:
    """Square pictures → features. Equal `sha256` means equal features.

    Attributes:
        input_px: side of the pictures.
        sha256: of the weights and of the choice of feature maps.
        even, sided: dimensions of each part.
        network: float32 (B, 3, input_px, input_px) in [-1, 1] → (B, even), (B, sided); the even part not yet averaged.
        car_share: even parts float32 (N, even) → float32 (N,) in [0, 1], the probability of ImageNet's car classes
            together; None for a network without a classifier.
    """

    name: str
    input_px: int
    sha256: str
    even: int
    sided: int
    network: Callable[[Tensor], tuple[Tensor, Tensor]]
    car_share: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def dim(self) -> int:
        return self.even + 2 * self.sided

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 (N, input_px, input_px, 3) → float32 (N, dim), the same bits on any number of cores.

        Small batches, one thread each: the activations of a layer then stay in the core's cache.
        """
        assert pictures.dtype == np.uint8 and pictures.shape[1:] == (self.input_px, self.input_px, 3), pictures.shape
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(self._batch, np.split(pictures, range(BATCH_SIZE, len(pictures), BATCH_SIZE))))
        finally:
            torch.set_num_threads(threads)
        return np.concatenate(parts)

    @torch.inference_mode()
    def _batch(self, pictures: np.ndarray) -> np.ndarray:
        if not len(pictures):
            return np.zeros((0, self.dim), np.float32)
        x = pictures_to_input(pictures, self.input_px)
        (even, sided), (mirrored_even, mirrored) = self.network(x), self.network(x.flip(3))
        return torch.cat([0.5 * (even + mirrored_even), sided, mirrored], 1).numpy()

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Features (N, dim) → even part (N, even), sided part of the picture and of its mirror image (N, sided)."""
        return np.split(features, [self.even, self.even + self.sided], 1)


VIEW_FEATURIZERS = ("reader", "mobilenet_v2", "resnet18", "clip")


def has_weights(name: str) -> bool:
    """Whether the weights are on this machine; they may be damaged."""
    if name in ("reader", "clip"):
        return name == "reader" or clip.find_folder() is not None
    return (mobilenet_v2 if name == "mobilenet_v2" else resnet18).WEIGHTS.find() is not None


def load_view_features(name: str, may_download: bool = True) -> ViewFeatures:
    """UserError when the weights are missing or damaged."""
    if name == "mobilenet_v2":
        return _mobilenet_v2(may_download)
    return {"reader": _shipped_net, "resnet18": _resnet18, "clip": _clip}[name]()


def _shipped_net() -> ViewFeatures:
    network, sha256 = load_view_net()

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = network.embed(x)
        return x.new_zeros(len(x), 0), torch.cat([embedding, layout(x)], 1)

    return ViewFeatures("reader", ViewNet.SIZE_PX, sha256, 0, ViewNet.SIDED, parts)


def _mobilenet_v2(may_download: bool) -> ViewFeatures:
    network, sha256 = mobilenet_v2.load_network(may_download)
    head = linear_head(network.classifier)
    shift = network.classifier.out_features - 1000  # TensorFlow's has "background" first
    columns = [number + shift for number in CAR_CLASSES]

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        middle, last, embedding = network.maps(x)
        return embedding, torch.cat([_cells(middle, 4), _cells(last, 3)], 1)

    def car_share(even: np.ndarray) -> np.ndarray:
        logits = head(even)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return (shares[:, columns].sum(1) / shares.sum(1)).astype(np.float32)

    sha256 = _sha256(sha256, "embedding, block 13 at 4 x 4, block 16 at 3 x 3")
    return ViewFeatures("mobilenet_v2", mobilenet_v2.SIZE_PX, sha256, 1280, 96 * 16 + 160 * 9, parts, car_share)


def _resnet18() -> ViewFeatures:
    network = resnet18.load_network()

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        maps = network.feature_maps(x)
        return maps[3].mean((2, 3)), torch.cat([_cells(maps[2], 3), _cells(maps[3], 2)], 1)

    sha256 = _sha256(resnet18.WEIGHTS_SHA256, "layer4, layer3 at 3 x 3, layer4 at 2 x 2")
    return ViewFeatures("resnet18", 224, sha256, 512, 256 * 9 + 512 * 4, parts)


def _clip() -> ViewFeatures:
    network, sha256 = clip.load_network()
    sha256 = _sha256(sha256, "patches, mean and 4 x 4")
    return ViewFeatures("clip", network.size_px, sha256, network.width, network.width * clip.CELLS**2, network)


def _cells(maps: Tensor, count: int) -> Tensor:
    """(B, C, h, w) averaged over count x count cells: (B, C * count²)."""
    return F.adaptive_avg_pool2d(maps, count).flatten(1)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
