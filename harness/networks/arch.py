"""What decides the two networks: sizes, conditioning, activations.

Pictures are H x W = base * 2^k with a base height of 4 to 7.
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
    """Everything that decides the two networks.

    `num_classes` 0 = unconditional. Self-attention stands after block `attn_*_loc` (1 = the first). `g_act_fn` and
    `d_act_fn` are for the conv backbone; the ResNet has ReLU. `commute_1x1` computes the 1x1 shortcut convolutions at
    the smaller size, and `fuse_resampling` the 3x3 ones beside a doubling or halving too (`resample.py`): fewer
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
        check_size(self.img_height, self.img_width)
        assert self.backbone in ("resnet", "conv", "subpixel")
        assert self.g_cond_mtd in (None, "cBN", "concat") and self.d_cond_mtd in (None, "PD", "concat", "acgan")
        if (self.g_cond_mtd or self.d_cond_mtd) and self.num_classes < 1:
            raise UserError(
                "model.g_cond_mtd, model.d_cond_mtd: found a conditional model and a set without classes, "
                "allowed null, or a set with classes; try model.g_cond_mtd=null model.d_cond_mtd=null"
            )
        if self.apply_attn:
            for key, value, blocks in (
                ("attn_g_loc", self.attn_g_loc, attention_places(self.backbone, self.img_height)[0]),
                ("attn_d_loc", self.attn_d_loc, attention_places(self.backbone, self.img_height)[1]),
            ):
                if not 1 <= value <= blocks:
                    raise UserError(f"model.{key}: found {value}, allowed 1 to {blocks}, try model.{key}=1")


def doublings(height: int) -> int:
    """How often the base is doubled to reach `height`; the base height is then 4 to 7."""
    return (height // 4).bit_length() - 1


def check_size(height: int, width: int) -> None:
    count = doublings(height)
    if count not in DOUBLINGS or height % 2**count or width % 2**count or width < 1:
        raise UserError(
            f"data.img_size: found {height}x{width}, allowed a height of 4 to 7 times 2^k with k from 3 to 7 and a "
            f"width that is a multiple of 2^k (32, 64, 96, 128, 256, [128, 224]), try data.img_size=64"
        )


def attention_places(backbone: str, height: int) -> tuple[int, int]:
    """After how many blocks of G and of D attention may stand: all, but conv's last block of G, which makes pixels."""
    count = doublings(height)
    return (count, count + 1) if backbone == "resnet" else (count - 1, count)
