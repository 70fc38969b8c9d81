"""Figures of the dial, on made-up readings whose right answers are known."""

import numpy as np
import pytest
import torch

from blend.generator.dial import DialPath, LatentPairs
from blend.measures.sweep import INTENSITIES, equal_futurism_figures, reader_scale, sweep_figures, target_figures
from harness.runtime.latent_space import LatentSpace


class Reads:
    """A reader that takes a picture's three channels for futurism, hue and yaw."""

    threshold = 0.5

    def read(self, pictures):
        levels = pictures[:, 0, 0].astype(np.float32)
        names = ("futurism", "paint_hue", "yaw_deg")
        values = {name: levels[:, k] / (100 if k < 2 else 1) for k, name in enumerate(names)}
        return values | {"car_score": np.ones(len(levels)), "paint_saturation": np.ones(len(levels))}


class StandIn:
    """A generator: futurism is the style, hue and yaw follow the latent's two numbers."""

    height, width, latents = 1, 1, LatentSpace(2)

    def draw(self, z, style, y=None):
        levels = np.stack([np.full(len(z), 100 * style), *(100 * z.numpy()).T], 1)
        return levels.round().clip(0, 255).astype(np.uint8)[:, None, None, :]


def path_of(pairs, score):
    return DialPath(StandIn(), pairs, score, 0.25, "linear")  # type: ignore[arg-type]


def futurism(pictures):
    return pictures[:, 0, 0, 0].astype(float)


def pictures(futurisms):
    return np.array([[[[level, 0, 0]]] for level in futurisms], np.uint8)


def test_ranks_and_rise():
    rising, falling = np.arange(0, 55, 5), np.arange(50, -5, -5)
    sweep = np.stack([pictures(rising), pictures(falling), pictures([7] * 11)])
    figures = sweep_figures(sweep, Reads(), lambda p: 2 * futurism(p))  # type: ignore[arg-type]
    assert len(INTENSITIES) == 11 and figures["pairs"] == 3
    assert figures["spearman_mean"] == pytest.approx(0.0) and figures["spearman_worst"] == pytest.approx(-1.0)
    assert figures["rise"] == pytest.approx(0.0)
    assert sweep_figures(sweep[:1], Reads(), futurism)["rise"] == pytest.approx(50)  # type: ignore[arg-type]
    assert figures["curve"]["reader"] == pytest.approx([7, 7, 10, 15, 20, 25, 20, 15, 10, 7, 7])
    assert figures["curve"]["probe"][5] == pytest.approx(50)


def test_misses_count_designs_that_could_be_solved():
    pairs = LatentPairs(torch.zeros(4, 2), torch.zeros(4, 2))
    figures = target_figures(path_of(pairs, futurism), lambda p: futurism(p) + 5)
    assert figures["futurism_miss_probe"] == 0 and figures["futurism_miss_reader"] == 5
    assert figures["futurism_asked_reachable"] == {str(asked): 4 for asked in (10, 30, 50, 70, 90)}
    beyond = target_figures(path_of(pairs, lambda p: futurism(p) + 200), futurism)
    assert set(beyond["futurism_asked_reachable"].values()) == {0} and np.isnan(beyond["futurism_miss_probe"])


def test_what_is_kept_at_equal_futurism():
    ordinary, concept = torch.tensor([[0.2, 0.1]] * 3), torch.tensor([[0.6, 0.5]] * 3)
    parents = np.array([[[[0, 20, 10]]]] * 3, np.uint8)
    pairs = LatentPairs(ordinary, concept)
    figures = equal_futurism_figures(path_of(pairs, futurism), pairs, parents, Reads())  # type: ignore[arg-type]
    assert figures["seed"]["hue_error"] == pytest.approx(0.2) and figures["seed"]["yaw_error"] == pytest.approx(20)
    assert figures["ours"]["hue_error"] == pytest.approx(0.1) and figures["ours"]["yaw_error"] == pytest.approx(10)
    assert figures["ours"]["futurism"] == figures["seed"]["futurism"] == pytest.approx(100)


def test_the_readers_scale_has_its_ends_at_the_medians():
    scale = reader_scale(Reads(), pictures([10, 20, 90]), pictures([5, 70, 80]))  # type: ignore[arg-type]
    assert scale(pictures([20, 45, 70, 80])) == pytest.approx([0, 50, 100, 120], abs=1e-4)
