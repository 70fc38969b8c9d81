"""The latents that a generator draws from, and all that is done with them: one interface for every stage.

A latent is one vector z of the prior N(0, I); its middle, 0, is the mean car.
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
        parts: what of a latent may be mixed apart from the rest; one vector has but one part.
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
        """`count` latents of the prior, and labels int64 (N,) or None: a function of (seed, purpose, index)."""
        return streams.latents(purpose, index, count, self.z_dim, self.num_classes)

    def draw_by_seed(self, purpose: str, seeds: list[int]) -> tuple[Tensor, Tensor | None]:
        """A latent for each seed, a function of it alone; labels int64 (N,) or None."""
        drawn = [self.draw(RandomStreams(seed, torch.device("cpu")), purpose, 0, 1) for seed in seeds]
        labels = [y for _, y in drawn if y is not None]
        return torch.cat([z for z, _ in drawn]), torch.cat(labels) if labels else None

    def truncate(self, z: Tensor, truncation: float) -> Tensor:
        """Towards the mean latent (Marchesi 2017): 1 = as it is, 0 = the mean. Fewer odd pictures, less variety."""
        return z if truncation == 1 else torch.lerp(self.mean.to(z), z, truncation)

    def mix(self, a: Tensor, b: Tensor, weight: Tensor, how: str = "linear") -> Tensor:
        """Latents between two, (N, *shape); weight (N,) in [0, 1]: 0 = a, 1 = b.

        `linear` is the weighted average. Half-way between two normal latents its length is 0.7 of theirs, nearer to the
        mean car; `slerp` keeps the length by following the arc (Shoemake 1985).
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
        """One latent out of several, (N, *shape) each; shares above 0, of which only the proportions count.

        One after the other, each with its part of what is there by then: for `linear` the weighted average.
        """
        assert len(latents) == len(shares) > 0 and min(shares) > 0, shares
        mixed, total = latents[0], shares[0]
        for z, share in zip(latents[1:], shares[1:], strict=True):
            total += share
            mixed = self.mix(mixed, z, torch.full((len(z),), share / total), how)
        return mixed

    def prior_distance(self, z: Tensor) -> Tensor:
        """(N,): how far each latent's length is from those of the prior: sqrt(z_dim), give or take 0.7, however many
        directions there are."""
        return (z.norm(dim=1) / self.z_dim**0.5 - 1).square()

    def from_numbers(self, values: list[float]) -> Tensor:
        """(1, *shape) of one latent's numbers. ValueError where they are not as many as it has."""
        if len(values) != self.z_dim:
            raise ValueError(f"{len(values)} numbers, not {self.z_dim}")
        return torch.tensor([values], dtype=torch.float64).float()
