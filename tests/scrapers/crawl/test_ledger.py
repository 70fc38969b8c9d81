"""The ledger survives torn and damaged lines, and is small in memory."""

import json
import os
import random
import tracemalloc

import pytest

from harness.storage.json_files import line_to_json
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.ledger import Ledger, picture_line, url_key, valid_line
from scrapers.crawl.records import FetchCounts, PictureItem
from scrapers.crawl.store import PictureFiles
from tests.scrapers.faulty_site import fetch, make_picture, quick_politeness

NOTHING = PictureItem("http://a.example/1.jpg", "list")


def open_ledger(folder) -> Ledger:
    return Ledger(folder / "ledger.jsonl", PictureFiles(folder).scan())


def test_the_last_line_of_an_address_counts(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.add(picture_line(NOTHING, "failed", attempts=3))
    ledger.add(picture_line(NOTHING, "gone", attempts=4))
    assert ledger.status(NOTHING.url) == ("gone", 4)
    ledger.close()
    again = open_ledger(tmp_path)
    assert again.status(NOTHING.url) == ("gone", 4) and again.status("http://a.example/2.jpg") is None


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_torn_last_line_is_ignored_and_does_not_spoil_the_next(tmp_path, cut):
    ledger, path = open_ledger(tmp_path), tmp_path / "ledger.jsonl"
    other = PictureItem("http://a.example/2.jpg", "list")
    ledger.add(picture_line(NOTHING, "gone"))
    ledger.add(picture_line(other, "gone"))
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    ledger = open_ledger(tmp_path)
    # Without its line end alone, the line is whole.
    assert ledger.status(NOTHING.url) and bool(ledger.status(other.url)) == (cut == 1)
    ledger.add(picture_line(other, "gone"))
    ledger.close()
    assert all(valid_line(line_to_json(line)) for line in path.read_bytes().splitlines())
    assert path.read_bytes()[: len(whole) - 400] == whole[: len(whole) - 400]


def test_200_spoiled_ledgers_are_read_and_added_to(tmp_path, capsys):
    path, dice = tmp_path / "ledger.jsonl", random.Random(5)
    ledger = open_ledger(tmp_path)
    for number in range(12):
        ledger.add(picture_line(PictureItem(f"http://a.example/{number}.jpg", "list"), "gone"))
    ledger.close()
    whole = path.read_bytes()
    for _ in range(200):
        spoiled = bytearray(whole)
        for _ in range(dice.randint(1, 6)):
            at, kind = dice.randrange(len(spoiled)), dice.randrange(4)
            if kind == 0:
                spoiled[at] = dice.randrange(256)
            elif kind == 1:
                del spoiled[at : at + dice.randint(1, 300)]
            elif kind == 2:
                spoiled[at:at] = dice.choice(
                    [b"\n", b"\0" * 50, b"[" * 5000, b'{"url":"x","status":"done"}\n', b"9" * 5000]
                )
            else:
                del spoiled[at:]
            spoiled = spoiled or bytearray(b"\n")
        path.write_bytes(spoiled)
        capsys.readouterr()
        ledger = open_ledger(tmp_path)
        warned = "damaged" in capsys.readouterr().err
        ledger.add(picture_line(NOTHING, "refused", attempts=77))
        ledger.close()
        lines = path.read_bytes().splitlines()
        assert json.loads(lines[-1])["attempts"] == 77
        assert warned == any(valid_line(line_to_json(line)) is None for line in lines)
        assert open_ledger(tmp_path).status(NOTHING.url) == ("refused", 77)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'{"url": "x"}',
        b'{"url": 5, "status": "gone"}',
        b'{"url": "x", "status": "lost"}',
        b'{"url": "x", "status": ["gone"]}',
        b'{"url": "x", "status": "gone", "attempts": "3"}',
        b'{"url": "x", "status": "gone", "attempts": true}',
        b'{"url": "x", "status": "gone", "attempts": -1}',
        b'{"url": "x", "status": "done"}',
        b'{"url": "x", "status": "done", "sha256": "../../etc"}',
        b'{"url": "x", "status": "gone"',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_lines_that_make_no_sense(line):
    assert valid_line(line_to_json(line)) is None


def test_a_picture_that_has_gone_from_the_disk_is_asked_for_again(site, tmp_path, capsys):
    urls = [site.url(path) for path in site.add_pictures(4)]
    fetch(tmp_path, urls)
    files = sorted((tmp_path / "files").rglob("*.*"))
    files[0].unlink()
    assert fetch(tmp_path, urls)[0] == FetchCounts(done=1, skipped=3)
    assert sorted((tmp_path / "files").rglob("*.*")) == files
    assert "1 pictures are no longer in files/" in capsys.readouterr().err


def test_leftovers_of_a_killed_process_go(tmp_path):
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.add_local(make_picture(1), NOTHING)
    (picture,) = (tmp_path / "files").rglob("*.jpg")
    (picture.parent / ".tmp-123-x.jpg").write_bytes(b"half")
    with Fetcher(tmp_path, quick_politeness()):
        pass
    assert list(picture.parent.iterdir()) == [picture]


def test_a_damaged_file_is_written_again_when_its_picture_comes_again(tmp_path):
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.add_local(make_picture(1), NOTHING)
        (picture,) = (tmp_path / "files").rglob("*.jpg")
        picture.write_bytes(b"something else")
        fetcher.add_local(make_picture(1), PictureItem("http://a.example/other.jpg", "list"))
    assert picture.read_bytes() == make_picture(1)


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    ledger, real_write = open_ledger(tmp_path), os.write
    ledger.add(picture_line(NOTHING, "gone"))

    def full(descriptor, content):
        if descriptor == ledger.descriptor and len(content) < 200:
            raise OSError(28, "No space left on device")
        return real_write(descriptor, bytes(content)[:100])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        for _ in range(9):
            ledger.add(picture_line(PictureItem("http://a.example/2.jpg", "list"), "gone"))
    monkeypatch.undo()
    ledger.add(picture_line(PictureItem("http://a.example/3.jpg", "list"), "gone"))
    ledger.close()
    assert [json.loads(line)["url"][-5] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()] == ["1", "3"]


def test_lines_are_made_durable_in_batches(tmp_path, monkeypatch):
    ledger, synced, real = open_ledger(tmp_path), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    for _ in range(130):
        ledger.synced_at = float("inf")  # no time passes
        ledger.add(picture_line(NOTHING, "gone"))
    assert synced == [ledger.descriptor] * 2
    ledger.close()
    assert len(synced) == 3


def test_an_address_costs_few_bytes(tmp_path):
    line = picture_line(NOTHING, "gone")
    lines = (json.dumps({**line, "url": f"http://cars.example/{'a' * 150}/{number}.jpg"}) for number in range(5_000))
    (tmp_path / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    tracemalloc.start()
    try:
        ledger = open_ledger(tmp_path)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ledger.settled) == 5_000 and used / 5_000 < 250


def test_only_the_part_that_a_server_sees_tells_addresses_apart():
    assert url_key("http://a.example/1#x") == url_key("http://a.example/1#y") != url_key("http://a.example/2#y")
    assert url_key("archive:x.zip#a.jpg") != url_key("archive:x.zip#b.jpg")
