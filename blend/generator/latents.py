"""Latents: mixing two, and drawing new ones by seed."""

import torch
from torch import Tensor

from harness.errors import UserError
from harness.runtime.rng import Draws

MOST_SEEDS = 10_000


def mix_latents(ordinary: Tensor, concept: Tensor, weight: Tensor, how: str = "linear") -> Tensor:
    """Latents between two, float32 (N, z_dim); weight (N,) in [0, 1]: 0 = ordinary, 1 = concept.

    `linear` is the weighted average. Half-way between two normal latents its length is 0.7 of theirs, nearer to the
    mean car; `slerp` keeps the length by following the arc (Shoemake 1985).
    """
    weight = weight.to(ordinary)[:, None]
    if how == "linear":
        return torch.lerp(ordinary, concept, weight)
    assert how == "slerp", how
    lengths = [z.norm(dim=1, keepdim=True).clamp_min(1e-12) for z in (ordinary, concept)]
    a, b = ordinary / lengths[0], concept / lengths[1]
    angle = torch.arccos((a * b).sum(1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    direction = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / sine.clamp_min(1e-12)
    direction = torch.where(sine.abs() < 1e-4, torch.lerp(a, b, weight), direction)  # (nearly) parallel: no arc
    return direction * torch.lerp(lengths[0], lengths[1], weight)


def average_latents(latents: list[Tensor], shares: list[float], how: str = "linear") -> Tensor:
    """One latent out of several, float32 (N, z_dim) each; shares above 0, of which only the proportions count.

    One after the other, each with its part of what is there by then: for `linear` the weighted average.
    """
    assert len(latents) == len(shares) > 0 and min(shares) > 0, shares
    mixed, total = latents[0], shares[0]
    for z, share in zip(latents[1:], shares[1:], strict=True):
        total += share
        mixed = mix_latents(mixed, z, torch.full((len(z),), share / total), how)
    return mixed


def seeds_to_latents(seeds: list[int], z_dim: int, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Latents float32 (N, z_dim) and labels int64 (N,) or None: each a function of its seed alone."""
    drawn = [Draws(seed, torch.device("cpu")).latents("design", 0, 1, z_dim, num_classes) for seed in seeds]
    labels = [y for _, y in drawn if y is not None]
    return torch.cat([z for z, _ in drawn]), torch.cat(labels) if labels else None


def text_to_seeds(text: str) -> list[int]:
    """`0-31,40` → [0, 1, ..., 31, 40]. UserError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UserError(f"seeds: found {text!r}, allowed numbers and ranges, try --seeds 0-31 or --seeds 3,5,8-12")
        if len(seeds) + int(last or first) - int(first) >= MOST_SEEDS:
            raise UserError(f"seeds: found more than {MOST_SEEDS:,} in {text!r}, allowed fewer, try --seeds 0-31")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: found one twice in {text!r}, allowed each once, try --seeds 0-31")
    return seeds
