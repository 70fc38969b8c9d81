"""Copies of one photo are found after resizing, compression, crops and mirroring; other pictures are no copies."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.clean.decide import decide
from datasets.clean.duplicates import Pair, compare, difference_ratio, find_pairs
from datasets.procedural.messy import MESSY_TABLE, read_messy, render_messy
from datasets.procedural.render import render
from datasets.procedural.sets import draw_picture_factors, render_many
from datasets.scan.fingerprints import fingerprint
from datasets.scan.listing import list_into
from datasets.scan.scan import ScanJob, make_thumb, scan
from datasets.scan.store import ScanStore
from tests.datasets.stand_in import noise_picture, rows_of


def scanned(folder: Path) -> ScanStore:
    """A store of all files, without cleaning."""
    store = ScanStore.open(folder.parent / f"{folder.name}.sqlite", {"img_size": [32, 32]})
    list_into(store, folder, "cars", "folder")
    block = [(one, scan(ScanJob(one.path, 32, 32, input_px=32))) for one in store.pending(False)]
    store.keep(block, np.zeros((sum(found.classifier_input is not None for _, found in block), 1), np.float32))
    decide(store, None, None, {})
    return store


def pairs_of(folder: Path) -> dict[tuple[str, str], Pair]:
    with scanned(folder) as store:
        names = [row.file for row in rows_of(store)]
        return {(names[pair.first], names[pair.second]): pair for pair in find_pairs(store)}


def changed(
    way: Callable[[Image.Image], Image.Image], kind: str = "PNG", **options: Any
) -> Callable[[Image.Image], bytes]:
    def apply(image: Image.Image) -> bytes:
        stream = io.BytesIO()
        way(image).save(stream, kind, **options)
        return stream.getvalue()

    return apply


def cut(share: float) -> Callable[[Image.Image], Image.Image]:
    def crop(image: Image.Image) -> Image.Image:
        x, y = share * image.width, share * image.height
        return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))

    return crop


COPIES = {
    "smaller": changed(lambda image: image.resize((110, 82), Image.Resampling.LANCZOS)),
    "larger": changed(lambda image: image.resize((400, 300), Image.Resampling.BICUBIC)),
    "compressed": changed(lambda image: image, "JPEG", quality=45),
    "webp": changed(lambda image: image, "WEBP", quality=60),
    "cropped": changed(cut(0.02), "JPEG", quality=88),
    "stretched": changed(lambda image: image.resize((200, 135))),
    "mirrored": changed(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=80),
    "mirrored_smaller": changed(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((120, 90))),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found(name, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind, _, picture in render_many_of("ordinary", 3):
        Image.fromarray(picture).save(folder / f"{kind}.png")
    (folder / "2_copy.png").write_bytes(COPIES[name](Image.open(folder / "2.png")))
    found = pairs_of(folder)
    assert list(found) == [("2.png", "2_copy.png")]
    pair = found["2.png", "2_copy.png"]
    assert pair.same and pair.mirrored == name.startswith("mirrored")


def render_many_of(kind: Any, count: int) -> list[tuple[str, Any, np.ndarray]]:
    return [(str(k), None, picture) for k, (_, _, picture) in enumerate(render_many(kind, count, 5, (120, 160)))]


def test_distinct_cars_are_no_copies(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("ordinary", "concept"):
        for name, _, picture in render_many_of(kind, 16):
            Image.fromarray(picture).save(folder / f"{kind}_{name}.png", compress_level=1)
    assert pairs_of(folder) == {}


def test_all_planted_copies_of_the_messy_set_and_no_others(tmp_path):
    folder = tmp_path / "messy"
    render_messy(48, 7, folder, 128)
    table = read_messy(folder / MESSY_TABLE)
    family = {file: original or file for file, (_, original, _) in table.items()}
    found = pairs_of(folder)
    wrong = [names for names in found if family[names[0]] != family[names[1]]]
    planted = {tuple(sorted((file, family[file]))) for file in table if file != family[file]}
    assert len(planted) == 8 and planted <= {names for names, pair in found.items() if pair.same} and wrong == []


def ratios(first: np.ndarray, second: np.ndarray) -> tuple[float, int]:
    """(difference after alignment, hash bits that differ)."""
    thumbs = np.stack([make_thumb(Image.fromarray(picture), picture.shape[1::-1]) for picture in (first, second)])
    one, other = fingerprint(thumbs).hashes.view(np.uint64)
    return float(difference_ratio(thumbs[:1], thumbs[1:])[0]), int(np.bitwise_count(one ^ other))


@pytest.mark.parametrize("index", range(4))
def test_another_car_in_the_same_place_is_no_copy(index):
    """Turned by 10 degrees or repainted, on the same backdrop: hashes hardly differ."""
    factors, seed = draw_picture_factors("ordinary", 5, index)
    picture = render(factors, 120, 160, seed)
    for change in ({"yaw_deg": factors.yaw_deg + 10}, {"paint_hue": (factors.paint_hue + 0.1) % 1}):
        other = render(replace(factors, **change), 120, 160, seed)
        amount, bits = ratios(picture, other)
        assert amount > 1.05 and bits < 16, change
    smaller = Image.fromarray(picture).resize((120, 90), Image.Resampling.LANCZOS)
    assert ratios(picture, np.asarray(smaller))[0] < 0.8


def test_nearly_black_pictures_are_no_copies():
    dark = (noise_picture(1) * 0.04 + 2).astype(np.uint8)
    light = dark + np.random.default_rng(3).integers(0, 2, (9, 12, 1)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    assert ratios(dark, light)[0] > 1 and np.abs(dark.astype(int) - light).mean() < 1


def test_alignment_finds_scale_and_shift():
    """Scale and shift of one picture against the other, in pixels of its own."""
    whole = noise_picture(5, 256, 256)
    part = Image.fromarray(whole).resize((64, 64), Image.Resampling.BICUBIC, box=(20, 10, 236, 250))
    small = Image.fromarray(whole).resize((64, 64), Image.Resampling.BICUBIC)
    rms, _, contrast = compare(np.asarray(part)[None], np.asarray(small)[None])
    assert rms[0] < 1.5 and contrast[0] > 20
    other = compare(np.asarray(part)[None], np.asarray(Image.fromarray(noise_picture(6, 64, 64)))[None])
    assert other[0][0] > 15
