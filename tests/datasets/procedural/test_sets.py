"""Sets on disk: tables round-trip, files depend on seed and number alone, the messy set has every kind."""

import hashlib
import io
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from datasets.procedural.factors import BODIES, FACTOR_NAMES
from datasets.procedural.messy import DAMAGED, SCHEDULE, make_messy, read_messy, render_messy
from datasets.procedural.render import render
from datasets.procedural.sets import brand_style, draw_picture_factors, render_many, render_set
from harness.errors import UserError
from tests.datasets.stand_in import read_factors


def shas(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_set_has_a_row_a_picture_and_the_row_draws_it_again(tmp_path):
    table = read_factors(render_set("concept", 5, 11, (24, 40), tmp_path / "a"))
    assert len(table) == 5 and {path.name for path in (tmp_path / "a").iterdir()} == {*table, "factors.csv"}
    for index, (name, (kind, seed, factors)) in enumerate(table.items()):
        assert kind == "concept" and (factors, seed) == draw_picture_factors("concept", 11, index)
        with Image.open(tmp_path / "a" / name) as image:
            assert np.array_equal(np.asarray(image), render(factors, 24, 40, seed))


def test_set_is_the_same_with_more_workers_or_more_pictures(tmp_path):
    render_set("ordinary", 6, 3, 16, tmp_path / "one")
    render_set("ordinary", 6, 3, 16, tmp_path / "two", workers=2)
    render_set("ordinary", 9, 3, 16, tmp_path / "more")
    one, two, more = (shas(tmp_path / name) for name in ("one", "two", "more"))
    assert one == two
    assert all(more[name] == digest for name, digest in one.items() if name.endswith(".png"))
    render_set("ordinary", 6, 4, 16, tmp_path / "other")
    assert not set(shas(tmp_path / "other").values()) & set(one.values())


def test_futurism_range_is_kept():
    drawn = [factors.futurism for factors, _, _ in render_many("ordinary", 12, 0, 16, futurism_range=(0.45, 0.55))]
    assert 0.45 <= min(drawn) < max(drawn) <= 0.55


@pytest.mark.parametrize("kind", ["ordinary", "concept", "brands"])
def test_looser_bodies_under_the_same_paint_from_the_same_side(kind):
    def drawn(looseness: float) -> np.ndarray:
        return np.array([astuple(draw_picture_factors(kind, 3, 8 * k, None, looseness)[0]) for k in range(60)])

    brand, as_they_are, loose = drawn(0.0), drawn(1.0), drawn(3.0)
    assert np.array_equal(as_they_are, [astuple(draw_picture_factors(kind, 3, 8 * k)[0]) for k in range(60)])
    for column, name in enumerate(FACTOR_NAMES):
        one, other = (np.abs(factors - brand)[:, column] for factors in (as_they_are, loose))
        if name in ("futurism", "yaw_deg", "pitch_deg", "distance", "framing", "spokes") or name.startswith("paint"):
            assert not one.any() and not other.any(), name
        else:
            assert other.mean() > 2 * one.mean(), name  # 3 times, but for the limits of a measure
    (loose_car, seed, picture), *_ = render_many(kind, 1, 3, (24, 48), looseness=3.0)
    assert (loose_car, seed) == draw_picture_factors(kind, 3, 0, None, 3.0)
    assert np.array_equal(picture, render(loose_car, 24, 48, seed, brand_style(kind, 0)))


def test_bodies_of_no_looseness_follow_from_futurism():
    bodies = [draw_picture_factors("concept", 3, k, (0.8, 0.8), 0.0)[0] for k in range(40)]
    assert len({(car.bonnet, car.roof_height, car.wheelbase) for car in bodies}) == len(BODIES)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "truck"}, {"size_px": 4}, {"size_px": (64, 5000)}, {"futurism_range": (0.5, 0.2)}, {"count": 0}],
)
def test_mistakes_are_refused(wrong):
    arguments = {"kind": "ordinary", "count": 1, "seed": 0, "size_px": 32} | wrong
    with pytest.raises(UserError, match=next(iter(wrong))):
        list(render_many(**arguments))


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("messy")
    return folder, read_messy(render_messy(2 * len(SCHEDULE), 5, folder, 64))


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_messy_table_is_complete(messy):
    folder, table = messy
    assert {path.name for path in folder.iterdir()} == {*table, "messy.csv"}
    assert {kind for kind, _, _ in table.values()} == set(SCHEDULE)
    assert {name.rpartition(".")[2] for name in table} == {"jpg", "png", "webp"}
    assert all(usable == (kind in ("good", "letterbox")) for kind, _, usable in table.values())


def test_damaged_files_do_not_decode_and_all_others_do(messy):
    folder, table = messy
    for name, (kind, _, _) in table.items():
        data = (folder / name).read_bytes()
        if kind in DAMAGED:
            with pytest.raises((UnidentifiedImageError, OSError)):
                decode(data)
        else:
            assert decode(data).size > 1000
            assert Image.open(io.BytesIO(data)).format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name[7:]]


def test_every_truncated_file_is_truly_undecodable():
    places = [number for number, kind in enumerate(SCHEDULE) if kind == "truncated"]
    for round_number in range(25):
        made = make_messy(9, places[0] + round_number * len(SCHEDULE), 48)
        assert made.kind == "truncated" and made.data
        with pytest.raises((UnidentifiedImageError, OSError)):
            decode(made.data)


def test_duplicates_name_a_usable_original(messy):
    folder, table = messy
    found = set()
    for name, (kind, duplicate_of, _) in table.items():
        assert bool(duplicate_of) == ("duplicate" in kind)
        if not duplicate_of:
            continue
        found.add(kind)
        assert table[duplicate_of][0] == "good" and duplicate_of < name
        ours, original = (folder / name).read_bytes(), (folder / duplicate_of).read_bytes()
        assert (ours == original) == (kind == "exact_duplicate")
        small = [np.asarray(Image.fromarray(decode(data)).resize((24, 24))).astype(float) for data in (ours, original)]
        assert np.abs(small[0] - small[1]).mean() < 14
    assert len(found) == 4


def test_wrong_shapes_dark_and_blank(messy):
    folder, table = messy
    for name, (kind, _, _) in table.items():
        if kind in DAMAGED:
            continue
        picture = decode((folder / name).read_bytes())
        aspect = picture.shape[1] / picture.shape[0]
        assert (aspect < 0.6 or aspect > 3) == (kind in ("tall", "wide", "stretched")), kind
        assert (picture.mean() < 20) == (kind == "dark") or kind == "blank", kind
        if kind == "blank":
            assert picture.std(axis=(0, 1)).max() < 2
        if kind == "letterbox":
            assert picture[:5].max() < 12 and picture[-5:].max() < 12


def test_messy_file_depends_on_seed_and_number_alone(messy):
    folder, table = messy
    for index in (0, 4, 9, 23, 30):
        made = make_messy(5, index, 64)
        assert made.data == (folder / made.file).read_bytes() and table[made.file][0] == made.kind
    assert make_messy(6, 0, 64).data != make_messy(5, 0, 64).data


def test_no_two_pictures_of_a_set_share_a_car_or_a_backdrop():
    drawn = [
        draw_picture_factors(kind, seed, index)
        for kind in ("ordinary", "concept")
        for seed in (0, 1)
        for index in range(50)
    ]
    assert len({factors.yaw_deg for factors, _ in drawn}) == len({seed for _, seed in drawn}) == 200
