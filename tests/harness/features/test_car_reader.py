"""The featurizer and the factor reader, with the weights that the repository ships."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from datasets.procedural.factors import FACTOR_NAMES
from datasets.procedural.render import render
from datasets.procedural.sets import draw_picture_factors
from datasets.train_shipped.negatives import make_negatives
from datasets.train_shipped.reader_data import draw_cars, draw_messy
from harness.errors import UserError
from harness.features import READER_PATH, Reader, load_featurizer, load_reader, pictures_to_input, reader_to_bytes

FRESH_SEED = 1234  # no seed that training, calibration or measuring draws from


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


@pytest.fixture(scope="module")
def cars32():
    return draw_cars(80, FRESH_SEED, 32, 32)


def futurism(cars) -> np.ndarray:
    return cars.factors[:, FACTOR_NAMES.index("futurism")]


# ---- the shipped reader -----------------------------------------------------------------------------------------


def test_futurism_is_read_at_32_px_over_its_whole_range(reader: Reader, cars32) -> None:
    gap = np.abs(reader.read(cars32.pictures)["futurism"] - futurism(cars32))
    assert gap.mean() <= 0.1
    low, high = futurism(cars32) < 0.3, futurism(cars32) > 0.7
    assert gap[low].mean() <= 0.12 and gap[high].mean() <= 0.12


def test_fresh_cars_are_accepted_and_messy_pictures_are_not(reader: Reader, cars32) -> None:
    assert reader.accepts(cars32.pictures).mean() >= 0.9
    messy, kinds = draw_messy(52, FRESH_SEED, 64)
    assert len(set(kinds)) >= 10
    assert reader.accepts(messy).mean() <= 0.1


def test_spoiled_cars_are_refused(reader: Reader) -> None:
    cars = draw_cars(44, FRESH_SEED + 1, 64, 64)
    rng = torch.Generator().manual_seed(0)
    negatives = make_negatives(
        torch.from_numpy(cars.pictures).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(cars.masks[:, None]), rng
    )
    assert reader.accepts((negatives.permute(0, 2, 3, 1) * 255).byte().numpy()).mean() <= 0.15


def test_a_mirrored_car_is_read_alike_but_for_its_nose(reader: Reader, cars32) -> None:
    seen, mirrored = reader.read(cars32.pictures), reader.read(cars32.pictures[:, :, ::-1])
    for name in (*FACTOR_NAMES, "car_score"):
        np.testing.assert_allclose(seen[name], mirrored[name], rtol=1e-3, atol=1e-4)
    assert (seen["nose"] > 0.5).mean() >= 0.95  # the renderer shows the left side: noses point left
    np.testing.assert_allclose(seen["nose"], 1 - mirrored["nose"], atol=1e-4)


def test_futurism_is_read_from_the_shape_and_not_from_paint_or_backdrop(reader: Reader) -> None:
    pictures, repainted, truth = [], [], []
    for index in range(40):
        factors, seed = draw_picture_factors("ordinary", FRESH_SEED + 2, index, (0.0, 1.0))
        other, other_seed = draw_picture_factors("ordinary", FRESH_SEED + 3, index)
        paint = {name: getattr(other, name) for name in ("paint_hue", "paint_saturation", "paint_value")}
        pictures.append(render(factors, 48, 48, seed))
        repainted.append(render(replace(factors, **paint), 48, 48, other_seed))
        truth.append(factors.futurism)
    first, second = (reader.read(np.stack(part))["futurism"] for part in (pictures, repainted))
    assert np.abs(first - second).mean() <= 0.1 < np.std(truth)
    assert np.corrcoef(first, second)[0, 1] >= 0.9


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128), (32, 64), (64, 112), (72, 64)])
def test_every_size_and_shape_is_read(reader: Reader, height: int, width: int) -> None:
    drawn = [draw_picture_factors("ordinary", FRESH_SEED + 4, index, (0.0, 1.0)) for index in range(16)]
    seen = reader.read(np.stack([render(factors, height, width, seed) for factors, seed in drawn]))
    assert np.abs(seen["futurism"] - [factors.futurism for factors, _ in drawn]).mean() <= 0.15
    assert (seen["car_score"] >= reader.threshold).mean() >= 0.75


def test_all_factors_come_in_their_ranges_with_errors_that_hold(reader: Reader, cars32) -> None:
    seen = reader.read(cars32.pictures)
    assert set(seen) == {*FACTOR_NAMES, "nose", "car_score"} and set(reader.errors) == set(FACTOR_NAMES)
    for column, factor in enumerate(reader.factors):
        values, name = seen[factor["name"]], factor["name"]
        assert values.dtype == np.float32 and values.shape == (80,)
        assert values.min() >= factor["low"] - 1e-6 and values.max() <= factor["high"] + 1e-6
        if not factor["circular"]:
            assert np.abs(values - cars32.factors[:, column]).mean() <= 1.5 * reader.errors[name], name
    for name in ("yaw_deg", "roof_height", "wheelbase", "paint_value"):  # read, not guessed as the mean
        column = FACTOR_NAMES.index(name)
        assert np.corrcoef(seen[name], cars32.factors[:, column])[0, 1] >= 0.6, name


def test_the_shipped_file_is_small_and_says_what_it_is(reader: Reader) -> None:
    assert READER_PATH.stat().st_size <= 2_000_000
    assert 0 < reader.threshold < 1
    for size in ("32x32", "64x64", "32x64"):
        figures = reader.report[size]
        assert figures["accepted_renders"] >= 0.94 and figures["accepted_messy"] <= 0.05
        assert figures["errors"]["futurism"] <= 0.08
    assert {"count", "steps", "seed"} <= set(reader.report["recipe"])


# ---- the featurizer ---------------------------------------------------------------------------------------------


def test_features_do_not_depend_on_the_batch_or_on_the_side(cars32) -> None:
    featurizer = load_featurizer()
    features = featurizer(cars32.pictures)
    assert features.shape == (80, featurizer.dim) and features.dtype == np.float32
    assert featurizer.name == "reader" and len(featurizer.sha256) == 64
    np.testing.assert_allclose(featurizer(cars32.pictures, batch_size=7), features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(featurizer(cars32.pictures[:, :, ::-1]), features, rtol=1e-3, atol=1e-4)
    assert featurizer(cars32.pictures[:0]).shape == (0, featurizer.dim)
    assert features.std(0).max() > 0.1


def test_no_pictures_read_as_nothing(reader: Reader) -> None:
    assert all(values.shape == (0,) for values in reader.read(np.zeros((0, 32, 32, 3), np.uint8)).values())


def test_a_picture_that_is_not_square_gets_its_edges_continued() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 20, 48, 3), dtype=np.uint8)
    squared = np.pad(pictures, ((0, 0), (14, 14), (0, 0), (0, 0)), mode="edge")
    torch.testing.assert_close(pictures_to_input(pictures, 48), pictures_to_input(squared, 48))
    tall = np.ascontiguousarray(pictures.transpose(0, 2, 1, 3))
    torch.testing.assert_close(pictures_to_input(tall, 48), pictures_to_input(pictures, 48).transpose(2, 3))


def test_input_keeps_levels_and_averages_all_source_pixels() -> None:
    levels = np.broadcast_to(np.array([0, 51, 255], np.uint8), (1, 48, 48, 3))
    torch.testing.assert_close(pictures_to_input(levels, 48)[0, :, 5, 5], torch.tensor([-1.0, -0.6, 1.0]))
    stripes = np.zeros((1, 192, 192, 3), np.uint8)
    stripes[:, :, ::4] = 200  # a quarter of the columns: sampling every fourth would see all of them or none
    inner = pictures_to_input(stripes, 48)[0, :, 8:-8, 8:-8]
    torch.testing.assert_close(inner, torch.full_like(inner, 50 / 127.5 - 1), atol=0.02, rtol=0)


# ---- its file ---------------------------------------------------------------------------------------------------


def test_an_unknown_featurizer_is_refused() -> None:
    with pytest.raises(UserError, match="allowed reader, inception, mobilenet_v2, resnet18"):
        load_featurizer("resnet")


def test_a_missing_file_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing.*python -m datasets reader"):
        load_reader(tmp_path / "reader.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "weight", "threshold", "empty", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    content, path = bytearray(READER_PATH.read_bytes()), tmp_path / "reader.safetensors"
    if damage == "truncated":
        content = content[:-100]
    elif damage == "weight":
        content[-5000] ^= 1
    elif damage == "threshold":
        start = content.index(b"threshold") + len(b'threshold\\": 0.')
        content[start] = ord("1") if content[start] != ord("1") else ord("2")
    else:
        content = bytearray(b"" if damage == "empty" else b"not a weights file at all")
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged|cannot be read"):
        load_reader(path)


def test_another_schema_is_refused(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "reader.safetensors"
    path.write_bytes(reader_to_bytes(reader.network, {**reader.meta, "schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        load_reader(path)


def test_what_is_written_is_read_back(tmp_path: Path, reader: Reader, cars32) -> None:
    path = tmp_path / "reader.safetensors"
    path.write_bytes(reader_to_bytes(reader.network, reader.meta))
    again = load_reader(path)
    assert again.threshold == reader.threshold and again.meta == reader.meta
    np.testing.assert_array_equal(again.read(cars32.pictures)["futurism"], reader.read(cars32.pictures)["futurism"])
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["reader"].partition(" ")[2])["factors"] == reader.factors
