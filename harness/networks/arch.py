"""The architecture of generator and discriminator: sizes, conditioning, activations.

Pictures are H x W = base * 2^k with a base height of 4 to 7. `harness/config/checks.py` refuses other values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError

DOUBLINGS = range(3, 8)  # from the base to the picture: 3 = 32 px, ..., 7 = 512 px
Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "ReLU": F.relu,
    "Leaky_ReLU": lambda x: F.leaky_relu(x, 0.2),
    "Mish": F.mish,
}


@dataclass(frozen=True)
class ArchSpec:
    """All that the two networks depend on.

    `num_classes` 0 = unconditional. Self-attention follows block `attn_*_loc` (1 = the first). `g_act_fn` and
    `d_act_fn` apply to the conv backbone; the ResNet uses ReLU. `commute_1x1` computes the 1x1 shortcut convolutions at
    the smaller size, `fuse_resampling` also the 3x3 ones next to a doubling or halving (`resample.py`): fewer
    operations for the same function, up to rounding.
    """

    img_height: int
    img_width: int
    backbone: str = "resnet"
    z_dim: int = 128
    g_conv_dim: int = 64
    d_conv_dim: int = 64
    num_classes: int = 0
    g_cond_mtd: str | None = None
    d_cond_mtd: str | None = None
    class_embed_dim: int = 50
    apply_g_sn: bool = False
    apply_d_sn: bool = True
    g_act_fn: str = "ReLU"
    d_act_fn: str = "ReLU"
    apply_attn: bool = False
    attn_g_loc: int = 2
    attn_d_loc: int = 1
    g_init: str = "ortho"
    d_init: str = "ortho"
    commute_1x1: bool = True
    fuse_resampling: bool = True

    def __post_init__(self) -> None:
        count, size = doublings(self.img_height), (self.img_height, self.img_width)
        assert count in DOUBLINGS and min(size) > 0 and not any(side % 2**count for side in size), size
        assert self.backbone in ("resnet", "conv", "subpixel")
        assert self.g_cond_mtd in (None, "cBN", "concat") and self.d_cond_mtd in (None, "PD", "concat", "acgan")
        if (self.g_cond_mtd or self.d_cond_mtd) and self.num_classes < 1:
            raise UserError(
                "model.g_cond_mtd, model.d_cond_mtd: found a conditional model and a set without classes, "
                "allowed null, or a set with classes; try model.g_cond_mtd=null model.d_cond_mtd=null"
            )


def doublings(height: int) -> int:
    """Doublings from a base height of 4 to 7 to `height`."""
    return (height // 4).bit_length() - 1
