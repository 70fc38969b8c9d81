"""The view classifier's own small network, trained by `python -m datasets sorter train`; the repository has its
weights.

Input: pictures of 64 px. Its embedding is joined by hand-made features (`layout`), edges by direction and colours in
each cell, which do not depend on training with drawn pictures.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.features.car_reader import conv_trunk
from harness.features.weights_file import read_tensors, tensors_to_bytes

VIEW_NET_PATH = Path(__file__).parents[1] / "weights" / "sorter.safetensors"
REMEDY = "put the repository's file back, or train one with `python -m datasets sorter train`"
CELLS, DIRECTIONS, COLOUR_CELLS = 8, 8, 4


class ViewNet(nn.Module):
    """Seven convolutions, an embedding of their 4 x 4 cells, linear heads."""

    SIZE_PX = 64
    DIM = 160
    SIDED = DIM + CELLS**2 * DIRECTIONS + 3 * COLOUR_CELLS**2
    LAYERS = ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 96, 1), (96, 128, 2), (128, 48, 1))

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.trunk = conv_trunk(self.LAYERS, self.SIZE_PX, self.DIM)
        self.heads = nn.Linear(self.DIM, outputs)

    def embed(self, x: Tensor) -> Tensor:
        """float32 (B, 3, 64, 64) in [-1, 1] → (B, 160)."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, outputs)."""
        return self.heads(self.trunk(x))


def layout(x: Tensor) -> Tensor:
    """Edges by direction in 8 x 8 cells (as in HOG, Dalal and Triggs 2005, but signed), and colours in 4 x 4.

    x float32 (B, 3, S, S) in [-1, 1] → (B, 8 * 8 * 8 + 3 * 4 * 4).
    """
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2], grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    strength = (across.square() + down.square() + 1e-8).sqrt()
    turn = torch.atan2(down, across) / (2 * torch.pi) * DIRECTIONS
    centres = torch.arange(DIRECTIONS, device=x.device).reshape(1, -1, 1, 1)
    gap = (turn - centres + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2
    edges = F.adaptive_avg_pool2d((1 - gap.abs()).clamp(min=0) * strength, CELLS)
    around = F.avg_pool2d(edges.sum(1, keepdim=True), 3, 1, 1, count_include_pad=False)
    edges = (edges / (around + 0.02)).sqrt()
    return torch.cat([edges.flatten(1), F.adaptive_avg_pool2d(x, COLOUR_CELLS).flatten(1)], 1)


# ---- weights ----------------------------------------------------------------------------------------------------


def view_net_to_bytes(network: ViewNet, meta: dict[str, Any]) -> bytes:
    """Weights file in half precision; `meta`: how it was trained."""
    return tensors_to_bytes("sorter_net", network.state_dict(), {**meta, "outputs": network.heads.out_features})


def load_view_net(path: Path = VIEW_NET_PATH) -> tuple[ViewNet, str]:
    """The network with the repository's weights, and the file's sha256. UserError when it is missing or damaged."""
    tensors, meta, sha256 = read_tensors(path, "sorter_net", "the view classifier's network", REMEDY)
    network = ViewNet(meta["outputs"])
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False), sha256
