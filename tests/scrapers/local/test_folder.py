"""A folder of pictures: classes, links, and files that are not pictures."""

import os

import pytest

from harness.errors import Interrupted, UserError
from scrapers.crawl.records import FetchCounts
from scrapers.local import importer
from scrapers.local.folder import import_folder
from tests.scrapers.local.local_set import a_picture, write_pictures


@pytest.fixture
def pictures(tmp_path):
    """Two classes, one of them nested."""
    folder = tmp_path / "cars"
    write_pictures(folder, "audi/1.jpg", "audi/old/2.png", "bmw/3.webp")
    return folder


def test_class_folders(local, pictures):
    (pictures / "top.jpg").write_bytes(a_picture(4))
    (pictures / "readme.txt").write_text("cars")
    (pictures / ".DS_Store").write_bytes(b"x")
    assert (local.take(import_folder, pictures).done, len(local.files)) == (4, 4)
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
    local.take(import_folder, tmp_path / "download")
    assert {line["class"] for line in local.lines} == {"audi", "bmw"}


def test_the_order_is_that_of_the_names(local, pictures):
    local.take(import_folder, pictures)
    assert list(local.last) == ["audi/1.jpg", "audi/old/2.png", "bmw/3.webp"]


def test_links_out_of_the_folder_are_not_followed(local, pictures, tmp_path):
    secret = tmp_path / "secret"
    write_pictures(secret, "a.jpg", "s.jpg")
    links = {
        "out.jpg": secret / "s.jpg",
        "out": secret,
        "up": "..",
        "inside.jpg": "audi/1.jpg",
        "loop": ".",
        "nowhere.jpg": pictures / "gone.jpg",
        "self.jpg": "self.jpg",
    }
    for name, target in links.items():
        (pictures / name).symlink_to(target)
    os.mkfifo(pictures / "pipe.jpg")
    assert local.take(import_folder, pictures).done == 4
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
    found = {
        "empty.jpg": (b"", "not_a_picture"),
        "inner.zip": (b"PK\3\4 and so on", "nested_archive"),
        "page.jpg": (b"<!doctype html><html>", "not_a_picture"),
        "big.jpg": (a_picture(5) + bytes(2000), "too_large"),
    }
    for name, (content, _) in found.items():
        (pictures / name).write_bytes(content)
    local.take(import_folder, pictures)
    assert local.refused == {name: slug for name, (_, slug) in found.items()}


def test_again_after_a_file_changed_and_one_came(local, pictures):
    local.take(import_folder, pictures)
    (pictures / "audi" / "1.jpg").write_bytes(a_picture(11))
    (pictures / "bmw" / "4.jpg").write_bytes(a_picture(12))
    assert local.take(import_folder, pictures) == FetchCounts(done=2, skipped=2)
    assert len(local.files) == 5
    assert local.take(import_folder, pictures) == FetchCounts(skipped=4)


def test_a_file_that_was_no_picture_and_became_one(local, pictures):
    (pictures / "bmw" / "4.jpg").write_bytes(b"<html>moved")
    local.take(import_folder, pictures)
    assert local.refused == {"bmw/4.jpg": "not_a_picture"}
    (pictures / "bmw" / "4.jpg").write_bytes(a_picture(4))
    assert local.take(import_folder, pictures).done == 1 and len(local.files) == 4
    assert local.take(import_folder, pictures).skipped == 4


def test_a_picture_whose_source_became_no_picture_keeps_what_is_known_of_it(local, pictures):
    local.take(import_folder, pictures)
    (pictures / "audi" / "1.jpg").write_bytes(b"<html>moved")
    for _ in range(2):
        assert local.take(import_folder, pictures) == FetchCounts(refused=1, skipped=2)
    kept, refused = local.last["audi/1.jpg"], local.last["audi/1.jpg@refused"]
    assert (kept["class"], kept["status"], refused["status"]) == ("audi", "done", "refused") and len(local.lines) == 4


def test_a_signal_is_heard_among_files_that_are_refused(local, pictures):
    for path in pictures.rglob("*.*"):
        path.write_text("no picture")
    with local.pictures() as held:
        add = held.ledger.add

        def add_and_stop(line):
            add(line)
            held.stopping = True

        held.ledger.add = add_and_stop
        with pytest.raises(Interrupted, match="resumes from here"):
            import_folder(pictures, held)
    assert len(local.lines) == 1


def test_a_picture_that_was_lost_from_the_store_comes_back(local, pictures):
    local.take(import_folder, pictures)
    for path in (local.folder / "files").rglob("*.png"):
        path.unlink()
    assert local.take(import_folder, pictures).done == 1 and len(local.files) == 3
    for path in (local.folder / "files").rglob("*.png"):
        path.write_bytes(b"")
    assert local.take(import_folder, pictures).done == 1 and all(
        path.stat().st_size for path in (local.folder / "files").rglob("*.*")
    )


def test_names_that_are_no_text(local, pictures):
    with open(os.fsencode(pictures / "bmw") + b"/\xff\n.jpg", "wb") as stream:
        stream.write(a_picture(7))
    assert local.take(import_folder, pictures).done == 4
    assert "bmw/\\udcff\\x0a.jpg" in local.good


def test_no_folder(local, tmp_path):
    with pytest.raises(UserError, match="SRC: found no folder"):
        local.take(import_folder, tmp_path / "nothing")
