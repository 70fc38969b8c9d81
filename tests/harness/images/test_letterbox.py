"""Letterbox bars are removed; dark photos and cars shown before white stay unchanged."""

from pathlib import Path

import numpy as np
import pytest

from harness.images.decode import decode_picture
from tests.harness.pictures import encoded, fit_picture, scene, without_bars


def through_jpeg(picture: np.ndarray, quality: int = 70) -> np.ndarray:
    return decode_picture(encoded(np.ascontiguousarray(picture), "JPEG", quality=quality))


@pytest.mark.parametrize("colour", [0, 16, 255])
@pytest.mark.parametrize(
    "bars", [(12, 12, 0, 0), (0, 0, 20, 20), (30, 0, 0, 0), (0, 0, 0, 9), (10, 14, 9, 7), (5, 5, 5, 5)]
)
def test_bars_go(bars: tuple[int, int, int, int], colour: int):
    top, bottom, left, right = bars
    picture = np.pad(scene(120, 160), ((top, bottom), (left, right), (0, 0)), constant_values=colour)
    kept = without_bars(through_jpeg(picture))
    assert 112 <= kept.shape[0] <= 120 and 152 <= kept.shape[1] <= 160, "no bar stays, little of the picture goes"
    assert kept.shape[0] == 120 or top + bottom
    assert kept.shape[1] == 160 or left + right
    for edge in (kept[0], kept[-1], kept[:, 0], kept[:, -1]):
        assert (np.abs(edge.astype(int) - colour).max(axis=1) > 20).mean() > 0.5, "a line of a bar stayed"


@pytest.mark.parametrize("turns", range(4))
def test_a_bar_beside_a_dark_road_ends_where_its_pair_does(turns: int):
    road = scene(120, 160)
    road[80:] = road[80:] // 12  # no edge can be seen between it and the bar
    picture = through_jpeg(np.rot90(np.pad(road, ((20, 22), (0, 0), (0, 0))), turns))
    assert sorted(without_bars(picture).shape[:2]) in [[120 - lost, 160] for lost in range(5)]
    alone = through_jpeg(np.rot90(np.pad(road, ((0, 22), (0, 0), (0, 0))), turns))
    assert unchanged(alone), "without a pair there is nothing to end it"


def test_before_white_only_the_bar_that_can_be_seen_goes():
    studio = np.full((120, 160, 3), 255, np.uint8)
    studio[25:80, 20:140] = scene(55, 120)
    studio[80:100] = 90  # the floor
    assert without_bars(studio).shape == (98, 160, 3)


def unchanged(picture: np.ndarray) -> bool:
    return without_bars(picture).shape == picture.shape


def test_dark_and_bright_photos_survive():
    y = np.linspace(0, 1, 120)[:, None, None]
    night = np.broadcast_to((y**3 * 90).astype(np.uint8), (120, 160, 3)).copy()  # a sky that brightens downwards
    night[90:100, 60:110] = 200  # a lit car
    dusk = np.broadcast_to((y * 90).astype(np.uint8), (120, 160, 3))  # grows light steadily, from black
    assert unchanged(dusk) and unchanged(through_jpeg(dusk))
    assert unchanged(night) and unchanged(through_jpeg(night)) and unchanged(night.transpose(1, 0, 2))
    studio = np.full((120, 160, 3), 255, np.uint8)
    rows_px, columns_px = np.mgrid[:120, :160]
    car = ((rows_px - 70) / 25) ** 2 + ((columns_px - 80) / 65) ** 2 < 1
    studio[car] = scene(120, 160)[car]  # a round body before white
    assert unchanged(studio) and unchanged(through_jpeg(studio))
    stage = np.full((120, 160, 3), 4, np.uint8)
    stage[30:38, 50:100], stage[38:] = 180, 180  # a cabin, and below it a body as wide as the picture
    assert unchanged(stage) and unchanged(through_jpeg(stage))
    lamp = np.full((120, 160, 3), 4, np.uint8)
    lamp[40:60, 50:120] = 180
    assert unchanged(lamp) and unchanged(through_jpeg(lamp))


@pytest.mark.parametrize("level", [0, 8, 128, 255])
def test_a_flat_picture_stays(level: int):
    assert unchanged(np.full((50, 70, 3), level, np.uint8))
    assert unchanged(np.full((1, 1, 3), level, np.uint8))


@pytest.mark.parametrize("strip_px", [1, 2, 3, 4, 5, 6, 30])
@pytest.mark.parametrize("side", [8, 32, 64, 200, 330])
@pytest.mark.parametrize("colour", [0, 255])
def test_a_strip_between_two_bars_is_never_cut_to_nothing(strip_px: int, side: int, colour: int):
    """Bars end a line or two beyond their last flat one, on both sides."""
    strip = np.random.default_rng(strip_px).integers(60, 180, (min(strip_px, side - 2), 120, 3))
    above = (side - len(strip)) // 2
    below = side - len(strip) - above
    picture = np.pad(strip.astype(np.uint8), ((above, below), (0, 0), (0, 0)), constant_values=colour)
    for turned in (picture, picture.transpose(1, 0, 2)):
        kept = without_bars(turned)
        assert kept.size and (above <= 0.45 * side or unchanged(turned)), "at most 0.45 of a side is bar"
        assert fit_picture(turned, 16, 16, "crop").shape == (16, 16, 3)


def test_ordinary_pictures_stay():
    assert all(unchanged(scene(120, 160, seed)) for seed in range(20))
    grey_bars = np.pad(scene(120, 160), ((20, 20), (0, 0), (0, 0)), constant_values=128)
    assert unchanged(grey_bars), "a grey wall is a picture"


@pytest.mark.photos
def test_bars_of_real_photos(photos: Path):
    """The dealer's photos are 128 x 128 with black bars above and below; those of concepts have none but for a few."""
    dealer = [without_bars(decode_picture(path)) for path in sorted((photos / "dealer").glob("*.jpg"))[::60]]
    assert len(dealer) > 50
    assert sum(p.shape[1] >= 120 and 70 <= p.shape[0] <= 100 for p in dealer) >= 0.99 * len(dealer)
    concept = [decode_picture(path) for path in sorted((photos / "concept").glob("*.jpg"))[::4]]
    assert sum(unchanged(picture) for picture in concept) >= 0.95 * len(concept)
