"""The two dials, and solving for a futurism, on a generator whose pictures encode their position."""

import numpy as np
import pytest
import torch

from blend.generator.dial import (
    DialPath,
    DialPosition,
    LatentPairs,
    Score,
    dial_position,
    draw_designs,
    out_of_reach,
    path_position,
)
from harness.errors import UserError
from harness.runtime.latent_space import LatentSpace

SHARE = 0.25


class StandIn:
    """A generator of grey pictures: 100 * style + 20 * the latent's only number. Counts its calls."""

    height, width, latents = 2, 2, LatentSpace(1)

    def __init__(self):
        self.calls: list[tuple[float, int]] = []

    def draw(self, z, style, y=None):
        self.calls.append((style, len(z)))
        level = 100 * style + 20 * z[:, 0].numpy()
        return np.broadcast_to(np.round(level)[:, None, None, None], (len(z), 2, 2, 3)).astype(np.uint8)


def grey(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, 0, 0, 0].astype(float)


def path_of(some: LatentPairs, score: Score = grey) -> DialPath:
    return DialPath(StandIn(), some, score, SHARE, "linear")  # type: ignore[arg-type]


def pairs(*latents: tuple[float, float]) -> LatentPairs:
    return LatentPairs(torch.tensor([[float(a)] for a, _ in latents]), torch.tensor([[float(b)] for _, b in latents]))


def test_intensity_is_the_latent_weight_and_the_style_follows_unless_given():
    assert dial_position(0.3) == DialPosition(0.3, 0.3) and dial_position(0.3, 0.9) == DialPosition(0.3, 0.9)
    assert dial_position(0.333).style == 0.33


def test_the_path_moves_the_style_first():
    assert path_position(0, SHARE) == DialPosition(0.0, 0.0)
    assert path_position(0.25, SHARE) == DialPosition(0.125, 0.5)
    assert path_position(0.5, SHARE) == DialPosition(0.25, 1.0)
    assert path_position(0.75, SHARE) == DialPosition(0.625, 1.0)
    assert path_position(1, SHARE) == DialPosition(1.0, 1.0)
    positions = [path_position(place, SHARE) for place in np.linspace(0, 1, 301)]
    assert all(
        a.latent_weight <= b.latent_weight and a.style <= b.style
        for a, b in zip(positions, positions[1:], strict=False)
    )


def test_designs_of_one_style_are_drawn_together_and_come_in_order():
    generator = StandIn()
    some = pairs((0, 1), (1, 2), (2, 4))
    positions = [DialPosition(0.5, 0.5), DialPosition(0, 0), DialPosition(1, 0.5)]
    pictures = draw_designs(generator, some, positions, "linear")  # type: ignore[arg-type]
    assert grey(pictures).tolist() == [60, 20, 130]
    assert generator.calls == [(0.0, 1), (0.5, 2)]


def test_the_style_takes_the_ordinary_latent_along():
    some = LatentPairs(torch.tensor([[0.0], [0.0]]), torch.tensor([[4.0], [4.0]]), None, torch.tensor([[2.0], [2.0]]))
    pictures = draw_designs(StandIn(), some, [DialPosition(0, 0.5), DialPosition(0.5, 1)], "linear")  # type: ignore[arg-type]
    assert grey(pictures).tolist() == [70, 160]
    assert some.take([1]).restyled is not None


def test_a_futurism_is_solved_for_on_the_path():
    some = pairs((0, 0), (0, 5), (1, 1))
    solutions = path_of(some).solve(np.array([40.0, 150.0, 77.0]))
    assert solutions.positions[0] == DialPosition(SHARE * 0.4, 0.4)
    far = solutions.positions[1]
    assert far is not None and far.style == 1 and far.latent_weight == pytest.approx(0.5, abs=0.02)
    scores = grey(draw_designs(StandIn(), some, list(solutions.found.values()), "linear"))  # type: ignore[arg-type]
    assert np.abs(scores - [40, 150, 77]).max() <= 1


def test_a_falling_score_is_solved_for_too():
    solutions = path_of(pairs((0, 0)), lambda p: -grey(p)).solve(np.array([-30.0]))
    assert solutions.positions[0] is not None and solutions.positions[0].style == pytest.approx(0.3, abs=0.011)


def test_without_a_second_parent_only_the_style_moves():
    alone = LatentPairs(torch.tensor([[1.0]]), None)
    solutions = path_of(alone).solve(np.array([70.0]))
    assert solutions.positions[0] is not None and solutions.positions[0].style == 0.5
    assert solutions.score_range.tolist() == [[20, 120]]


def test_pairs_out_of_reach_are_listed_with_their_range():
    some = pairs((0, 0), (1, 2))
    solutions = path_of(some).solve(np.array([130.0, 130.0]))
    assert solutions.positions[0] is None and solutions.positions[1] is not None
    assert solutions.score_range.tolist() == [[0, 100], [20, 140]]
    assert out_of_reach(solutions, 130, ["a with b", "c with d"]) == ["a with b: out of reach, 0 to 100"]
    fine = path_of(some).solve(np.array([50.0, 50.0]))
    assert out_of_reach(fine, 50, ["a with b", "c with d"]) == []


def test_a_score_that_no_pair_reaches_is_refused_with_the_nearest():
    some = pairs((0, 0), (1, 2))
    solutions = path_of(some).solve(np.array([150.0, 150.0]))
    refusal = r"^futurism: found 150, allowed 0 to 140 for these 2 pairs; try --futurism 140 "
    with pytest.raises(UserError, match=refusal):
        out_of_reach(solutions, 150, ["a with b", "c with d"])
