"""Brands differ by form and not by colour, vary little within a brand, and are the classes of a packed set."""

from collections import Counter
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from datasets.procedural.brands import BRAND_STYLES, BRANDS
from datasets.procedural.factors import FUTURISM_RANGES, RANGES, Kind
from datasets.procedural.render import render
from datasets.procedural.sets import (
    brand_style,
    draw_picture_factors,
    picture_name,
    render_many,
    render_set,
)
from datasets.scan.listing import walk_pictures
from harness.storage.hdf5 import open_packed
from tests.datasets.stand_in import build_set, make_config, read_factors

KINDS: tuple[Kind, ...] = ("brands", "brand_concepts")


def drawn(kind: Kind, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 32, 64, 3) and brands (N,)."""
    pictures = np.stack([picture for _, _, picture in render_many(kind, count, seed, (32, 64))])
    return pictures, np.arange(count) % len(BRANDS)


def colour_histograms(pictures: np.ndarray, levels: int = 6) -> np.ndarray:
    """Roots of the shares of levels^3 colours, (N, levels^3)."""
    level = pictures.reshape(len(pictures), -1, 3).astype(int) * levels // 256
    colour = level @ np.array([levels * levels, levels, 1])
    counts = np.stack([np.bincount(row, minlength=levels**3) for row in colour])
    return np.sqrt(counts / colour.shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_brands_differ_by_form_and_not_by_colour(kind):
    pictures, brands = drawn(kind, 640, 5)
    fresh, truth = drawn(kind, 240, 6)

    def accuracy(see) -> float:
        forest = RandomForestClassifier(200, random_state=0).fit(see(pictures), brands)
        return float(forest.score(see(fresh), truth))

    def edges(these: np.ndarray) -> np.ndarray:
        grey = these.astype(float).mean(3)
        return np.abs(np.diff(grey, axis=1)).reshape(len(these), -1)

    assert accuracy(colour_histograms) <= 0.4
    assert accuracy(edges) >= 0.6  # a forest on edges; the networks of the evaluation do better


@pytest.mark.parametrize("kind", KINDS)
def test_brands_take_turns_and_vary_less_within_than_between(kind):
    assert [brand_style(kind, index) for index in range(16)] == [*BRAND_STYLES, *BRAND_STYLES]
    assert brand_style("ordinary", 3) is None and picture_name("concept", 3) == "concept_000003.png"
    factors = np.array([astuple(draw_picture_factors(kind, 0, index)[0]) for index in range(400)])
    names = list(RANGES)
    low, high = FUTURISM_RANGES[kind]
    assert low <= factors[:, 0].min() and factors[:, 0].max() <= high
    for name in ("roof_height", "bonnet", "tail_deg"):  # of the house
        column = factors[:, names.index(name)].reshape(-1, len(BRANDS))
        assert column.std(0).mean() < 0.5 * column.mean(0).std(), name
        assert column.std(0).min() > 0
    for name in ("yaw_deg", "paint_value", "paint_saturation", "spokes"):  # of the picture
        column = factors[:, names.index(name)].reshape(-1, len(BRANDS))
        assert column.mean(0).std() < 0.5 * column.std(0).mean(), name


def test_a_brand_changes_the_picture_beyond_its_factors():
    factors, seed = draw_picture_factors("brands", 0, 0)
    plain = render(factors, 32, 64, seed)
    faces = [render(factors, 32, 64, seed, brand) for brand in BRAND_STYLES]
    assert len({face.tobytes() for face in [plain, *faces]}) == 9


def test_a_set_has_a_folder_a_brand_and_a_row_a_picture(tmp_path):
    table = read_factors(render_set("brands", 17, 3, (24, 48), tmp_path))
    found = {file.name: file.name.partition("/")[0] for file in walk_pictures(tmp_path)}
    assert set(found) == set(table) and Counter(found.values()) == {name: 2 + (name == BRANDS[0]) for name in BRANDS}
    for index, (name, (kind, seed, factors)) in enumerate(table.items()):
        assert name == picture_name("brands", index) and kind == "brands"
        assert (factors, seed) == draw_picture_factors("brands", 3, index)


def test_brands_are_the_classes_of_the_packed_set():
    sizes: dict[str, Any] = {"img_size": [32, 64], "valid_fraction": 0.25, "src": None}
    config = make_config(set="b", source="procedural", kind="brand_concepts", count=24, **sizes)
    for path in build_set(config.data, config.clean, workers=0):
        with open_packed(path) as packed:
            assert packed.class_names == list(BRANDS) == sorted(BRANDS)
            pictures, labels = packed.read(), packed.labels
            drawn = list(render_many("brand_concepts", 24, config.data.seed, (32, 64)))
            brand_of = {picture.tobytes(): index % 8 for index, (_, _, picture) in enumerate(drawn)}
            assert [brand_of[picture.tobytes()] for picture in pictures] == list(labels)
