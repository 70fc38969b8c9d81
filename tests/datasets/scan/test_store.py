"""The scan store: every file is scanned once, despite kills; ledgers are joined to it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.scan import run as scan_run
from datasets.scan.listing import list_into
from datasets.scan.pool import map_in_order
from datasets.scan.scan import Scanned, scan
from datasets.scan.store import ScanStore, file_to_key, to_features
from harness.errors import UserError
from tests.datasets.stand_in import StandIn, make_config, make_folder, noise_picture, rows_of

PLACE = Path("scan.sqlite")
SETTINGS = {"img_size": [32, 32]}


def run(classifier: Any = None, stop_after: int | None = None, settings: dict[str, Any] = SETTINGS) -> list[str]:
    """Lists and scans; returns the names of the files read. `stop_after`: interrupted after so many."""
    read: list[str] = []

    def scan_one(job):
        if stop_after is not None and len(read) == stop_after:
            raise KeyboardInterrupt
        read.append(Path(job.path).name)
        return scan(job)

    with ScanStore.open(PLACE, settings) as store:
        list_into(store, Path("photos"), "cars", "folder")
        store.delete_stale()
        try:
            scan_run.run_scan(
                store, make_config().data, classifier, 0, lambda _, jobs, workers: map_in_order(scan_one, jobs, 0)
            )
        except KeyboardInterrupt:
            pass
    return read


def kept(store: ScanStore, table: str, file: str) -> bytes | None:
    """What `pictures` or `features` holds of a file."""
    query = f"select {table}.* from {table} join scanned using (id) where key = ?"
    found = store.base.execute(query, (file_to_key(file),)).fetchone()
    return found and found[1]


def features_of(store: ScanStore, count: int) -> np.ndarray:
    return np.stack([to_features(kept(store, "features", f"{k:03d}.png") or b"") for k in range(count)])


def test_every_file_is_read_once():
    make_folder(5)
    assert len(run()) == 5 and run() == []
    with ScanStore.open(PLACE, SETTINGS) as store:
        rows = rows_of(store)
        assert [row.file for row in rows] == [f"{k:03d}.png" for k in range(5)] and store.count() == 5
        assert all((row.width, row.height, row.reason, row.class_name) == (120, 90, None, "cars") for row in rows)
        assert kept(store, "pictures", "003.png") == np.asarray(scan_of("003.png").picture).tobytes()
        assert kept(store, "pictures", "nope.png") is None
        assert rows[2].sha256 == scan_of("002.png").sha256


def scan_of(name: str) -> Scanned:
    return scan(scan_run.ScanJob(f"photos/{name}", 32, 32))


def test_changed_files_are_scanned_again_and_missing_ones_deleted():
    make_folder(5)
    run()
    Image.fromarray(noise_picture(99)).save("photos/001.png")
    os.utime("photos/002.png", ns=(1, 1))
    os.unlink("photos/003.png")
    assert run() == ["001.png", "002.png"]
    with ScanStore.open(PLACE, SETTINGS) as store:
        assert store.count() == 4 and kept(store, "pictures", "003.png") is None
        assert kept(store, "pictures", "001.png") == np.asarray(scan_of("001.png").picture).tobytes()
    make_folder(4)
    assert run() == ["000.png", "001.png", "002.png", "003.png"]


@pytest.mark.parametrize("stop_after", [0, 1, 7, 8, 9, 20, 37])
def test_a_kill_loses_one_block_at_most(stop_after, monkeypatch):
    monkeypatch.setattr(scan_run, "BLOCK_FILES", 8)
    make_folder(40)
    first = run(StandIn(), stop_after)
    again = run(StandIn())
    assert len(set(first) & set(again)) == stop_after % 8
    assert sorted({*first, *again}) == sorted(os.listdir("photos"))


def test_features_do_not_depend_on_neighbours_or_kills():
    make_folder(40)
    run(StandIn())
    with ScanStore.open(PLACE, SETTINGS) as store:
        whole = features_of(store, 40)
        blocks = list(store.feature_blocks(rows=7))
    assert np.array_equal(np.concatenate([features for _, features in blocks]), whole)
    assert np.concatenate([positions for positions, _ in blocks]).tolist() == list(range(40))
    PLACE.unlink()
    for stop_after in (3, 11, 30, None):
        run(StandIn(), stop_after)
    with ScanStore.open(PLACE, SETTINGS) as store:
        assert np.array_equal(features_of(store, 40), whole)


def test_batches_of_features_are_all_of_one_size():
    make_folder(40)
    sizes = []

    class Noting(StandIn):
        def features(self, inputs):
            sizes.append(len(inputs))
            return super().features(inputs)

    run(Noting())
    assert set(sizes) == {scan_run.FEATURE_FILES}


def test_another_classifier_needs_its_own_features():
    make_folder(4)
    assert len(run()) == 4
    assert len(run(StandIn("5"))) == 4 and run(StandIn("5")) == [] and run() == []
    assert len(run(StandIn("6"))) == 4


def test_transient_reasons_are_scanned_again():
    make_folder(3)
    PLACE.unlink(missing_ok=True)
    with ScanStore.open(PLACE, SETTINGS) as store:
        list_into(store, Path("photos"), "cars", "folder")
        reasons = ("unreadable: Input/output error", "timeout: too slow", "damaged: truncated")
        found = zip(list(store.pending(False)), reasons, strict=True)
        store.keep([(one, Scanned(reason=reason)) for one, reason in found], None)
    assert run() == ["000.png", "001.png"]


def test_other_settings_and_damage_replace_the_store_with_a_message(capsys):
    make_folder(3)
    run()
    assert len(run(settings={"img_size": [32, 32], "fast_decode": True})) == 3
    assert "other settings; every file is read again" in capsys.readouterr().err
    PLACE.write_bytes(b"no database at all, but some bytes that somebody wrote there" * 100)
    assert len(run()) == 3
    assert "cannot be used" in capsys.readouterr().err


# ---- ledgers ----------------------------------------------------------------------------------------------------


def ledger_line(url: str, file: str | None, **fields: Any) -> str:
    line = {"url": url, "status": "done" if file else "gone", "reason": None, "sha256": None, "file": file}
    return json.dumps(line | {"source": "commons", "class": None, "specs": None, "page": None} | fields) + "\n"


def listed(lines: str) -> tuple[list[str], dict[str, Any]]:
    Path("raw/ledger.jsonl").write_text(lines)
    with ScanStore.open(Path("raw.sqlite"), SETTINGS) as store:
        names = list_into(store, Path("raw"), "cars", "folder")
        rows = rows_of(store)
        assert [row.pos for row in rows] == list(range(len(rows)))
        assert [row.file for row in rows] == sorted(row.file for row in rows)
        return names, {row.file: row for row in rows}


@pytest.fixture
def raw() -> None:
    for name in ("files/bb/2.jpg", "files/aa/1.jpg", "files/aa/3.png", "pages/x.html", "pages/pic.jpg"):
        Path("raw", name).parent.mkdir(parents=True, exist_ok=True)
        Path("raw", name).write_bytes(b"x")


def test_a_ledger_has_the_origin_of_files(raw):
    specs = {"Horsepower": 300}
    classes, rows = listed(
        ledger_line("http://b", "files/bb/2.jpg", license="CC0", author="me", page="http://p", specs=specs)
        + ledger_line("http://a", "files/aa/1.jpg")
        + ledger_line("http://gone", None)
    )
    assert classes == ["cars"] and list(rows) == ["files/aa/1.jpg", "files/aa/3.png", "files/bb/2.jpg"]
    one = rows["files/bb/2.jpg"]
    assert (one.license, one.author, one.page, one.url) == ("CC0", "me", "http://p", "http://b")
    assert json.loads(one.specs) == specs and one.source == "commons"
    unknown = rows["files/aa/3.png"]  # not in the ledger
    assert (unknown.source, unknown.url, unknown.reason) == ("folder", None, None)


def test_classes_of_a_ledger_have_one_form(raw):
    lines = ledger_line("http://a", "files/aa/1.jpg", **{"class": "Citroe\u0308n"})
    lines += ledger_line("http://b", "files/bb/2.jpg", **{"class": "Citro\u00ebn"})
    lines += ledger_line("http://c", "files/aa/3.png", **{"class": "Citro\udcebn"})
    assert listed(lines)[0] == ["Citro\u00ebn"]


def test_a_ledgers_splits_are_used_with_layout_split(raw):
    line = ledger_line("http://a", "files/aa/1.jpg", split="train") + ledger_line("http://b", "files/bb/2.jpg")
    Path("raw/ledger.jsonl").write_text(line)
    with ScanStore.open(Path("raw.sqlite"), SETTINGS) as store:
        with pytest.raises(UserError, match="data.layout: found split, but no valid or test in raw/ledger.jsonl"):
            list_into(store, Path("raw"), "cars", "folder", "split")
        Path("raw/ledger.jsonl").write_text(line + ledger_line("http://b", "files/bb/2.jpg", split="valid"))
        query = "select split from listed order by pos"
        list_into(store, Path("raw"), "cars", "folder", "split")
        assert [split for (split,) in store.base.execute(query)] == ["train", None, "valid"]
        list_into(store, Path("raw"), "cars", "folder")
        assert [split for (split,) in store.base.execute(query)] == [None, None, None]


def test_the_last_complete_line_of_an_address_counts(raw):
    classes, rows = listed(
        ledger_line("http://a", "files/aa/1.jpg", license="old")
        + ledger_line("http://a", "files/aa/1.jpg", license="new")
        + ledger_line("http://b", "files/bb/2.jpg", license="was there")
        + ledger_line("http://b", None)
        + 'no json\n["a list"]\n{"url": 5}\n{"url": "http://a", "status": "done", "fi'
    )
    assert rows["files/aa/1.jpg"].license == "new" and rows["files/bb/2.jpg"].license is None


def test_the_address_with_a_class_counts(raw):
    lines = ledger_line("http://1", "files/aa/1.jpg") + ledger_line("http://9", "files/aa/1.jpg", **{"class": "Saab"})
    lines += ledger_line("http://5", "files/aa/1.jpg", **{"class": "Audi"})
    classes, rows = listed(lines)
    assert rows["files/aa/1.jpg"].class_name == "Audi" and rows["files/aa/1.jpg"].url == "http://5"
    assert classes == ["Audi", "unknown"] and rows["files/bb/2.jpg"].class_name == "unknown"


def test_files_in_the_ledger_alone_are_listed_as_unreadable(raw):
    lines = ledger_line("http://a", "files/aa/1.jpg") + ledger_line("http://z", "files/ab/lost.jpg")
    lines += ledger_line("http://evil", "../../etc/passwd") + ledger_line("http://evil2", "/etc/passwd")
    _, rows = listed(lines)
    assert str(rows["files/ab/lost.jpg"].reason).startswith("unreadable") and len(rows) == 4


def test_the_ledgers_sha256_is_compared(raw):
    with ScanStore.open(Path("raw.sqlite"), SETTINGS) as store:
        Path("raw/ledger.jsonl").write_text(ledger_line("http://a", "files/aa/1.jpg", sha256="f" * 64))
        list_into(store, Path("raw"), "cars", "folder")
        assert [one.expected for one in store.pending(False)] == ["f" * 64, None, None]
        store.keep(
            [(one, scan(scan_run.ScanJob(one.path, 32, 32, expected=one.expected))) for one in store.pending(False)],
            None,
        )
        assert list(store.pending(False)) == []
        assert rows_of(store)[0].reason.startswith("damaged: its sha256")
        Path("raw/ledger.jsonl").write_text(ledger_line("http://a", "files/aa/1.jpg", sha256="e" * 64))
        list_into(store, Path("raw"), "cars", "folder")
        assert [one.expected for one in store.pending(False)] == ["e" * 64]
