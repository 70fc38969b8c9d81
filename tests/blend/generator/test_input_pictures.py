"""Parents from folders, single files and packed sets: fitted like training pictures, unusable ones logged."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blend.generator.input_pictures import Parents, load_folder, load_held_out
from datasets.scan.scan import ScanJob, scan
from harness.images.decode import Fit, fit_image
from harness.storage.hdf5 import open_packed, spread_rows
from tests.blend.tiny_blend import tiny_config, write_packed
from tests.harness.pictures import encoded, png_header, scene
from tests.refusals import refused


def save(path: Path, seed: int, height: int = 40, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(height, width, seed)).save(path)


BAD = {
    "text.jpg": (b"I am no picture", "format"),
    "single_pixel.png": (encoded(scene(1, 1)), "too_small"),
    "huge.png": (png_header(10_000, 5_001), "too_large"),
    "cut.png": (encoded(scene(40, 60, 1))[:900], "damaged"),
}


def write_bad(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(BAD[name][0])


def assert_refused(folder: Path, text: str) -> None:
    with refused("found", "allowed", text):
        load_folder(folder, 32, 64, "crop")


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pictures_are_fitted_as_for_a_training_set(tmp_path: Path, fit: Fit):
    save(tmp_path / "b.png", 1)
    save(tmp_path / "a.jpg", 2, 90, 50)
    bar = np.zeros((40, 9, 3), np.uint8)
    barred = np.concatenate([bar, scene(40, 60, 3), bar], axis=1)
    Image.fromarray(barred).save(tmp_path / "c.webp", lossless=True)
    parents = load_folder(tmp_path, 32, 64, fit)
    assert parents.names == ["a.jpg", "b.png", "c.webp"]
    for name, sha256, picture in zip(parents.names, parents.sha256s, parents.pictures, strict=True):
        prepared = scan(ScanJob(str(tmp_path / name), 32, 64, fit=fit))
        assert sha256 == prepared.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert prepared.picture is not None and np.array_equal(picture, prepared.picture)
    inner = np.ascontiguousarray(scene(40, 60, 3)[:, 2:-2])  # lines beside a bar may be blended with it
    alone = fit_image(Image.fromarray(inner), 32, 64, fit)
    assert np.array_equal(parents.pictures[2], alone), "the letterbox bars are still there"


def test_a_picture_without_its_last_bytes_is_used_and_logged(tmp_path: Path, capsys):
    content = encoded(scene(1000, 600), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content[:-2])
    assert load_folder(tmp_path, 32, 64, "crop").names == ["a.jpg"]
    assert "a.jpg: cut short: 9" in capsys.readouterr().err


def test_system_thumbnails_are_ignored(tmp_path: Path):
    save(tmp_path / "a.jpg", 1)
    save(tmp_path / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg", 1)
    save(tmp_path / "old" / "Rejected" / "b.jpg", 2)
    assert load_folder(tmp_path, 32, 64, "crop").names == ["a.jpg"]


def test_pictures_of_sub_folders_are_used_and_other_files_are_not(tmp_path: Path, capsys: pytest.CaptureFixture):
    for number, name in enumerate(["vw/b.png", "vw/a.png", "audi/z.png", ".hidden/x.png", ".x.png"]):
        save(tmp_path / name, number)
    (tmp_path / "views.csv").write_text("file,view\n")
    parents = load_folder(tmp_path, 32, 32, "crop")
    assert parents.names == ["audi/z.png", "vw/a.png", "vw/b.png"]
    assert np.array_equal(parents.pictures[2], load_folder(tmp_path / "vw", 32, 32, "crop").pictures[1])
    assert capsys.readouterr().err == ""


def test_one_file_in_place_of_a_folder(tmp_path: Path):
    save(tmp_path / "a.png", 1)
    save(tmp_path / "b.png", 2)
    parents = load_folder(tmp_path / "b.png", 32, 32, "crop")
    assert parents.names == ["b.png"] and parents.pictures.shape == (1, 32, 32, 3)
    assert np.array_equal(parents.pictures[0], load_folder(tmp_path, 32, 32, "crop").pictures[1])


def test_count_limits_what_is_decoded(tmp_path: Path, capsys: pytest.CaptureFixture):
    for number in range(9):
        save(tmp_path / f"{number}.png", number)
    (tmp_path / "3.png").write_bytes(b"bad, but not asked for")
    assert load_folder(tmp_path, 32, 32, "crop", count=3).names == ["0.png", "4.png", "8.png"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", BAD)
def test_unusable_files_are_left_out_and_logged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    save(tmp_path / "good.png", 1)
    write_bad(tmp_path, name)
    assert load_folder(tmp_path, 32, 64, "crop").names == ["good.png"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"left out: {name}: {BAD[name][1]}: ")


@pytest.mark.parametrize("name", BAD)
def test_a_folder_without_usable_pictures_is_refused(name: str, tmp_path: Path):
    write_bad(tmp_path, name)
    for place in (tmp_path, tmp_path / name):
        assert_refused(place, f"{name}: {BAD[name][1]}: ")


def test_folders_without_pictures_are_refused(tmp_path: Path):
    for name in ("empty", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "links/gone.jpg").symlink_to("nowhere.jpg")
    for name, text in {"missing": "no such folder", "empty": "no picture", "links": "unreadable"}.items():
        assert_refused(tmp_path / name, text)


def test_odd_names_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture):
    save(tmp_path / "good.png", 1)
    for odd in (b"\xff.jpg", b"\xfe.jpg"):
        Path(str(tmp_path), odd.decode("utf-8", "surrogateescape")).write_bytes(b"")
    assert load_folder(tmp_path, 32, 32, "crop").names == ["good.png"]
    assert "\\xff.jpg: format" in capsys.readouterr().err


def test_held_out_rows_are_evenly_spread(tmp_path: Path):
    config = tiny_config()
    write_packed(tmp_path, config, "valid", 16, seed=3)
    parents = load_held_out(config.data, 4)
    assert isinstance(parents, Parents) and len(parents) == 4
    assert parents.names == ["valid-00000", "valid-00005", "valid-00010", "valid-00015"]
    with open_packed(config.data.hdf5_path("valid")) as packed:
        assert np.array_equal(parents.pictures, packed.read(np.array([0, 5, 10, 15])))
        assert parents.sha256s[1] == packed.row_sha256[5].tobytes().hex()
    assert len(load_held_out(config.data, 99)) == 16
    assert spread_rows(5, 1).tolist() == [0]


def test_training_rows_replace_missing_held_out_rows(tmp_path: Path):
    config = tiny_config(data__valid_fraction=0)
    write_packed(tmp_path, config, "train", 60, seed=3)
    parents = load_held_out(config.data, 9)
    with open_packed(config.data.hdf5_path("train")) as packed:
        rows = np.array([int(name.removeprefix("train-")) for name in parents.names])
        assert len(rows) == 3 and np.array_equal(parents.pictures, packed.read(rows))
    assert parents.note == "3 of the 60 of cars"


def test_a_set_of_another_size_is_refused(tmp_path: Path):
    config, other = tiny_config(), tiny_config(data__img_size=[32, 64])
    path = write_packed(tmp_path, other, "valid", 4, seed=3)
    path.rename(config.data.hdf5_path("valid"))
    with refused("found 32x64 pictures, allowed 32x32"):
        load_held_out(config.data, 4)
