"""Which files of a folder are looked at, in which order and class, and what becomes of odd ones."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from datasets.scan.listing import list_into
from datasets.scan.store import ScanStore
from harness.errors import UserError
from tests.datasets.stand_in import rows_of


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(folder: Path) -> tuple[list[str], list[SimpleNamespace]]:
    """(class names, every file in the order of the listing)."""
    with ScanStore.open(folder.parent / f"{folder.name}.sqlite", {"img_size": [32, 32]}) as store:
        return list_into(store, folder, "cars", "folder"), rows_of(store)


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


def test_hidden_files_and_tables_are_not_looked_at(tmp_path):
    touch(tmp_path / ".recipe.json", tmp_path / ".git" / "a.jpg", tmp_path / "factors.CSV", tmp_path / "a.jpg")
    classes, files = listed(tmp_path)
    assert classes == ["cars"] and [found.file for found in files] == ["a.jpg"]


def test_order_is_that_of_the_bytes_of_the_names(tmp_path):
    odd = os.fsdecode(b"\xff\xfe.jpg")  # no valid UTF-8
    wanted = ["B.jpg", "a.jpg", "zürich 車.jpg", "車.jpg", odd]
    touch(*(tmp_path / name for name in reversed(wanted)))
    assert names(listed(tmp_path)[1]) == wanted


def test_link_loops_end_and_are_told(tmp_path):
    touch(tmp_path / "audi" / "a.jpg")
    (tmp_path / "audi" / "again").symlink_to(tmp_path)
    (tmp_path / "audi" / "self.jpg").symlink_to(tmp_path / "audi" / "self.jpg")
    (tmp_path / "audi" / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    classes, files = listed(tmp_path)
    faults = {found.file: found.reason for found in files if found.reason}
    assert classes == ["audi"] and names(files) == ["audi/a.jpg"]
    assert faults["audi/again"] == "link: leads to a folder that was read already"
    assert str(faults["audi/self.jpg"]).startswith("unreadable:")
    assert str(faults["audi/nowhere.jpg"]).startswith("unreadable:")


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
def test_unreadable_folder_is_told(tmp_path):
    touch(tmp_path / "audi" / "a.jpg", tmp_path / "saab" / "b.jpg")
    (tmp_path / "saab").chmod(0)
    classes, files = listed(tmp_path)
    (tmp_path / "saab").chmod(0o755)
    assert classes == ["audi"]
    assert [found.reason for found in files if found.file == "saab"] == ["unreadable: Permission denied"]


def test_missing_folder_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="data.src: cannot read .*nope"):
        listed(tmp_path / "nope")
