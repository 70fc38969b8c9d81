"""The futurism scale: its ends, its AUC on held-out pictures, its background check, its agreement with the reader."""

import numpy as np
import pytest
import torch.nn.functional as F

from blend.generator.input_pictures import load_folder
from blend.measures.probe import TrainValid, background_auc, car_mask, fit_probe
from datasets.procedural.render import render_with_mask
from datasets.procedural.sets import draw_picture_factors
from harness.features import Featurizer, load_reader
from tests.refusals import refused

HEIGHT, WIDTH = 32, 64
KINDS = ("ordinary", "concept")


def clusters(gap: float = 1.0, count: int = 120, dim: int = 6, seed: int = 0, scale: float = 1.0) -> list[TrainValid]:
    """Two round clouds, `gap` apart in each dimension; the second is half as large."""
    rng = np.random.default_rng(seed)
    sizes = ((count, count // 2), (count // 2, count // 4))
    return [
        TrainValid(*(scale * (rng.normal(size=(size, dim)) + kind * gap) for size in pair))
        for kind, pair in enumerate(sizes)
    ]


def test_the_scale_is_set_by_the_medians_of_held_out_pictures():
    ordinary, concept = clusters()
    probe = fit_probe(ordinary, concept)
    assert np.median(probe.score(ordinary.valid)) == pytest.approx(0, abs=1e-9)
    assert np.median(probe.score(concept.valid)) == pytest.approx(100)
    assert abs(np.median(probe.score(concept.train)) - 100) > 0.1


def test_the_scale_is_linear_beyond_its_ends():
    ordinary, concept = clusters()
    probe = fit_probe(ordinary, concept)
    line = np.linspace(-5, 6, 12)[:, None] * np.ones(6)
    steps = np.diff(probe.score(line))
    assert probe.score(line)[0] < -100 and probe.score(line)[-1] > 200
    assert np.allclose(steps, steps[0])


def test_auc_is_of_held_out_pictures():
    """With more dimensions than pictures any two training sets are separated perfectly."""
    ordinary, concept = clusters(gap=0.05, count=40, dim=200, seed=3)
    probe = fit_probe(ordinary, concept)
    assert probe.score(ordinary.train).max() < probe.score(concept.train).min()
    assert 0.5 < probe.auc < 0.85
    assert fit_probe(*clusters(gap=4.0)).auc == 1.0


def test_neither_the_unit_of_a_feature_nor_the_number_of_pictures_changes_scores():
    plain, longer = clusters(), clusters(scale=1000.0)
    score = fit_probe(*plain).score(plain[0].valid)
    assert np.allclose(fit_probe(*longer).score(longer[0].valid), score, atol=1e-3)
    often = [TrainValid(np.repeat(half.train, 5, axis=0), half.valid) for half in plain]
    assert np.allclose(fit_probe(*often).score(plain[0].valid), score, atol=1e-3)


def test_a_reversed_scale_is_refused():
    ordinary, concept = clusters(gap=3.0)
    with refused("no probe separates", "try"):
        fit_probe(TrainValid(ordinary.train, concept.valid), TrainValid(concept.train, ordinary.valid))


# ---- backgrounds ------------------------------------------------------------------------------------------------

COARSE = Featurizer("coarse", 32, "0", 192, lambda x: F.adaptive_avg_pool2d(x, 8).flatten(1))


def noisy(count: int, seed: int, on_car: int, around: int) -> np.ndarray:
    """uint8 (count, 32, 64, 3) with a level in the car region and another around it."""
    rng = np.random.default_rng(seed)
    levels = np.where(car_mask(HEIGHT, WIDTH), on_car, around)[None, :, :, None]
    return (levels + rng.integers(-40, 41, (count, HEIGHT, WIDTH, 3))).astype(np.uint8)


@pytest.mark.parametrize(("on_car", "around", "lowest", "highest"), [(170, 100, 0.3, 0.7), (100, 130, 0.97, 1.0)])
def test_background_auc_depends_on_backgrounds_alone(on_car, around, lowest, highest):
    ordinary = TrainValid(noisy(60, 0, 100, 100), noisy(60, 1, 100, 100))
    concept = TrainValid(noisy(60, 2, on_car, around), noisy(60, 3, on_car, around))
    before = ordinary.train.copy()
    assert lowest <= background_auc(COARSE, ordinary, concept) <= highest
    assert (ordinary.train == before).all()


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 64)])
def test_rendered_cars_are_in_the_car_region(height, width):
    place = car_mask(height, width)
    assert (~place).mean() > 0.1
    for kind in ("ordinary", "concept"):
        for index in range(8):
            factors, seed = draw_picture_factors(kind, 31, index)
            mask = render_with_mask(factors, height, width, seed)[1]
            assert (mask & place).sum() > 0.98 * mask.sum()


# ---- against the factor reader ----------------------------------------------------------------------------------


def renders(kind, set_seed: int, count: int, futurism: float | None = None) -> np.ndarray:
    drawn = [
        draw_picture_factors(kind, set_seed, k, None if futurism is None else (futurism, futurism))
        for k in range(count)
    ]
    return np.stack([render_with_mask(factors, HEIGHT, WIDTH, seed)[0] for factors, seed in drawn])


def test_the_middle_of_the_scale_agrees_with_the_reader():
    reader = load_reader()
    pictures = {kind: [renders(kind, seed, count) for seed, count in ((1, 40), (2, 20))] for kind in KINDS}
    halves = [TrainValid(*map(reader.featurizer, pictures[kind])) for kind in KINDS]
    probe = fit_probe(*halves)
    assert probe.auc > 0.99
    between = np.concatenate([renders("ordinary", 5, 5, futurism) for futurism in (0.35, 0.5, 0.65)])
    low, high = (np.median(reader.read(pictures[kind][1])["futurism"]) for kind in KINDS)
    read = 100 * (reader.read(between)["futurism"] - low) / (high - low)
    assert np.median(np.abs(probe.score(reader.featurizer(between)) - read)) < 8


@pytest.mark.photos
def test_real_photos_are_separated(photos):
    reader = load_reader()
    halves = []
    for name in ("dealer", "concept"):
        features = reader.featurizer(load_folder(photos / name, 32, 48, "crop", count=150).pictures)
        halves.append(TrainValid(features[::2], features[1::2]))
    assert fit_probe(*halves).auc > 0.9
