"""Base classes of generators and discriminators: class conditioning, blocks, D's head.

Conditioning, by `g_cond_mtd` and `d_cond_mtd`: cBN (conditional batch norm), PD (projection, Miyato & Koyama 2018),
concat (a class embedding appended to the latent, and to D's features: it adds the same to the logit of every picture of
a class), acgan (an auxiliary classifier, Odena et al. 2017).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.networks.arch import ArchSpec, doublings
from harness.networks.attention import SelfAttention
from harness.networks.autocast import without_autocast
from harness.networks.layers import BatchNorm2d, ConditionalBatchNorm2d, embed, embedding, linear
from harness.runtime.latent_space import LatentSpace


class DiscriminatorOutput(NamedTuple):
    """Logits float32 (B,), features float32 (B, d), and acgan's class logits (B, classes)."""

    logits: Tensor
    features: Tensor
    class_logits: Tensor | None

    def chunk(self) -> tuple["DiscriminatorOutput", "DiscriminatorOutput"]:
        """The outputs of both halves of a batch."""
        parts = [(None, None) if part is None else part.chunk(2) for part in self]
        real, fake = zip(*parts, strict=True)
        return DiscriminatorOutput(*real), DiscriminatorOutput(*fake)


def batch_norm(channels: int, spec: ArchSpec) -> nn.Module:
    """A generator's batch norm, conditional with cBN."""
    if spec.g_cond_mtd == "cBN":
        return ConditionalBatchNorm2d(channels, spec.num_classes, sn=spec.apply_g_sn)
    return BatchNorm2d(channels)


class Generator(nn.Module):
    """z float32 (B, z_dim), y -> float32 (B, 3, H, W) in [-1, 1].

    y: None, classes int64 (B,), or weights of a mix of classes, float32 (B, num_classes).
    """

    def __init__(self, spec: ArchSpec, base_channels: int):
        super().__init__()
        self.spec = spec
        self.latents = LatentSpace(spec.z_dim, spec.num_classes)
        factor = 2 ** doublings(spec.img_height)
        self.base_shape = (base_channels, spec.img_height // factor, spec.img_width // factor)
        concat = spec.g_cond_mtd == "concat"
        inputs = spec.z_dim + (spec.class_embed_dim if concat else 0)  # the latent comes first
        self.linear0 = linear(inputs, math.prod(self.base_shape), sn=spec.apply_g_sn)
        if concat:
            self.embedding = embedding(spec.num_classes, spec.class_embed_dim, sn=spec.apply_g_sn)
        self.blocks = nn.ModuleList()

    def add_block(self, block: nn.Module, channels: int) -> None:
        """Appends a block, followed by attention over its `channels` if the spec has it there."""
        self.blocks.append(nn.ModuleList([block]))
        if self.spec.apply_attn and len(self.blocks) == self.spec.attn_g_loc:
            self.blocks.append(nn.ModuleList([SelfAttention(channels, sn=self.spec.apply_g_sn)]))

    def run_blocks(self, z: Tensor, y: Tensor | None) -> Tensor:
        """(B, z_dim), labels -> the last block's map, through linear layer, base map (C, h, w) and blocks."""
        assert y is not None or self.spec.g_cond_mtd is None, "a conditional generator needs labels"
        if self.spec.g_cond_mtd == "concat" and y is not None:
            z = torch.cat([z, embed(self.embedding, y)], dim=1)
        x, condition = self.linear0(z).unflatten(1, self.base_shape), self.condition(z, y)
        for group in self.blocks:
            assert isinstance(group, nn.ModuleList)
            block = group[0]
            x = block(x) if isinstance(block, SelfAttention) else block(x, condition)
        return x

    def condition(self, latent: Tensor, y: Tensor | None) -> Tensor | None:
        """The second input of each block: the labels. `latent` is z, with concat followed by the class embedding."""
        return y


class Discriminator(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1], y int64 (B,) or None -> logits float32 (B,)."""

    def __init__(self, spec: ArchSpec):
        super().__init__()
        self.spec = spec
        self.frozen_blocks = 0  # set by freeze_discriminator
        self.blocks = nn.ModuleList()

    def add_block(self, block: nn.Module, channels: int) -> None:
        """Appends a block, followed by attention over its `channels` if the spec has it there."""
        self.blocks.append(nn.ModuleList([block]))
        if self.spec.apply_attn and len(self.blocks) == self.spec.attn_d_loc:
            self.blocks.append(nn.ModuleList([SelfAttention(channels, sn=self.spec.apply_d_sn)]))

    def add_head(self, features: int) -> None:
        spec, sn = self.spec, self.spec.apply_d_sn
        extra = spec.class_embed_dim if spec.d_cond_mtd == "concat" else 0
        self.linear1 = linear(features + extra, 1, sn=sn)
        if spec.d_cond_mtd in ("PD", "concat"):
            self.embedding = embedding(spec.num_classes, extra or features, sn=sn)
        elif spec.d_cond_mtd == "acgan":
            self.linear2 = linear(features, spec.num_classes, sn=sn)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The output of each block, (B, C, h, w), from the first to the last."""
        maps = []
        for group in self.blocks:
            assert isinstance(group, nn.ModuleList)
            x = group[0](x)
            maps.append(x)
        return maps

    def features(self, x: Tensor) -> Tensor:
        """float32 (B, d), the input of the head."""
        raise NotImplementedError

    def output(self, x: Tensor, y: Tensor | None = None) -> DiscriminatorOutput:
        return self.head_output(self.features(x), y)

    def head_output(self, h: Tensor, y: Tensor | None) -> DiscriminatorOutput:
        """Features float32 (B, d), labels -> output of the head."""
        how = self.spec.d_cond_mtd
        with without_autocast(h):
            assert how in (None, "acgan") or y is not None, "a conditional discriminator needs labels"
            if how == "concat":
                return DiscriminatorOutput(self.linear1(torch.cat([h, self.embedding(y)], dim=1)).squeeze(1), h, None)
            logits = self.linear1(h).squeeze(1)
            if how == "PD":
                logits = logits + (self.embedding(y) * h).sum(1)
            return DiscriminatorOutput(logits, h, self.linear2(h) if how == "acgan" else None)

    def logits_by_class(self, h: Tensor) -> Tensor:
        """Features float32 (B, d) -> logits (B, num_classes) of the projection discriminator under every label."""
        assert self.spec.d_cond_mtd == "PD"
        every_class = torch.arange(self.spec.num_classes, device=h.device)
        with without_autocast(h):
            return self.linear1(h) + h @ self.embedding(every_class).t()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.output(x, y).logits
