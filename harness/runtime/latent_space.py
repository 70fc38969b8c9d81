"""Drawing, truncating and mixing of latents: one interface for every stage.

A latent is a vector z of the prior N(0, I); its mean, 0, is the mean car.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.runtime.rng import RandomStreams


@dataclass(frozen=True)
class LatentSpace:
    """Tensors of N latents are float32 (N, *shape).

    Attributes:
        num_classes: of the labels drawn beside latents; 0 = none.
        parts: the separately mixable parts of a latent; a single vector has one.
    """

    z_dim: int
    num_classes: int = 0
    parts: tuple[str, ...] = ("all",)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.z_dim,)

    @property
    def mean(self) -> Tensor:
        """float32 `shape`."""
        return torch.zeros(self.shape)

    def draw(self, streams: RandomStreams, purpose: str, index: int, count: int) -> tuple[Tensor, Tensor | None]:
        """`count` latents from the prior, and labels int64 (N,) or None: a function of (seed, purpose, index)."""
        return streams.latents(purpose, index, count, self.z_dim, self.num_classes)

    def draw_by_seed(self, purpose: str, seeds: list[int]) -> tuple[Tensor, Tensor | None]:
        """One latent per seed, a function of that seed only; labels int64 (N,) or None."""
        drawn = [self.draw(RandomStreams(seed, torch.device("cpu")), purpose, 0, 1) for seed in seeds]
        labels = [y for _, y in drawn if y is not None]
        return torch.cat([z for z, _ in drawn]), torch.cat(labels) if labels else None

    def truncate(self, z: Tensor, truncation: float) -> Tensor:
        """The truncation trick (Marchesi 2017): 1 = unchanged, 0 = the mean latent. Fewer artefacts, less variety."""
        return z if truncation == 1 else torch.lerp(self.mean.to(z), z, truncation)

    def mix(self, a: Tensor, b: Tensor, weight: Tensor, how: str = "linear") -> Tensor:
        """Interpolated latents, (N, *shape); weight (N,) in [0, 1]: 0 = a, 1 = b.

        `linear`: halfway between two normal latents the length is 0.7 of theirs, which is nearer to the mean car;
        `slerp` keeps the length (Shoemake 1985).
        """
        weight = weight.to(a)[:, None]
        if how == "linear":
            return torch.lerp(a, b, weight)
        assert how == "slerp", how
        lengths = [z.norm(dim=1, keepdim=True).clamp_min(1e-12) for z in (a, b)]
        from_, to = a / lengths[0], b / lengths[1]
        angle = torch.arccos((from_ * to).sum(1, keepdim=True).clamp(-1, 1))
        sine = torch.sin(angle)
        arc = (torch.sin((1 - weight) * angle) * from_ + torch.sin(weight * angle) * to) / sine.clamp_min(1e-12)
        direction = torch.where(sine.abs() < 1e-4, torch.lerp(from_, to, weight), arc)  # (nearly) parallel: no arc
        return direction * torch.lerp(lengths[0], lengths[1], weight)

    def average(self, latents: list[Tensor], shares: list[float], how: str = "linear") -> Tensor:
        """A weighted mix of latents (N, *shape); positive shares, of which only the ratios matter.

        Mixes them in one after the other by their share of the sum so far: for `linear` the weighted average.
        """
        assert len(latents) == len(shares) > 0 and min(shares) > 0, shares
        mixed, total = latents[0], shares[0]
        for z, share in zip(latents[1:], shares[1:], strict=True):
            total += share
            mixed = self.mix(mixed, z, torch.full((len(z),), share / total), how)
        return mixed

    def prior_distance(self, z: Tensor) -> Tensor:
        """(N,): squared relative difference of each latent's length from sqrt(z_dim), the prior's typical one."""
        return (z.norm(dim=1) / self.z_dim**0.5 - 1).square()

    def from_numbers(self, values: list[float]) -> Tensor:
        """One latent (1, *shape) from its numbers. ValueError for a wrong count."""
        if len(values) != self.z_dim:
            raise ValueError(f"{len(values)} numbers, not {self.z_dim}")
        return torch.tensor([values], dtype=torch.float64).float()
