"""Designs between an ordinary and a concept car: the two dials, and solving for a futurism that is asked for.

`weight` is the concept car's share of the latent (the first seed's intensity), `style` the fine-tuned generator's share
of the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator
from harness.errors import UserError

COARSE_POINTS = 21  # of the path that a solution is looked for on; odd, so that the bend is one of them
FINE_STEPS = 6  # halvings of the interval that was found: a style's percent at the end
Score = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, 3) → (N,)


@dataclass(frozen=True)
class Setting:
    """Where a design stands: both in [0, 1], style in whole percents."""

    weight: float
    style: float


@dataclass(frozen=True)
class Pairs:
    """Latents of ordinary and concept cars, float32 (N, z_dim) each, and the ordinary ones' labels (N,) or None.

    Attributes:
        concept: None for cars without a second parent (drawn by seed), which only the style moves.
        restyled: where the style takes the ordinary latents, (N, z_dim); None = nowhere.
    """

    ordinary: Tensor
    concept: Tensor | None
    y: Tensor | None = None
    restyled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ordinary)

    def take(self, rows: list[int]) -> "Pairs":
        concept, y, restyled = (None if t is None else t[rows] for t in (self.concept, self.y, self.restyled))
        return Pairs(self.ordinary[rows], concept, y, restyled)


def setting_at(intensity: float, style: float | None = None) -> Setting:
    """The setting of an intensity: it is the latent's weight, and the style follows it unless it is given."""
    return Setting(intensity, _whole_percent(intensity if style is None else style))


def path_at(place: float, latent_share: float) -> Setting:
    """A way from the ordinary to the concept car that keeps the ordinary one as long as it can, place in [0, 1].

    In its first half the style moves all the way and brings `latent_share` of the concept car's latent along; in the
    second the rest of the latent follows.
    """
    first, second = min(1.0, 2 * place), max(0.0, 2 * place - 1)
    style = _whole_percent(first)
    return Setting(latent_share * style + (1 - latent_share) * second, style)


def _whole_percent(style: float) -> float:
    return round(style * STYLE_STEPS) / STYLE_STEPS


def draw_designs(generator: StyledGenerator, pairs: Pairs, settings: list[Setting], how: str) -> np.ndarray:
    """One design a pair, uint8 (N, H, W, 3); settings: one for each pair."""
    assert len(settings) == len(pairs), (len(settings), len(pairs))
    z = pairs.ordinary
    if pairs.restyled is not None:
        z = torch.lerp(z, pairs.restyled, torch.tensor([[float(setting.style)] for setting in settings]))
    if pairs.concept is not None:
        weights = torch.tensor([float(setting.weight) for setting in settings])
        z = generator.latents.mix(z, pairs.concept, weights, how)
    pictures = np.empty((len(pairs), generator.height, generator.width, 3), np.uint8)
    for style in sorted({setting.style for setting in settings}):
        rows = [k for k, setting in enumerate(settings) if setting.style == style]
        pictures[rows] = generator.draw(z[rows], style, None if pairs.y is None else pairs.y[rows])
    return pictures


@dataclass(frozen=True)
class Solved:
    """For each pair: the setting, or None where the score asked for is out of reach; and the path's scores."""

    settings: list[Setting | None]
    scores: np.ndarray  # (N,) of the settings; nan where there is none
    reach: np.ndarray  # (N, 2): lowest and highest score on the path

    @property
    def found(self) -> dict[int, Setting]:
        """Pair → setting, of those that can have the score."""
        return {k: setting for k, setting in enumerate(self.settings) if setting is not None}


@dataclass(frozen=True)
class Scan:
    """Scores of N pairs along the path: places (P,), table float64 (N, P)."""

    places: np.ndarray
    table: np.ndarray


def scan_path(generator: StyledGenerator, pairs: Pairs, score: Score, latent_share: float, how: str) -> Scan:
    """Looks at `COARSE_POINTS` places of the path. Without a second parent only the style moves: half of it."""
    half = COARSE_POINTS // 2 + 1
    places = np.linspace(0, 1, COARSE_POINTS)[: None if pairs.concept is not None else half]
    rows = [
        score(draw_designs(generator, pairs, [path_at(float(place), latent_share)] * len(pairs), how))
        for place in places
    ]
    return Scan(places, np.stack(rows, 1))


def solve(
    generator: StyledGenerator,
    pairs: Pairs,
    asked: np.ndarray,
    score: Score,
    latent_share: float,
    how: str,
    scan: Scan | None = None,
) -> Solved:
    """For each pair the first place on its path whose score is the one asked for, (N,).

    The first interval of the scan that the asked score lies in is halved `FINE_STEPS` times.
    """
    scan = scan or scan_path(generator, pairs, score, latent_share, how)
    places, table = scan.places, scan.table
    crossing = (table[:, :-1] - asked[:, None]) * (table[:, 1:] - asked[:, None]) <= 0
    rows = np.flatnonzero(crossing.any(1))
    begin = crossing[rows].argmax(1)
    low, high = places[begin], places[begin + 1]
    rising = table[rows, begin] <= asked[rows]
    best, best_score = _nearer(low, table[rows, begin], high, table[rows, begin + 1], asked[rows])
    for _ in range(FINE_STEPS if len(rows) else 0):
        middle = 0.5 * (low + high)
        settings = [path_at(float(place), latent_share) for place in middle]
        found = score(draw_designs(generator, pairs.take(rows.tolist()), settings, how))
        best, best_score = _nearer(best, best_score, middle, found, asked[rows])
        upward = (found < asked[rows]) == rising
        low, high = np.where(upward, middle, low), np.where(upward, high, middle)
    solved: list[Setting | None] = [None] * len(pairs)
    scores = np.full(len(pairs), np.nan)
    for row, place, value in zip(rows.tolist(), best, best_score, strict=True):
        solved[row], scores[row] = path_at(float(place), latent_share), value
    return Solved(solved, scores, np.stack([table.min(1), table.max(1)], 1))


def _nearer(
    a: np.ndarray, a_score: np.ndarray, b: np.ndarray, b_score: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    first = np.abs(a_score - asked) <= np.abs(b_score - asked)
    return np.where(first, a, b), np.where(first, a_score, b_score)


def out_of_reach(solved: Solved, asked: float, names: list[str]) -> list[str]:
    """A line for each pair that cannot have this score, with the range that it can have. UserError when none can."""
    lines = [
        f"{name}: out of reach, {low:.0f} to {high:.0f}"
        for name, setting, (low, high) in zip(names, solved.settings, solved.reach, strict=True)
        if setting is None
    ]
    if len(lines) == len(names):
        low, high = solved.reach[0]
        more = f" (and {len(names) - 1} more, none of which reaches it)" if len(names) > 1 else ""
        nearest = solved.reach.flat[np.abs(solved.reach - asked).argmin()]
        raise UserError(
            f"futurism: found {asked:g}, allowed {low:.0f} to {high:.0f} for {names[0]}{more}; "
            f"try --futurism {nearest:.0f}, or other parents"
        )
    return lines
