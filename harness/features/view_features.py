"""What the sorter of `datasets` reads: features of looks, those of the picture beside those of its mirror image.

In: looks, uint8 (N, S, S, 3). Out: float32 (N, even + 2 * sided) in three parts: `even` is alike for a picture and its
mirror image; the two `sided` parts change places when the picture is mirrored.
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
from harness.features.view_net import SorterNet, layout, load_sorter_net

# ImageNet's classes that are whole cars, numbered from 0: beach wagon, cab, convertible, jeep, limousine, minivan,
# pickup, racer, sports car.
CAR_CLASSES = (436, 468, 511, 609, 627, 656, 717, 751, 817)

BATCH_LOOKS = 4


@dataclass(frozen=True)
class LookFeaturizer:
    """Looks → features. Equal `sha256` means equal features.

    Attributes:
        look_px: side of a look.
        sha256: of the weights and of what is taken from the network.
        even, sided: numbers in each part.
        network: float32 (B, 3, look_px, look_px) in [-1, 1] → (B, even), (B, sided); the even part not yet averaged.
        car_share: even parts float32 (N, even) → float32 (N,) in [0, 1], how much of the probability of all of
            ImageNet's classes is on cars; None for a network that knows no classes.
    """

    name: str
    look_px: int
    sha256: str
    even: int
    sided: int
    network: Callable[[Tensor], tuple[Tensor, Tensor]]
    car_share: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def dim(self) -> int:
        return self.even + 2 * self.sided

    def __call__(self, looks: np.ndarray) -> np.ndarray:
        """uint8 (N, look_px, look_px, 3) → float32 (N, dim), the same bits on any number of cores.

        Few at once, and a thread of its own for them: what a layer makes then stays in the core's cache.
        """
        assert looks.dtype == np.uint8 and looks.shape[1:] == (self.look_px, self.look_px, 3), looks.shape
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(self._rows, np.split(looks, range(BATCH_LOOKS, len(looks), BATCH_LOOKS))))
        finally:
            torch.set_num_threads(threads)
        return np.concatenate(parts)

    @torch.inference_mode()
    def _rows(self, looks: np.ndarray) -> np.ndarray:
        if not len(looks):
            return np.zeros((0, self.dim), np.float32)
        x = pictures_to_input(looks, self.look_px)
        (even, here), (mirrored_even, mirrored) = self.network(x), self.network(x.flip(3))
        return torch.cat([0.5 * (even + mirrored_even), here, mirrored], 1).numpy()

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Of features (N, dim): what mirror images share (N, even), the picture's part and its mirror image's part."""
        return np.split(features, [self.even, self.even + self.sided], 1)


LOOK_FEATURIZERS = ("reader", "mobilenet_v2", "resnet18", "clip")


def at_hand(name: str) -> bool:
    """Whether the weights are on this machine, damaged or not."""
    if name in ("reader", "clip"):
        return name == "reader" or clip.find_folder() is not None
    return (mobilenet_v2 if name == "mobilenet_v2" else resnet18).WEIGHTS.find() is not None


def load_look_featurizer(name: str, may_download: bool = True) -> LookFeaturizer:
    """UserError when the weights are missing or damaged."""
    if name == "mobilenet_v2":
        return _mobilenet_v2(may_download)
    return {"reader": _embedded, "resnet18": _resnet18, "clip": _clip}[name]()


def _embedded() -> LookFeaturizer:
    network, sha256 = load_sorter_net()

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = network.embed(x)
        return x.new_zeros(len(x), 0), torch.cat([embedding, layout(x)], 1)

    return LookFeaturizer("reader", SorterNet.SIZE_PX, sha256, 0, SorterNet.SIDED, parts)


def _mobilenet_v2(may_download: bool) -> LookFeaturizer:
    network, sha256 = mobilenet_v2.load_network(may_download)
    head = linear_head(network.classifier)
    shift = network.classifier.out_features - 1000  # a class for "background" before all others
    columns = [number + shift for number in CAR_CLASSES]

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        middle, last, embedding = network.maps(x)
        return embedding, torch.cat([_cells(middle, 4), _cells(last, 3)], 1)

    def car_share(even: np.ndarray) -> np.ndarray:
        logits = head(even)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return (shares[:, columns].sum(1) / shares.sum(1)).astype(np.float32)

    taken = _sha256(sha256, "embedding, block 13 at 4 x 4, block 16 at 3 x 3")
    return LookFeaturizer("mobilenet_v2", mobilenet_v2.SIZE_PX, taken, 1280, 96 * 16 + 160 * 9, parts, car_share)


def _resnet18() -> LookFeaturizer:
    network = resnet18.load_network()

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        maps = network.feature_maps(x)
        return maps[3].mean((2, 3)), torch.cat([_cells(maps[2], 3), _cells(maps[3], 2)], 1)

    taken = _sha256(resnet18.WEIGHTS_SHA256, "layer4, layer3 at 3 x 3, layer4 at 2 x 2")
    return LookFeaturizer("resnet18", 224, taken, 512, 256 * 9 + 512 * 4, parts)


def _clip() -> LookFeaturizer:
    network, sha256 = clip.load_network()
    taken = _sha256(sha256, "patches, mean and 4 x 4")
    return LookFeaturizer("clip", network.size_px, taken, network.width, network.width * clip.CELLS**2, network)


def _cells(maps: Tensor, count: int) -> Tensor:
    """(B, C, h, w) averaged in count x count cells: (B, C * count²)."""
    return F.adaptive_avg_pool2d(maps, count).flatten(1)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
