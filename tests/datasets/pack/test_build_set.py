"""A folder becomes a packed set: every file is accounted for, builds repeat, kills leave no incomplete file."""

import hashlib
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.clean.split import is_valid
from datasets.pack import build_set as build
from datasets.pack.recipe import STAGE_VERSION, SetPlan
from datasets.procedural.sets import render_many
from harness.config.experiment import Data
from harness.errors import UserError
from harness.storage.hdf5 import open_packed
from tests.datasets.stand_in import build_set, die_at, died_in_child, make_config, read_manifest
from tests.harness.pictures import encoded
from tests.refusals import refused


def make_data(**changes: Any) -> Data:
    return make_config(**changes).data


def built(**changes: Any) -> Data:
    """What a set of the photos was made from, in this process."""
    data = make_data(**changes)
    build_set(data, workers=0)
    return data


def draw(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    """Smooth noise: uint8 (height, width, 3), never black or white at the edges."""
    small = np.random.default_rng(seed).integers(60, 200, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, picture: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)


def make_folder(count: int, folder: Path = Path("photos")) -> None:
    for number in range(count):
        save(folder / f"{number:03d}.png", draw(number))


def packed_sha256(data: Data, split: Any = "train") -> str:
    with open_packed(data.hdf5_path(split)) as packed:
        return packed.sha256


def everything_kept(data: Data) -> dict[str, np.ndarray]:
    """File name → packed picture, found through the manifest's split and row."""
    kept = {}
    for line in read_manifest(data):
        if line["verdict"] == "keep":
            with open_packed(data.hdf5_path(line["split"])) as packed:
                kept[line["file"]] = packed.read(np.array([line["row"]]))[0]
    return kept


def test_manifest_leads_from_every_file_to_its_row():
    make_folder(30)
    data = make_data(valid_fraction=0.3)
    paths = build_set(data, workers=0)
    lines = read_manifest(data)
    assert paths == [data.hdf5_path("train"), data.hdf5_path("valid")]
    assert [line["file"] for line in lines] == sorted(p.name for p in Path("photos").iterdir())
    for number, line in enumerate(lines):
        content = (Path("photos") / line["file"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(content).hexdigest()
        assert (line["width"], line["height"], line["class"]) == (60, 40, "mine"), number
    for split in ("train", "valid"):
        with open_packed(data.hdf5_path(split)) as packed:
            assert sorted(line["row"] for line in lines if line["split"] == split) == list(range(packed.count))
            packed.check()
    expected = Image.fromarray(draw(7)).resize((32, 32), Image.Resampling.LANCZOS, box=(10, 0, 50, 40))
    assert np.array_equal(everything_kept(data)["007.png"], np.asarray(expected))


def test_damaged_and_other_files_are_dropped_with_a_reason():
    make_folder(6)
    save(Path("photos/cut.jpg"), draw(50, 300, 300))
    Path("photos/cut.jpg").write_bytes(Path("photos/cut.jpg").read_bytes()[:2000])
    Path("photos/empty.png").write_bytes(b"")
    Path("photos/not.jpg").write_bytes(b"<html>404</html>")
    Image.fromarray(draw(1)).save("photos/old.bmp")
    Path("photos/nowhere.jpg").symlink_to("gone.jpg")
    data = make_data()
    build_set(data, workers=2)
    lines = {line["file"]: line for line in read_manifest(data)}
    dropped = {name: line["reason"].partition(":")[0] for name, line in lines.items() if line["verdict"] == "drop"}
    assert dropped == {
        "cut.jpg": "damaged",
        "empty.png": "format",
        "not.jpg": "format",
        "old.bmp": "format",
        "nowhere.jpg": "unreadable",
    }
    assert len(lines) == 11
    assert all(line["split"] is None and line["row"] is None for line in lines.values() if line["verdict"] == "drop")
    summary = json.loads(SetPlan.of(data).summary.read_text())
    assert summary["dropped"] == {"damaged": 1, "format": 3, "unreadable": 1}
    assert summary["train"] + summary["valid"] == 6


def test_a_picture_without_its_last_bytes_is_kept_with_a_note(capsys):
    make_folder(3)
    Path("photos/000.png").write_bytes(Path("photos/000.png").read_bytes()[:-12])
    save(Path("photos/cut.jpg"), draw(50, 1000, 1000), quality=90)
    Path("photos/cut.jpg").write_bytes(Path("photos/cut.jpg").read_bytes()[:-2])
    lines = {line["file"]: line for line in read_manifest(built())}
    assert all(line["verdict"] == "keep" for line in lines.values()) and "note" not in lines["001.png"]
    assert lines["000.png"]["note"] == "cut short: all of its rows decode"
    assert lines["cut.jpg"]["note"].startswith("cut short: 9") and lines["cut.jpg"]["height"] == 1000
    assert "2 of them cut short: at least 95% of their rows decode" in capsys.readouterr().err


def test_the_colour_conversion_is_an_attribute_outside_the_recipe():
    """So sets built before there was a conversion stay valid."""
    make_folder(3)
    data = built()
    with open_packed(data.hdf5_path("train")) as packed:
        assert packed.attributes["colours"].startswith("sRGB (ICC profiles by LittleCMS ")
        assert "colours" not in packed.attributes["recipe"]
    summary = json.loads(SetPlan.of(data).summary.read_text())
    assert summary.pop("colours").startswith("sRGB")
    SetPlan.of(data).summary.write_text(json.dumps(summary))
    assert build_set(data, workers=0) == [data.hdf5_path("train"), data.hdf5_path("valid")]


def test_a_file_deleted_after_the_listing_is_dropped(monkeypatch):
    make_folder(4)
    list_into = build.list_into

    def list_then_lose(*arguments):
        found = list_into(*arguments)
        os.unlink("photos/002.png")
        return found

    monkeypatch.setattr(build, "list_into", list_then_lose)
    assert read_manifest(built())[2]["reason"] == "unreadable: No such file or directory"


def test_letterbox_bars_are_removed_before_the_crop():
    """128 x 128 with the photo in rows 16 to 111, like dealers' thumbnails."""
    for number in range(3):
        framed = np.zeros((128, 128, 3), np.uint8)
        framed[16:112] = draw(number, 96, 128)
        save(Path(f"photos/{number}.jpg"), framed, quality=90)
    data = built(img_size=64)
    for name, picture in everything_kept(data).items():
        assert picture.min() > 40, name  # no black row is left
        whole = Image.fromarray(draw(int(name[0]), 96, 128)).crop((16, 0, 112, 96))
        wanted = np.asarray(whole.resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(picture[4:-4] - wanted[4:-4]).mean() < 12, name


def test_folders_are_classes():
    make_folder(5, Path("photos/saab"))
    make_folder(3, Path("photos/audi"))
    data = make_data(valid_fraction=0)
    assert build_set(data, workers=0) == [data.hdf5_path("train")]
    with open_packed(data.hdf5_path("train")) as packed:
        assert packed.class_names == ["audi", "saab"]
        assert packed.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_layout_split_holds_valid_and_test_out_and_nothing_else():
    places = [f"{split}/{name}" for split in ("train", "valid", "test") for name in ("audi", "bmw")]
    for number, place in enumerate(places * 3):
        save(Path("photos", place, f"{number}.png"), draw(number))
    data = built(layout="split", valid_fraction=0)
    assert {line["file"].split("/")[0]: line["split"] for line in read_manifest(data)} == {
        "train": "train",
        "valid": "valid",
        "test": "valid",
    }
    with open_packed(data.hdf5_path("valid")) as packed:
        assert packed.count == 12 and packed.class_names == ["audi", "bmw"]
    with pytest.raises(UserError, match="layout: found 'split', the config says 'auto'"):
        build_set(make_data(valid_fraction=0), workers=0)


def test_layout_and_ignore_are_in_the_recipe_only_if_not_default():
    """So sets packed before these keys existed keep their hash."""
    assert not {"layout", "ignore"} & SetPlan.of(make_data()).recipe.keys()
    assert SetPlan.of(make_data(layout="flat", ignore=["x"])).recipe.items() >= {"layout": "flat"}.items()


def test_class_names_are_normalised():
    """Latin-1, decomposed (macOS) and composed names are one class; a line break is escaped."""
    for start, name in enumerate((b"Citro\xebn", "Citroe\u0308n".encode(), "Citro\u00ebn".encode(), b"a\nb")):
        for number in range(2):
            save(Path(os.fsdecode(b"photos/" + name), f"{number}.png"), draw(2 * start + number))
    data = built()
    assert json.loads(SetPlan.of(data).summary.read_text())["classes"] == {"Citro\u00ebn": 6, "a\\x0ab": 2}
    with open_packed(data.hdf5_path("train")) as packed:
        assert packed.class_names == ["Citro\u00ebn", "a\\x0ab"]


def test_non_square():
    make_folder(4)
    assert {picture.shape for picture in everything_kept(built(img_size=[128, 224])).values()} == {(128, 224, 3)}


def test_fast_decode_keeps_the_sources_size_and_is_in_the_recipe():
    turned = Image.Exif()
    turned[0x0112] = 6
    save(Path("photos/a.jpg"), draw(1, 300, 400), quality=95)
    save(Path("photos/b.jpg"), draw(2, 300, 400), quality=95, exif=turned)
    fast = built(fast_decode=True, set="fast", valid_fraction=0)
    exact = built(set="exact", valid_fraction=0)
    for data in (fast, exact):
        sizes = {line["file"]: (line["width"], line["height"]) for line in read_manifest(data)}
        assert sizes == {"a.jpg": (400, 300), "b.jpg": (300, 400)}
    with open_packed(fast.hdf5_path("train")) as packed:
        assert packed.attributes["recipe"]["fast_decode"] is True
    for name, picture in everything_kept(fast).items():
        assert 0 < np.abs(picture.astype(int) - everything_kept(exact)[name]).mean() < 4


def test_the_same_whatever_the_number_of_workers():
    make_folder(30)
    Path("photos/015.png").write_bytes(b"damaged")
    data, found = make_data(), set()
    for workers in (0, 1, 3):
        build_set(data, workers=workers, rebuild=True)
        found.add((SetPlan.of(data).manifest.read_bytes(), packed_sha256(data), packed_sha256(data, "valid")))
    assert len(found) == 1


def test_the_packed_set_does_not_depend_on_the_folders_path():
    make_folder(10)
    before = packed_sha256(built())
    os.rename("photos", "moved")
    build_set(make_data(src="moved"), workers=0, rebuild=True)
    assert packed_sha256(make_data()) == before


# ---- splits -----------------------------------------------------------------------------------------------------


def test_the_split_is_a_function_of_the_hash():
    """The first 52 bits as a number in [0, 1), compared with the fraction."""
    assert is_valid("0" * 64, 0.1) and is_valid("1999999999998" + "f" * 51, 0.1)
    assert not is_valid("199999999999b" + "0" * 51, 0.1) and not is_valid("f" * 64, 0.5)
    assert not is_valid("0" * 64, 0)


def test_same_bytes_are_never_in_both_splits():
    for number in range(20):
        save(Path(f"photos/{number:02d}.png"), draw(number))
        for copy in range(2):
            Path(f"photos/copy{copy}_{number:02d}.png").write_bytes(Path(f"photos/{number:02d}.png").read_bytes())
    data = built(valid_fraction=0.4)
    splits: dict[str, set[str]] = {}
    for line in read_manifest(data):
        splits.setdefault(line["sha256"], set()).add(line["split"])
    assert len(splits) == 20 and all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "valid"}


def test_new_pictures_do_not_move_old_ones():
    make_folder(20)
    data = built(valid_fraction=0.3)
    before = {line["file"]: line["split"] for line in read_manifest(data)}
    make_folder(40)
    build_set(data, workers=0, rebuild=True)
    after = {line["file"]: line["split"] for line in read_manifest(data)}
    assert before.items() <= after.items() and set(before.values()) == {"train", "valid"}


def picture_with_hash(valid_fraction: float, valid: bool, skip: int = 0) -> bytes:
    """A PNG file whose hash falls into the valid share, or does not."""
    files = (encoded(draw(seed)) for seed in range(10_000))
    fitting = (file for file in files if is_valid(hashlib.sha256(file).hexdigest(), valid_fraction) == valid)
    return next(islice(fitting, skip, None))


def test_a_small_set_still_holds_one_picture_out():
    Path("photos").mkdir()
    for number in range(5):
        content = picture_with_hash(0.1, valid=False, skip=number)
        Path(f"photos/{number}.png").write_bytes(content)
        Path(f"photos/{number}_copy.png").write_bytes(content)
    data = built(valid_fraction=0.1)
    lines = read_manifest(data)
    smallest = min(line["sha256"] for line in lines)
    assert [line["sha256"] for line in lines if line["split"] == "valid"] == [smallest] * 2  # with its copy
    assert sum(line["split"] == "train" for line in lines) == 8
    assert len(everything_kept(data)) == 10


def test_one_picture_is_for_training(capsys):
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(picture_with_hash(0.1, valid=False))
    data = make_data()
    assert build_set(data, workers=0) == [data.hdf5_path("train")]
    assert "no picture is held out" in capsys.readouterr().err
    assert build_set(data, workers=0) == [data.hdf5_path("train")]  # and it counts as complete


def test_one_picture_whose_hash_is_in_the_valid_share_is_for_training():
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(picture_with_hash(0.1, valid=True))
    assert [line["split"] for line in read_manifest(built())] == ["train"]


def test_a_class_is_never_held_out_as_a_whole():
    contents = {"a/0": (True, 0), "a/1": (True, 1), "a/2": (True, 2), "b/0": (True, 3), "c/0": (False, 0)}
    contents |= {"c/1": (False, 1), "c/2": (True, 4)}
    for name, (valid, skip) in contents.items():
        Path(f"photos/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Path(f"photos/{name}.png").write_bytes(picture_with_hash(0.3, valid, skip))
    lines = read_manifest(data := built(valid_fraction=0.3))
    trained = [line["file"] for line in lines if line["split"] == "train"]
    largest = max((line for line in lines if line["class"] == "a"), key=lambda line: line["sha256"])
    assert sorted(trained) == sorted([largest["file"], "b/0.png", "c/0.png", "c/1.png"])
    with open_packed(data.hdf5_path("train")) as packed:
        assert packed.class_names == ["a", "b", "c"] and set(packed.labels) == {0, 1, 2}


def test_the_picture_held_out_of_a_small_set_is_not_all_of_a_class():
    contents = sorted(
        (picture_with_hash(0.1, False, skip) for skip in range(4)), key=lambda c: hashlib.sha256(c).digest()
    )
    for name, content in zip(["a/0", "b/0", "b/1", "c/0"], contents, strict=True):
        Path(f"photos/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Path(f"photos/{name}.png").write_bytes(content)
    lines = read_manifest(built(valid_fraction=0.1))
    assert [line["file"] for line in lines if line["split"] == "valid"] == ["b/0.png"]


def test_classes_without_a_training_picture_are_left_out_with_a_message(capsys):
    for number, name in enumerate(["train/audi", "train/bmw", "test/audi", "test/saab"]):
        save(Path(f"photos/{name}/{number}.png"), draw(number))
    Path("photos/train/volvo").mkdir()
    Path("photos/train/volvo/a.jpg").write_bytes(b"no picture")
    data = built(layout="split")
    for split in ("train", "valid"):
        with open_packed(data.hdf5_path(split)) as packed:
            assert packed.class_names == ["audi", "bmw"] and packed.count == (2 if split == "train" else 1)
    reasons = {line["file"]: line["reason"] for line in read_manifest(data) if line["reason"]}
    assert reasons["test/saab/3.png"] == "no_training: its class has no training picture" and len(reasons) == 2
    output = capsys.readouterr().err
    assert all(f"class {name}: left out, it has no training picture" in output for name in ("saab", "volvo"))


@pytest.mark.parametrize("files", [0, 3])
def test_a_folder_without_usable_files_is_refused(files):
    Path("photos").mkdir()
    for number in range(files):
        Path(f"photos/{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"none of the 3 files .* \(3 format\)" if files else "found no file"):
        build_set(make_data(), workers=0)
    assert list(Path("data").rglob("*.hdf5*")) == []


# ---- rebuilds and kills ----------------------------------------------------------------------------------------


def test_a_complete_set_is_left_alone(monkeypatch):
    make_folder(8)
    first = build_set(make_data(), workers=0)
    before = [path.stat().st_mtime_ns for path in first]
    monkeypatch.setattr(build, "list_into", lambda *_: pytest.fail("built again"))
    assert build_set(make_data(), workers=0, verify=True) == first
    assert [path.stat().st_mtime_ns for path in first] == before


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"valid_fraction": 0.2}, "valid_fraction"),
        ({"fast_decode": True}, "fast_decode"),
        ({"fit": "pad"}, "fit"),
        ({"src": "other"}, "src"),
    ],
)
def test_another_recipe_stops_and_says_what_differs(changes, key):
    make_folder(8)
    make_folder(8, Path("other"))
    paths = build_set(make_data(), workers=0)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(UserError) as error:
        build_set(make_data(**changes), workers=0)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == [key]
    assert "--rebuild" in lines[-1] and "REBUILD=1" in lines[-1]
    assert [path.read_bytes() for path in paths] == before
    build_set(make_data(**changes), workers=0, rebuild=True)
    build_set(make_data(**changes), workers=0)


def test_padding_is_in_the_recipe():
    make_folder(8)
    changes: tuple[dict[str, Any], ...] = ({"fit": "pad", "set": "padded"}, {})
    paths = [built(**some, valid_fraction=0).hdf5_path("train") for some in changes]
    with open_packed(paths[0]) as packed, open_packed(paths[1]) as cropped:
        assert packed.attributes["recipe"]["fit"] == "pad" and cropped.attributes["recipe"]["fit"] == "crop"
        assert packed.sha256 != cropped.sha256 and packed.count == cropped.count


def test_a_set_packed_before_fit_existed_counts_as_cropped():
    make_folder(8)
    paths, summary = build_set(make_data(), workers=0), Path("data/sets/mine/summary-32.json")
    older = json.loads(summary.read_text())
    del older["recipe"]["fit"]
    summary.write_text(json.dumps(older))
    assert build_set(make_data(), workers=0) == paths
    with pytest.raises(UserError, match="fit: found 'crop', the config says 'pad'"):
        build_set(make_data(fit="pad"), workers=0)


def test_looseness_1_is_not_in_the_recipe():
    cars: dict[str, Any] = {"source": "procedural", "src": None, "count": 6, "valid_fraction": 0, "img_size": 32}
    with open_packed(built(**cars).hdf5_path("train")) as packed:
        assert "looseness" not in packed.attributes["recipe"]  # its hash, which runs keep, has the recipe in it
    assert "looseness" not in Path("data/raw/mine-32/.recipe.json").read_text()
    with pytest.raises(UserError, match=r"looseness: found 1.0, the config says 3.0"):
        built(**cars, looseness=3.0)
    build_set(make_data(**cars, looseness=3.0), workers=0, rebuild=True)
    with open_packed(built(**cars, looseness=3.0).hdf5_path("train")) as packed:
        drawn = [picture for _, _, picture in render_many("ordinary", 6, 0, 32, looseness=3.0)]
        assert {row.tobytes() for row in packed.read()} == {picture.tobytes() for picture in drawn}
    for path in Path("data/hdf5/mine").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"has another recipe[\s\S]*looseness: found 3.0, the config says 1.0"):
        built(**cars)


@pytest.mark.parametrize("src", [None, "$NO_SUCH_VARIABLE/photos"])
def test_a_complete_set_needs_no_folder(src):
    make_folder(8)
    paths = build_set(make_data(), workers=0)
    os.rename("photos", "moved")
    assert build_set(make_data(), workers=0) == paths
    assert build_set(make_data(src=src), workers=0) == paths
    with pytest.raises(UserError, match="data.src"):
        build_set(make_data(src=src), workers=0, rebuild=True)
    assert build_set(make_data(), workers=0) == paths


def test_another_size_is_another_set():
    make_folder(4)
    for size in (32, 64):
        built(img_size=size)
    assert len(list(Path("data").rglob("*_train.hdf5"))) == 2


def test_a_damaged_or_foreign_set_is_overwritten_only_with_rebuild():
    make_folder(8)
    train = build_set(make_data(), workers=0)[0]
    content = train.read_bytes()
    place = content.index(draw_row(train))
    train.write_bytes(content[:place] + b"\0\0\0\0" + content[place + 4 :])
    build_set(make_data(), workers=0)  # without verify the damage is not found
    with pytest.raises(UserError, match=r"rows 3: damaged[\s\S]*--rebuild"):
        build_set(make_data(), workers=0, verify=True)
    train.write_bytes(b"somebody's own file")
    with pytest.raises(UserError, match="--rebuild"):
        build_set(make_data(), workers=0)
    assert train.read_bytes() == b"somebody's own file"


def test_a_set_of_a_newer_version_is_refused(monkeypatch):
    make_folder(8)
    train = build_set(make_data(), workers=0)[0]
    summary = SetPlan.of(make_data()).summary
    before = train.read_bytes()
    summary.write_text(summary.read_text().replace(f'"stage_version": {STAGE_VERSION}', '"stage_version": 99'))
    with refused("summary-", "newer version", "format 99"):
        build_set(make_data(), workers=0)
    monkeypatch.setattr("harness.storage.hdf5.SCHEMA_VERSION", 0)  # as an older program has it
    with refused(str(train), "newer version", "format 1, allowed up to 0"):
        build_set(make_data(), workers=0)
    assert train.read_bytes() == before


def draw_row(train: Path) -> bytes:
    with open_packed(train) as packed:
        return packed.read(np.array([3]))[0].transpose(2, 0, 1).tobytes()[:64]


def test_missing_manifest_or_valid_set_means_building_again():
    make_folder(30)
    data = make_data()
    paths = build_set(data, workers=0)
    for lost in (SetPlan.of(data).manifest, paths[1]):
        lost.unlink()
        assert build_set(data, workers=0) == paths
        assert lost.exists()


def test_a_rebuild_without_valid_pictures_removes_the_old_ones():
    make_folder(30)
    assert len(build_set(make_data(), workers=0)) == 2
    data = make_data(valid_fraction=0)
    assert build_set(data, workers=0, rebuild=True) == [data.hdf5_path("train")]
    assert not data.hdf5_path("valid").exists()


@pytest.mark.parametrize("operation", ["replace", "fsync", "unlink"])
def test_killed_at_any_file_operation_of_a_rebuild(operation):
    """The old set is complete, or the next call finds an incomplete one and builds it: never a mixture."""
    make_folder(12)
    data = built()
    make_folder(20)
    old_or_new = {12, 20}
    for point in range(1, 101):
        if not died_in_child(lambda: build_set(data, workers=0, rebuild=True), die_at(os, operation, point)):
            break
        assert len(build_set(data, workers=0)) == 2
        lines = read_manifest(data)
        assert len(lines) in old_or_new and len(everything_kept(data)) == len(lines)
        if len(lines) == 20:
            old_or_new = {20}
    assert 3 < point < 101
    build_set(data, workers=0, rebuild=True)
    names = [path.name for path in Path("data").rglob("*")]
    assert not [name for name in names if name.startswith((".tmp-", "lock")) or "partial" in name]


# ---- real photos ------------------------------------------------------------------------------------------------


@pytest.mark.photos
def test_real_photos_are_accounted_for(photos):
    """Every file of the messy folder has a line; every picture can be used, every dealer's bar is gone."""
    data = make_data(src=str(photos / "messy"), img_size=64, set="messy")
    build_set(data, workers=2)
    files = [path for path in (photos / "messy").rglob("*") if path.is_file() and path.suffix != ".csv"]
    assert len(read_manifest(data)) == len(files)
    Path("dealer").mkdir()
    for path in sorted((photos / "dealer").iterdir())[:100]:
        (Path("dealer") / path.name).symlink_to(path)
    data = make_data(src="dealer", img_size=64, set="dealer")
    build_set(data, workers=2)
    kept = everything_kept(data)
    black_top = [name for name, picture in kept.items() if picture[:3].max() < 24]
    assert len(kept) == 100 and len(black_top) <= 3, black_top
