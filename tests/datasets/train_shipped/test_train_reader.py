"""The factor reader's training data, augmentation and negatives are sound, and training repeats exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.procedural.factors import FACTOR_NAMES
from datasets.procedural.sets import draw_picture_factors
from datasets.train_shipped import train_reader as stage
from datasets.train_shipped.augment import add_artifacts, augment, blur, continue_rows, warp
from datasets.train_shipped.fit import PURPOSES, set_seed
from datasets.train_shipped.negatives import TRANSFORMS, make_negatives
from datasets.train_shipped.reader_data import draw_cars, draw_empty, draw_messy, draw_mixed_cars
from harness.features import load_reader, pictures_to_input


@pytest.fixture(scope="module")
def cars():
    return draw_cars(33, 5, 64, 64)


@pytest.fixture(scope="module")
def batch(cars) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(cars.pictures).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(cars.masks[:, None])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cars_cover_the_whole_range_and_carry_their_factors(cars) -> None:
    futurism = cars.factors[:, FACTOR_NAMES.index("futurism")]
    assert futurism.min() < 0.1 and futurism.max() > 0.9 and ((futurism > 0.35) & (futurism < 0.65)).any()
    assert cars.factors[7, 1] == draw_picture_factors("ordinary", 5, 7, (0.0, 1.0))[0].yaw_deg
    assert 0.1 < cars.masks.mean() < 0.5


def test_wide_cars_are_padded_as_the_reader_pads_them() -> None:
    mixed = draw_mixed_cars(20, 5, 64)
    assert mixed.pictures.shape == (20, 64, 64, 3) and mixed.masks.shape == (20, 64, 64)
    assert sorted(set(mixed.margins)) == [0, 14, 16] and len(mixed.factors) == 20
    wide = int(np.flatnonzero(mixed.margins == 16)[0])
    assert (mixed.pictures[wide, :16] == mixed.pictures[wide, 16]).all()
    assert (mixed.pictures[wide, 48:] == mixed.pictures[wide, 47]).all()
    inside = torch.tensor(mixed.pictures[wide, 16:48]).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert not mixed.masks[wide, :16].any() and mixed.masks[wide, 16:48].any()
    expected = pictures_to_input(mixed.pictures[wide : wide + 1, 16:48], 48)
    torch.testing.assert_close(pictures_to_input(mixed.pictures[wide : wide + 1], 48), expected)
    padded = torch.nn.functional.pad(inside, (0, 0, 16, 16))
    torch.testing.assert_close(
        continue_rows(padded, torch.tensor([16])),
        torch.tensor(mixed.pictures[wide]).permute(2, 0, 1)[None].float() / 127.5 - 1,
    )


def test_training_calibration_and_held_out_renders_are_disjoint() -> None:
    seeds = [set_seed(stage.SEED_BASE, seed, purpose) for seed in range(5) for purpose in PURPOSES]
    assert len(set(seeds)) == 15 and min(seeds) > 10**6  # sets for training a GAN have small seeds


def test_messy_pictures_have_no_usable_car_and_repeat() -> None:
    pictures, kinds = draw_messy(26, 3, 32)
    assert pictures.shape == (26, 32, 32, 3) and pictures.dtype == np.uint8
    assert {"logo", "animal", "interior", "collage", "several_cars", "front_view", "rear_view"} <= set(kinds)
    assert not {kind for kind in kinds if kind in ("good", "letterbox", "truncated", "empty") or "duplicate" in kind}
    np.testing.assert_array_equal(draw_messy(26, 3, 32)[0], pictures)
    assert draw_empty(3, 0, 32).shape == (3, 32, 32, 3)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: transform.__name__.strip("_"))
def test_every_negative_differs_clearly_from_the_car(batch, transform) -> None:
    cars, masks = batch
    for seed in range(4):
        negatives = transform(
            cars[:9], masks[:9], cars[torch.randperm(len(cars), generator=rng(seed))], rng(seed)
        ).clamp(0, 1)
        assert negatives.shape == (9, 3, 64, 64) and torch.isfinite(negatives).all()
        change = (negatives - cars[:9]).abs().mean(1, keepdim=True)
        on_car = (change * masks[:9]).sum((1, 2, 3)) / masks[:9].sum((1, 2, 3))
        assert on_car.mean() > 0.04  # of the range: sensor noise makes 0.004


def test_negatives_repeat(batch) -> None:
    cars, masks = batch
    first = make_negatives(cars, masks, rng(1))
    torch.testing.assert_close(first, make_negatives(cars, masks, rng(1)), rtol=0, atol=0)
    assert not torch.equal(first, make_negatives(cars, masks, rng(2)))
    assert first.min() >= 0 and first.max() <= 1


def test_augmented_pictures_stay_recognisable(batch) -> None:
    cars, _ = batch
    result = augment(cars, rng(), 48)
    assert result.shape == (33, 3, 48, 48) and result.min() >= 0 and result.max() <= 1
    torch.testing.assert_close(result, augment(cars, rng(), 48), rtol=0, atol=0)
    small, seen = (torch.nn.functional.interpolate(x, (12, 12), mode="area").flatten(1) for x in (cars, result))
    gap = (small[:, None] - seen[None]).abs().mean(2)  # every degraded picture is nearest to its own original
    assert (gap.argmin(0) == torch.arange(33)).float().mean() >= 0.9


def test_artifacts_are_slight(batch) -> None:
    cars, _ = batch
    changes = torch.stack([(add_artifacts(cars, rng(seed)) - cars).abs().mean((1, 2, 3)) for seed in range(6)])
    assert 0.005 < changes.mean() < 0.06 and changes.max() < 0.2
    torch.testing.assert_close(add_artifacts(cars, rng(3)), add_artifacts(cars, rng(3)), rtol=0, atol=0)


def test_warp_mirrors_and_magnifies(batch) -> None:
    cars, _ = batch
    mirrored = warp(cars, rng(), 0.0, 0.0, 5, mirrored=torch.ones(33, dtype=torch.bool))
    torch.testing.assert_close(warp(cars, rng(), 0.0, 0.0, 5), cars, atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored, cars.flip(3), atol=1e-4, rtol=0)
    dot = torch.zeros(1, 1, 64, 64)
    dot[:, :, 24:40, 24:40] = 1
    larger = warp(dot, rng(), 0.0, 0.0, 5, zoom=torch.tensor([2.0]))
    assert float(larger.sum()) == pytest.approx(4 * float(dot.sum()), rel=0.02)


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    soft = blur(point, 3.0)[0, 0]
    assert float(soft.sum()) == pytest.approx(1.0, abs=1e-5)
    rows = torch.arange(41.0) - 20
    assert float((soft.sum(1) * rows**2).sum()) ** 0.5 == pytest.approx(3.0, rel=0.06)


def test_hue_is_compared_round_the_circle() -> None:
    factors = np.zeros((3, len(FACTOR_NAMES)))
    factors[:, FACTOR_NAMES.index("paint_hue")] = [0.02, 0.98, 0.5]
    factors[:, FACTOR_NAMES.index("paint_saturation")] = [0.8, 0.8, 0.1]  # the last has no hue
    assert stage.factor_error("paint_hue", np.array([0.98, 0.03, 0.0]), factors) == pytest.approx(0.045)


def test_training_depends_on_its_seed_alone_and_writes_a_loadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "HELD_OUT_COUNT", 10)
    monkeypatch.setattr(stage, "HELD_OUT_SIZES", ((32, 32), (32, 64)))
    files = []
    for number, seed in enumerate((0, 0, 1)):
        torch.rand(1)  # torch's global generator must not matter
        files.append(stage.train_reader(tmp_path / f"{number}.safetensors", 40, 3, seed))
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other
    reader = load_reader(files[0])
    assert reader.report["recipe"] == {"count": 40, "steps": 3, "seed": 0, "drawn_px": 64}
    assert set(reader.errors) == set(FACTOR_NAMES)


def test_targets_are_standardised_and_dull_paint_has_no_hue(cars) -> None:

    factors = stage._factor_table(cars.factors)
    targets, weights = stage._targets(cars.factors, factors)
    assert targets.shape == weights.shape == (33, len(FACTOR_NAMES) + 1)
    torch.testing.assert_close(targets[:, 0].std(correction=0), torch.tensor(1.0), atol=1e-4, rtol=0)
    dull = cars.factors[:, FACTOR_NAMES.index("paint_saturation")] <= stage.COLOURED
    hue = FACTOR_NAMES.index("paint_hue")
    assert (weights[dull][:, hue : hue + 2] == 0).all() and (weights[~dull][:, hue : hue + 2] == 1).all()
