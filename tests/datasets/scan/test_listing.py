"""A folder is listed completely and in a fixed order; links, pipes and unreadable files get a reason."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datasets.scan.listing import list_into
from datasets.scan.store import ScanStore
from harness.errors import UserError
from tests.datasets.stand_in import rows_of


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(folder: Path, *reading: Any) -> tuple[list[str], list[SimpleNamespace]]:
    """(class names, every file in the order of the listing). `reading`: layout and ignore."""
    with ScanStore.open(folder.parent / f"{folder.name}.sqlite", {"img_size": [32, 32]}) as store:
        return list_into(store, folder, "cars", "folder", *reading), rows_of(store)


def names(files: list[SimpleNamespace]) -> list[str]:
    return [found.file for found in files if found.reason is None]


def test_folder_without_subfolders_is_one_class(tmp_path):
    touch(tmp_path / "b.jpg", tmp_path / "a.png", tmp_path / "Z.webp")
    classes, files = listed(tmp_path)
    assert classes == ["cars"]
    assert [(found.file, found.class_name) for found in files] == [
        (name, "cars") for name in ("Z.webp", "a.png", "b.jpg")
    ]


def test_subfolders_are_classes_and_deeper_ones_are_not(tmp_path):
    touch(tmp_path / "saab" / "1.jpg", tmp_path / "audi" / "2010" / "2.jpg", tmp_path / "audi" / "3.jpg")
    touch(tmp_path / "loose.jpg", tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    classes, files = listed(tmp_path)
    assert classes == ["audi", "saab"]
    assert {found.file: found.class_name for found in files if found.reason is None} == {
        "audi/2010/2.jpg": "audi",
        "audi/3.jpg": "audi",
        "saab/1.jpg": "saab",
    }
    assert [(found.file, found.reason) for found in files if found.reason] == [
        ("loose.jpg", "no_class: lies beside the class folders")
    ]


def test_thumbnails_and_rejected_pictures_are_ignored(tmp_path, capsys):
    """As on a NAS: a folder @eaDir with thumbnails of each photo."""
    photos = [f"{number:02d}.jpg" for number in range(30)]
    touch(*(tmp_path / name for name in photos), tmp_path / "rejected" / "a.jpg")
    touch(*(tmp_path / "@eaDir" / name / "SYNOPHOTO_THUMB_M.jpg" for name in photos))
    classes, files = listed(tmp_path)
    assert classes == ["cars"] and names(files) == photos
    assert sum(str(found.reason).startswith("ignored: @eaDir matches data.ignore") for found in files) == 30
    assert "one class; left out: @eaDir (30 files), rejected (1 files) (data.ignore)" in capsys.readouterr().err
    classes, files = listed(tmp_path, "classes", ["@eadir"])
    assert classes == ["rejected"] and names(files) == ["rejected/a.jpg"]


def test_more_pictures_beside_the_folders_than_inside_make_one_class(tmp_path, capsys):
    touch(*(tmp_path / f"{number}.jpg" for number in range(5)), tmp_path / "more" / "a.jpg")
    classes, files = listed(tmp_path)
    assert classes == ["cars"] and len(names(files)) == 6
    assert "one class; sub-folders are not classes (data.layout=classes: they are)" in capsys.readouterr().err


def test_splits_are_pooled_and_their_folders_are_the_classes(tmp_path, capsys):
    counts = {"train": 4, "valid": 1, "test": 2}
    touch(*(tmp_path / split / name / f"{k}.jpg" for split in counts for name in ("audi", "bmw")
            for k in range(counts[split])))  # fmt: skip
    classes, files = listed(tmp_path)
    assert classes == ["audi", "bmw"] and len(names(files)) == 14
    assert {found.file.split("/")[1] == found.class_name for found in files} == {True}
    assert "2 classes (audi, bmw); train, test, valid: pooled" in capsys.readouterr().err


def test_a_folder_without_pictures_is_no_class(tmp_path):
    """Stanford Cars, unpacked: cars_train/cars_train, cars_test/cars_test, and tables in devkit."""
    touch(*(tmp_path / name / name / "1.jpg" for name in ("cars_train", "cars_test")), tmp_path / "devkit" / "meta.mat")
    classes, files = listed(tmp_path)
    assert classes == ["cars"] and {found.class_name for found in files} == {"cars"}


def test_layout_split_wants_splits(tmp_path):
    touch(tmp_path / "audi" / "1.jpg", tmp_path / "bmw" / "2.jpg")
    with pytest.raises(UserError, match=r"data.layout: found split, but audi, bmw; allowed with folders train, valid"):
        listed(tmp_path, "split")


def test_hidden_files_and_tables_are_skipped(tmp_path):
    touch(tmp_path / ".recipe.json", tmp_path / ".git" / "a.jpg", tmp_path / "factors.CSV", tmp_path / "a.jpg")
    classes, files = listed(tmp_path)
    assert classes == ["cars"] and [found.file for found in files] == ["a.jpg"]


def test_order_is_that_of_the_bytes_of_the_names(tmp_path):
    odd = os.fsdecode(b"\xff\xfe.jpg")  # no valid UTF-8
    wanted = ["B.jpg", "a.jpg", "zürich 車.jpg", "車.jpg", odd]
    touch(*(tmp_path / name for name in reversed(wanted)))
    assert names(listed(tmp_path)[1]) == wanted


def test_link_loops_end_and_are_reported(tmp_path):
    touch(tmp_path / "audi" / "a.jpg")
    (tmp_path / "audi" / "again").symlink_to(tmp_path)
    (tmp_path / "audi" / "self.jpg").symlink_to(tmp_path / "audi" / "self.jpg")
    (tmp_path / "audi" / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    classes, files = listed(tmp_path)
    reasons = {found.file: found.reason for found in files if found.reason}
    assert classes == ["audi"] and names(files) == ["audi/a.jpg"]
    assert reasons["audi/again"] == "link: leads to a folder that was read already"
    assert str(reasons["audi/self.jpg"]).startswith("unreadable:")
    assert str(reasons["audi/nowhere.jpg"]).startswith("unreadable:")


def test_linked_folder_is_read(tmp_path):
    touch(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "saab").symlink_to(tmp_path / "elsewhere")
    classes, files = listed(tmp_path / "set")
    assert classes == ["saab"] and names(files) == ["saab/a.jpg"]


def test_a_pipe_is_not_opened(tmp_path):
    touch(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    _, files = listed(tmp_path)
    assert {found.file: found.reason for found in files} == {
        "a.jpg": None,
        "pipe.jpg": "not_a_file: a pipe, socket or device",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_reported(tmp_path):
    touch(tmp_path / "audi" / "a.jpg", tmp_path / "saab" / "b.jpg")
    (tmp_path / "saab").chmod(0)
    classes, files = listed(tmp_path)
    (tmp_path / "saab").chmod(0o755)
    assert classes == ["audi"]
    assert [found.reason for found in files if found.file == "saab"] == ["unreadable: Permission denied"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="data.src: cannot read .*nope"):
        listed(tmp_path / "nope")
