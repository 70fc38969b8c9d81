"""Designs between an ordinary and a concept car: the two dials, and solving for a target futurism.

`latent_weight` is the concept car's share of the latent, `style` the fine-tuned generator's share of the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator
from harness.errors import UserError

COARSE_POINTS = 21  # of the path; odd, so that the bend is one of them
BISECTIONS = 6  # of an interval between two of these: down to about one percent of style
Score = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, 3) → (N,)


@dataclass(frozen=True)
class DialPosition:
    """Where both dials stand: in [0, 1], style in whole percents."""

    latent_weight: float
    style: float


@dataclass(frozen=True)
class LatentPairs:
    """Latents of ordinary and concept cars, float32 (N, z_dim) each, and the ordinary ones' labels (N,) or None.

    Attributes:
        concept: None for cars without a second parent (drawn by seed), which only the style changes.
        restyled: the ordinary latents at style 1, (N, z_dim); None = the same at every style.
    """

    ordinary: Tensor
    concept: Tensor | None
    y: Tensor | None = None
    restyled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ordinary)

    def take(self, rows: list[int]) -> "LatentPairs":
        concept, y, restyled = (None if t is None else t[rows] for t in (self.concept, self.y, self.restyled))
        return LatentPairs(self.ordinary[rows], concept, y, restyled)


def dial_position(intensity: float, style: float | None = None) -> DialPosition:
    """The position at an intensity, which is the latent weight; the style follows it unless given."""
    return DialPosition(intensity, _whole_percent(intensity if style is None else style))


def path_position(t: float, latent_share: float) -> DialPosition:
    """A point of the path from the ordinary to the concept car, t in [0, 1], that keeps the ordinary car longest.

    In the first half the style goes from 0 to 1 and the latent weight to `latent_share`; in the second half the latent
    weight goes on to 1.
    """
    first, second = min(1.0, 2 * t), max(0.0, 2 * t - 1)
    style = _whole_percent(first)
    return DialPosition(latent_share * style + (1 - latent_share) * second, style)


def _whole_percent(style: float) -> float:
    return round(style * STYLE_STEPS) / STYLE_STEPS


def draw_designs(
    generator: StyledGenerator, pairs: LatentPairs, positions: list[DialPosition], interpolation: str
) -> np.ndarray:
    """One design for each pair and its position, uint8 (N, H, W, 3)."""
    assert len(positions) == len(pairs), (len(positions), len(pairs))
    z = pairs.ordinary
    if pairs.restyled is not None:
        z = torch.lerp(z, pairs.restyled, torch.tensor([[float(position.style)] for position in positions]))
    if pairs.concept is not None:
        weights = torch.tensor([float(position.latent_weight) for position in positions])
        z = generator.latents.mix(z, pairs.concept, weights, interpolation)
    pictures = np.empty((len(pairs), generator.height, generator.width, 3), np.uint8)
    for style in sorted({position.style for position in positions}):
        rows = [k for k, position in enumerate(positions) if position.style == style]
        pictures[rows] = generator.draw(z[rows], style, None if pairs.y is None else pairs.y[rows])
    return pictures


@dataclass(frozen=True)
class Solutions:
    """For each pair the position with the target score, or None where it is out of reach.

    Attributes:
        score_range: (N, 2), lowest and highest score on the path.
    """

    positions: list[DialPosition | None]
    score_range: np.ndarray

    @property
    def found(self) -> dict[int, DialPosition]:
        """Pair → position, of the pairs that reach the score."""
        return {k: position for k, position in enumerate(self.positions) if position is not None}


@dataclass(frozen=True)
class DialPath:
    """The paths of N pairs, whose scores are taken at `COARSE_POINTS` points once.

    Without a second parent a path has its first half alone, in which the style moves.
    """

    generator: StyledGenerator
    pairs: LatentPairs
    score: Score
    latent_share: float
    interpolation: str

    @cached_property
    def points(self) -> np.ndarray:
        whole = np.linspace(0, 1, COARSE_POINTS)
        return whole if self.pairs.concept is not None else whole[: COARSE_POINTS // 2 + 1]

    @cached_property
    def scores(self) -> np.ndarray:
        """float64 (N, points)."""
        everyone = list(range(len(self.pairs)))
        return np.stack([self.scores_at(everyone, np.full(len(everyone), t)) for t in self.points], 1)

    def scores_at(self, rows: list[int], t: np.ndarray) -> np.ndarray:
        """Of these pairs, each at its own point t: (len(rows),)."""
        positions = [path_position(float(each), self.latent_share) for each in t]
        return self.score(draw_designs(self.generator, self.pairs.take(rows), positions, self.interpolation))

    def solve(self, target: np.ndarray) -> Solutions:
        """For each pair the first point of its path whose score is its target, (N,).

        The first interval between two points that contains the target is bisected `BISECTIONS` times.
        """
        points, scores = self.points, self.scores
        crossing = (scores[:, :-1] - target[:, None]) * (scores[:, 1:] - target[:, None]) <= 0
        rows = np.flatnonzero(crossing.any(1))
        begin = crossing[rows].argmax(1)
        low, high, target = points[begin], points[begin + 1], target[rows]
        rising = scores[rows, begin] <= target
        best, best_score = _nearer(low, scores[rows, begin], high, scores[rows, begin + 1], target)
        for _ in range(BISECTIONS if len(rows) else 0):
            middle = 0.5 * (low + high)
            found = self.scores_at(rows.tolist(), middle)
            best, best_score = _nearer(best, best_score, middle, found, target)
            upward = (found < target) == rising
            low, high = np.where(upward, middle, low), np.where(upward, high, middle)
        positions: list[DialPosition | None] = [None] * len(self.pairs)
        for row, t in zip(rows.tolist(), best, strict=True):
            positions[row] = path_position(float(t), self.latent_share)
        return Solutions(positions, np.stack([scores.min(1), scores.max(1)], 1))


def _nearer(
    a: np.ndarray, a_score: np.ndarray, b: np.ndarray, b_score: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    first = np.abs(a_score - target) <= np.abs(b_score - target)
    return np.where(first, a, b), np.where(first, a_score, b_score)


def out_of_reach(solutions: Solutions, target: float, names: list[str]) -> list[str]:
    """A line for each pair that does not reach this score, with its range. UserError when none does."""
    lines = [
        f"{name}: out of reach, {low:.0f} to {high:.0f}"
        for name, position, (low, high) in zip(names, solutions.positions, solutions.score_range, strict=True)
        if position is None
    ]
    if len(lines) == len(names):
        low, high = solutions.score_range[:, 0].min(), solutions.score_range[:, 1].max()
        nearest = solutions.score_range.flat[np.abs(solutions.score_range - target).argmin()]
        who = names[0] if len(names) == 1 else f"these {len(names)} pairs"
        raise UserError(
            f"futurism: found {target:g}, allowed {low:.0f} to {high:.0f} for {who}; "
            f"try --futurism {nearest:.0f} (make: FUTURISM={nearest:.0f}), or other parents"
        )
    return lines
