"""The two dials, and solving for a futurism, on a generator whose pictures say where they were drawn."""

import numpy as np
import pytest
import torch

from blend.generator.dial import Pairs, Setting, draw_designs, out_of_reach, path_at, setting_at, solve
from harness.errors import UserError
from harness.runtime.latent_space import LatentSpace

SHARE = 0.25


class Stand:
    """Draws grey: 100 * style + 20 * the latent's only number. What it was asked for is counted."""

    height, width, latents = 2, 2, LatentSpace(1)

    def __init__(self):
        self.calls: list[tuple[float, int]] = []

    def draw(self, z, style, y=None):
        self.calls.append((style, len(z)))
        level = 100 * style + 20 * z[:, 0].numpy()
        return np.broadcast_to(np.round(level)[:, None, None, None], (len(z), 2, 2, 3)).astype(np.uint8)


def grey(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, 0, 0, 0].astype(float)


def pairs(*latents: tuple[float, float]) -> Pairs:
    return Pairs(torch.tensor([[float(a)] for a, _ in latents]), torch.tensor([[float(b)] for _, b in latents]))


def test_intensity_is_the_latents_weight_and_the_style_follows_unless_given():
    assert setting_at(0.3) == Setting(0.3, 0.3) and setting_at(0.3, 0.9) == Setting(0.3, 0.9)
    assert setting_at(0.333).style == 0.33


def test_the_path_moves_the_style_first():
    assert path_at(0, SHARE) == Setting(0.0, 0.0)
    assert path_at(0.25, SHARE) == Setting(0.125, 0.5)
    assert path_at(0.5, SHARE) == Setting(0.25, 1.0)
    assert path_at(0.75, SHARE) == Setting(0.625, 1.0)
    assert path_at(1, SHARE) == Setting(1.0, 1.0)
    settings = [path_at(place, SHARE) for place in np.linspace(0, 1, 301)]
    assert all(a.weight <= b.weight and a.style <= b.style for a, b in zip(settings, settings[1:], strict=False))


def test_designs_of_one_style_are_drawn_together_and_come_in_order():
    generator = Stand()
    some = pairs((0, 1), (1, 2), (2, 4))
    pictures = draw_designs(generator, some, [Setting(0.5, 0.5), Setting(0, 0), Setting(1, 0.5)], "linear")  # type: ignore[arg-type]
    assert grey(pictures).tolist() == [60, 20, 130]
    assert generator.calls == [(0.0, 1), (0.5, 2)]


def test_the_style_takes_the_ordinary_latent_along():
    some = Pairs(torch.tensor([[0.0], [0.0]]), torch.tensor([[4.0], [4.0]]), None, torch.tensor([[2.0], [2.0]]))
    pictures = draw_designs(Stand(), some, [Setting(0, 0.5), Setting(0.5, 1)], "linear")  # type: ignore[arg-type]
    assert grey(pictures).tolist() == [70, 160]
    assert some.take([1]).restyled is not None


def test_a_futurism_is_solved_for_on_the_path():
    some = pairs((0, 0), (0, 5), (1, 1))
    solved = solve(Stand(), some, np.array([40.0, 150.0, 77.0]), grey, SHARE, "linear")  # type: ignore[arg-type]
    assert solved.settings[0] == Setting(SHARE * 0.4, 0.4)
    far = solved.settings[1]
    assert far is not None and far.style == 1 and far.weight == pytest.approx(0.5, abs=0.02)
    assert np.abs(solved.scores - [40, 150, 77]).max() <= 1


def test_a_falling_score_is_solved_for_too():
    solved = solve(Stand(), pairs((0, 0)), np.array([-30.0]), lambda p: -grey(p), SHARE, "linear")  # type: ignore[arg-type]
    assert solved.settings[0] is not None and solved.settings[0].style == pytest.approx(0.3, abs=0.011)


def test_without_a_second_parent_only_the_style_moves():
    alone = Pairs(torch.tensor([[1.0]]), None)
    solved = solve(Stand(), alone, np.array([70.0]), grey, SHARE, "linear")  # type: ignore[arg-type]
    assert solved.settings[0] is not None and solved.settings[0].style == 0.5
    assert solved.reach.tolist() == [[20, 120]]


def test_what_is_out_of_reach_is_told_with_its_range():
    some = pairs((0, 0), (1, 2))
    solved = solve(Stand(), some, np.array([130.0, 130.0]), grey, SHARE, "linear")  # type: ignore[arg-type]
    assert solved.settings[0] is None and np.isnan(solved.scores[0]) and solved.settings[1] is not None
    assert solved.reach.tolist() == [[0, 100], [20, 140]]
    assert out_of_reach(solved, 130, ["a with b", "c with d"]) == ["a with b: out of reach, 0 to 100"]
    fine = solve(Stand(), some, np.array([50.0, 50.0]), grey, SHARE, "linear")  # type: ignore[arg-type]
    assert out_of_reach(fine, 50, ["a with b", "c with d"]) == []


def test_out_of_everybodys_reach_is_refused_with_what_is_nearest():
    some = pairs((0, 0), (1, 2))
    solved = solve(Stand(), some, np.array([150.0, 150.0]), grey, SHARE, "linear")  # type: ignore[arg-type]
    refusal = r"^futurism: found 150, allowed 0 to 100 for a with b \(and 1 more.*\); try --futurism 140,"
    with pytest.raises(UserError, match=refusal):
        out_of_reach(solved, 150, ["a with b", "c with d"])
