"""A folder of pictures: its classes, its links, and what in it is no picture."""

import os

import pytest

from harness.errors import Interrupted, UserError
from scrapers.local import importer
from scrapers.local.folder import import_folder
from tests.scrapers.local.local_set import LocalSet, a_picture


@pytest.fixture
def local(tmp_path):
    return LocalSet(tmp_path / "set")


@pytest.fixture
def pictures(tmp_path):
    """Two classes, one of them nested."""
    folder = tmp_path / "cars"
    (folder / "audi" / "old").mkdir(parents=True)
    (folder / "bmw").mkdir()
    (folder / "audi" / "1.jpg").write_bytes(a_picture(1))
    (folder / "audi" / "old" / "2.png").write_bytes(a_picture(2, "PNG"))
    (folder / "bmw" / "3.webp").write_bytes(a_picture(3, "WEBP"))
    return folder


def run(local, folder, **options):
    with local.pictures() as held:
        return import_folder(folder, held, **options)


def test_class_folders(local, pictures):
    (pictures / "top.jpg").write_bytes(a_picture(4))
    (pictures / "readme.txt").write_text("cars")
    (pictures / ".DS_Store").write_bytes(b"x")
    assert (run(local, pictures).done, len(local.files)) == (4, 4)
    assert {line["url"]: line["class"] for line in local.lines if line["status"] == "done"} == {
        "folder:cars#top.jpg": None,
        "folder:cars#audi/1.jpg": "audi",
        "folder:cars#audi/old/2.png": "audi",
        "folder:cars#bmw/3.webp": "bmw",
    }
    assert local.refused == {"readme.txt": "not_a_picture"}


def test_folders_around_everything_are_no_classes(local, pictures, tmp_path):
    (tmp_path / "download" / "v3").mkdir(parents=True)
    os.rename(pictures, tmp_path / "download" / "v3" / "cars")
    run(local, tmp_path / "download")
    assert {line["class"] for line in local.lines} == {"audi", "bmw"}


def test_the_order_is_that_of_the_names(local, pictures):
    run(local, pictures)
    assert list(local.last) == ["audi/1.jpg", "audi/old/2.png", "bmw/3.webp"]


def test_links_out_of_the_folder_are_not_followed(local, pictures, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "s.jpg").write_bytes(a_picture(9))
    (pictures / "out.jpg").symlink_to(secret / "s.jpg")
    (pictures / "out").symlink_to(secret)
    (pictures / "up").symlink_to("..")
    (pictures / "inside.jpg").symlink_to("audi/1.jpg")
    (pictures / "loop").symlink_to(".")
    (pictures / "nowhere.jpg").symlink_to(pictures / "gone.jpg")
    (pictures / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(pictures / "pipe.jpg")
    assert run(local, pictures).done == 4
    assert "inside.jpg" in local.good and len(local.files) == 3
    assert local.refused == {
        "out.jpg": "link",
        "out": "link",
        "up": "link",
        "loop": "link",
        "nowhere.jpg": "unreadable",
        "self.jpg": "unreadable",
        "pipe.jpg": "not_a_file",
    }


def test_files_that_are_no_pictures_of_ours(local, pictures, monkeypatch):
    monkeypatch.setattr(importer, "MAX_PICTURE_BYTES", 2000)
    (pictures / "empty.jpg").write_bytes(b"")
    (pictures / "inner.zip").write_bytes(b"PK\3\4 and so on")
    (pictures / "page.jpg").write_bytes(b"<!doctype html><html>")
    (pictures / "big.jpg").write_bytes(a_picture(5) + bytes(2000))
    run(local, pictures)
    assert local.refused == {
        "empty.jpg": "not_a_picture",
        "inner.zip": "nested_archive",
        "page.jpg": "not_a_picture",
        "big.jpg": "too_large",
    }


def test_again_after_a_file_changed_and_one_came(local, pictures):
    run(local, pictures)
    (pictures / "audi" / "1.jpg").write_bytes(a_picture(11))
    (pictures / "bmw" / "4.jpg").write_bytes(a_picture(12))
    tally = run(local, pictures)
    assert (tally.done, tally.skipped) == (2, 2)
    assert len(local.files) == 5
    tally = run(local, pictures)
    assert (tally.done, tally.skipped) == (0, 4)


def test_a_file_that_was_no_picture_and_became_one(local, pictures):
    (pictures / "bmw" / "4.jpg").write_bytes(b"<html>moved")
    run(local, pictures)
    assert local.refused == {"bmw/4.jpg": "not_a_picture"}
    (pictures / "bmw" / "4.jpg").write_bytes(a_picture(4))
    assert run(local, pictures).done == 1 and len(local.files) == 4
    assert run(local, pictures).skipped == 4


def test_a_picture_whose_source_became_no_picture_keeps_what_is_known_of_it(local, pictures):
    run(local, pictures)
    (pictures / "audi" / "1.jpg").write_bytes(b"<html>moved")
    for _ in range(2):
        tally = run(local, pictures)
        assert (tally.refused, tally.skipped) == (1, 2)
    last = {line["url"]: line for line in local.lines}
    assert last["folder:cars#audi/1.jpg"]["class"] == "audi" and last["folder:cars#audi/1.jpg"]["status"] == "done"
    assert last["folder:cars#audi/1.jpg@refused"]["status"] == "refused" and len(local.lines) == 4


def test_a_signal_is_heard_among_files_that_are_refused(local, pictures):
    for path in pictures.rglob("*.*"):
        path.write_text("no picture")
    with local.pictures() as held:
        held.stopping = True
        with pytest.raises(Interrupted, match="goes on from here"):
            import_folder(pictures, held)
    assert len(local.lines) == 1


def test_a_picture_that_was_lost_from_the_store_comes_back(local, pictures):
    run(local, pictures)
    for path in (local.folder / "files").rglob("*.png"):
        path.unlink()
    assert run(local, pictures).done == 1 and len(local.files) == 3
    for path in (local.folder / "files").rglob("*.png"):
        path.write_bytes(b"")
    assert run(local, pictures).done == 1 and all(path.stat().st_size for path in (local.folder / "files").rglob("*.*"))


def test_names_that_are_no_text(local, pictures):
    with open(os.fsencode(pictures / "bmw") + b"/\xff\n.jpg", "wb") as stream:
        stream.write(a_picture(7))
    assert run(local, pictures).done == 4
    assert "bmw/\\udcff\\x0a.jpg" in local.good


def test_no_folder(local, tmp_path):
    with pytest.raises(UserError, match="SRC: found no folder"):
        run(local, tmp_path / "nothing")
