"""MobileNetV2 (Sandler et al. 2018, table 2) at width 1.0, batch norm folded into the convolutions; ImageNet weights.

In: pictures float32 (B, 3, H, W) in [-1, 1]. Out: feature maps, an embedding, class logits. torchvision is not needed.
Two published files are supported. They differ in padding, input scaling, and a "background" class.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.features.download_weights import PublishedWeights, fill_network
from harness.features.featurizer import Featurizer, linear_head, mirror_averaged
from harness.features.inverted_bottleneck import PaddedConv, fold_batch_norm, make_blocks, pad_same
from harness.networks.layers import Normalise

SIZE_PX, DIM = 224, 1280
FOLDED_NAME = "mobilenet_v2_1.0_224_imagenet_folded.pt"  # TensorFlow's 8-bit file as floats; not downloadable
TORCHVISION_NAME = "mobilenet_v2-b0353104.pth"  # MobileNet_V2_Weights.IMAGENET1K_V1
WEIGHTS = PublishedWeights(
    (TORCHVISION_NAME, FOLDED_NAME),
    f"https://download.pytorch.org/models/{TORCHVISION_NAME}",
    {TORCHVISION_NAME: "b0353104", FOLDED_NAME: "cbee47c5"},
)
# Blocks, kernel, stride of the first, expansion, channels: the paper's table 2.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 3, 2, 6, 32), (4, 3, 2, 6, 64), (3, 3, 1, 6, 96), (3, 3, 2, 6, 160),
          (1, 3, 1, 6, 320))  # fmt: skip
KEPT_BLOCKS = (12, 15)  # the last ones with 96 and with 160 channels
EPSILON = 1e-5  # of torchvision's batch norms


class MobileNetV2(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] → embedding (B, 1280). `classifier` maps it to logits.

    Args:
        classes: 1001 with "background" first (TensorFlow), or 1000.
        same: TensorFlow's padding and input range, otherwise torchvision's.
    """

    def __init__(self, classes: int = 1001, same: bool = True) -> None:
        super().__init__()
        self.stem = PaddedConv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(make_blocks(STAGES, 32))
        self.head = PaddedConv(STAGES[-1][-1], DIM, 1)
        self.classifier = nn.Linear(DIM, classes)
        if same:
            pad_same(self)
        self.scale = nn.Identity() if same else Normalise()

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 96, H/16, W/16), (B, 160, H/32, W/32), and the embedding (B, 1280)."""
        x = F.relu6(self.stem(self.scale(x)))
        kept = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in KEPT_BLOCKS:
                kept.append(x)
        return kept[0], kept[1], F.relu6(self.head(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[2]


def load_network(may_download: bool = True) -> tuple[MobileNetV2, str]:
    """The network with ImageNet weights, and the sha256 of its file."""
    path, content, sha256 = WEIGHTS.read(may_download)
    folded = path.name == FOLDED_NAME
    with torch.device("meta"):
        network = MobileNetV2(1001 if folded else 1000, folded)
    rename = dict if folded else fold_torchvision
    return fill_network(network, content, path, "MobileNetV2", WEIGHTS.remedy(), rename), sha256


def fold_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict with our names and folded batch norms."""
    folded = {"classifier.weight": weights["classifier.1.weight"], "classifier.bias": weights["classifier.1.bias"]}

    def fold(name: str, convolution: str, norm: str) -> None:
        folded.update(fold_batch_norm(weights, name, convolution, norm, EPSILON))

    fold("stem", "features.0.0", "features.0.1")
    fold("head", "features.18.0", "features.18.1")
    for number in range(sum(stage[0] for stage in STAGES)):
        block = f"features.{number + 1}.conv"
        if number:
            fold(f"blocks.{number}.expand", f"{block}.0.0", f"{block}.0.1")
        step = 1 if number else 0
        fold(f"blocks.{number}.depthwise", f"{block}.{step}.0", f"{block}.{step}.1")
        fold(f"blocks.{number}.project", f"{block}.{step + 1}", f"{block}.{step + 2}")
    return folded


def load_mobilenet_v2() -> Featurizer:
    """The embedding, averaged with the mirror image's; logits of ImageNet's classes."""
    network, sha256 = load_network()
    head = linear_head(network.classifier)
    return Featurizer("mobilenet_v2", SIZE_PX, sha256, DIM, mirror_averaged(network), head=head)
