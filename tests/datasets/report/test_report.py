"""The report of a build has the manifest's figures and the right pictures, is self-contained, and scales."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.clean.reasons import REASONS
from datasets.pack.manifest import MAX_NAMES, Manifest
from datasets.pack.recipe import SetPlan
from datasets.report import pictures, report
from datasets.report.car_colour import guess_colour
from datasets.report.report import funnel, update_report, write_report
from datasets.report.thumbnails import read_thumbnail
from harness.config.experiment import Data
from harness.errors import UserError
from harness.images.decode import PictureError
from tests.datasets.clinic_set import draw, line, write_set
from tests.datasets.stand_in import make_config
from tests.page import Page

HOSTILE = '<script>alert("x")</script>\udcff & co.jpg'


def small_set() -> tuple[Data, list[dict[str, Any]]]:
    """Twelve kept pictures, and one dropped at each step."""
    lines = [line(f"good/{k:02d}.jpg", view_confidence=round(0.3 + k / 20, 4)) for k in range(12)]
    lines[3] |= {"split": "valid", "view": "left", "license": "CC BY-SA 4.0", "page": "https://cars.example/a?b=1"}
    lines[4] |= {"class": "audi", "source": "commons", "author": "A", "decided_by": "person"}
    lines += [
        line("cut.jpg", reason="damaged: image file is truncated", decided_by="rule", ok_score=0.0),
        line("tiny.jpg", reason="too_small: 20 pixels", decided_by="rule"),
        line("again.jpg", reason="duplicate: of good/01.jpg", decided_by="rule", duplicate_of="good/01.jpg"),
        line("near.jpg", reason="near_duplicate: 3 bits", decided_by="rule", duplicate_of="good/02.jpg"),
        line("logo.jpg", reason="logo: score 0.46", ok_score=0.46),
        line("front.jpg", reason="view: front", ok_score=0.9, view="front", view_confidence=0.9),
        line(HOSTILE, reason="person: dropped by hand", decided_by="person", ok_score=0.7),
        line("gone.jpg", reason="unreadable: No such file", decided_by="rule", width=None, height=None),
    ]
    contents = {one["file"]: draw(k) for k, one in enumerate(lines) if one["file"] != "gone.jpg"}
    config = make_config()
    write_set(config, lines, contents)
    return config.data, lines


def page_of(data: Data) -> Page:
    write_report(SetPlan.of(data))
    return Page(SetPlan.of(data).report)


def alts_of(page: Page, begin: str = "") -> list[str]:
    return [one["alt"] for one in page.having("img") if one["alt"].startswith(begin)]


def test_the_funnel_ends_with_the_packed_pictures_and_names_every_reason():
    data, lines = small_set()
    steps = funnel(Manifest(SetPlan.of(data).manifest))
    assert [(step["name"], step["left"]) for step in steps] == [
        ("files", 20),
        ("decoded", 18),
        ("rules", 17),
        ("unique", 15),
        ("verdict", 14),
        ("view", 13),
        ("by hand", 12),
    ]
    assert sum(count for step in steps for _, count in step["lost"]) == sum(one["verdict"] == "drop" for one in lines)
    summary = json.loads(SetPlan.of(data).summary.read_text())
    assert steps[-1]["left"] == summary["train"] + summary["valid"]


@pytest.mark.parametrize("slug", [*REASONS, "something_new"])
@pytest.mark.parametrize("decider", ["rule", "model", "person"])
def test_every_reason_has_its_place_in_the_funnel(slug, decider, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(line("a.jpg", reason=f"{slug}: x", decided_by=decider)) + "\n")
    assert funnel(Manifest(manifest))[-1]["left"] == 0


def test_the_page_has_the_manifests_figures():
    assert write_report(SetPlan.of(small_set()[0])) == Path("data/sets/mine/report-32.html")
    page = Page(Path("data/sets/mine/report-32.html"))
    for words in (
        "12 of 20 files are in the set mine",
        "11 training pictures, 1 held out",
        "Too small 1 dropped",
        "image file is truncated",
        "cars.example",
        "CC BY-SA 4.0",
        "11 of 12 kept pictures have no recorded licence, 11 no author",
        "make clinic SET=mine",
        "kept from 0.50",
    ):
        assert words in page.text, words


def test_the_page_is_written_once_per_build():
    data = small_set()[0].model_copy(update={"src": "photos"})
    assert update_report(SetPlan.of(data)) == SetPlan.of(data).report
    assert update_report(SetPlan.of(data)) is None
    newer = SetPlan.of(data).report.stat().st_mtime + 1
    os.utime(SetPlan.of(data).manifest, (newer, newer))  # another build has ended since
    assert update_report(SetPlan.of(data)) == SetPlan.of(data).report
    assert update_report(SetPlan.of(data.model_copy(update={"source": "cifar10"}))) is None


def test_the_page_is_self_contained_and_escapes_hostile_names():
    page = page_of(small_set()[0])
    assert not page.having("script")
    assert HOSTILE.replace("\udcff", "\\udcff") in {one.get("title") for one in page.having("figcaption")}
    outside = [attributes for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert {(one.get("src") or one.get("href") or "")[:1] for one in outside} <= {"#", "d"}  # anchors and data:
    assert set(re.findall(r"url\((.)", page.html)) == {"#"}  # inside its own charts
    assert "@import" not in page.html
    assert str(Path.cwd()) not in page.html  # it may be sent: no place on this machine
    policy = [one["content"] for one in page.having("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_is_accessible():
    page = page_of(small_set()[0])
    assert page.having("html")[0]["lang"] == "en" and len(page.having("h1")) == 1
    assert all(one.get("alt") for one in page.having("img")) and page.having("img")
    assert all(one.get("aria-label") for one in page.having("svg")) and page.having("svg")
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in zip(headings, headings[1:], strict=False))
    targets = {one["id"] for _, one in page.tags if one.get("id")}
    assert {one["href"][1:] for one in page.having("a")} <= targets


def levels_of(file: Any) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def picture_of(page: Page, alt: str) -> np.ndarray:
    (uri,) = {one["src"] for one in page.having("img") if one["alt"] == alt}
    return levels_of(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_pictures_match_their_lines():
    """Kept ones as packed, dropped ones from their files, copies beside the best one."""
    page = page_of(small_set()[0])
    assert picture_of(page, "Kept, left: good/03.jpg").shape == (32, 32, 3)
    for alt, file in {"Dropped, Logo: ": "logo.jpg", "The copy that counts: ": "good/01.jpg"}.items():
        assert np.abs(picture_of(page, alt + file) - levels_of(f"photos/{file}")).mean() < 4
    alts = alts_of(page)
    assert not any("cut.jpg" in alt for alt in alts)  # what could not be decoded is not tried again
    assert alts.index("Dropped copy: near.jpg") == alts.index("The copy that counts: good/02.jpg") + 1


def test_mirrored_pictures_are_counted_by_their_packed_view():
    config = make_config()
    views = ("right", "front_left", "rear_right", "front")
    lines = [line(f"{k}.jpg", view=view, mirrored=view != "front_left") for k, view in enumerate(views)]
    write_set(config, lines, {one["file"]: draw(k) for k, one in enumerate(lines)})
    page = page_of(config.data)
    assert sorted(alts_of(page, "Kept")) == [
        "Kept, front: 3.jpg",
        "Kept, front_left: 1.jpg",
        "Kept, left: 0.jpg",
        "Kept, rear_left: 2.jpg",
    ]
    assert "3 of them mirrored" in page.text


def test_borderline_is_nearest_first():
    page = page_of(small_set()[0])
    assert alts_of(page, "Least certain view") == [f"Least certain view: good/{k:02d}.jpg" for k in range(12)]
    assert "Just dropped: logo.jpg" in alts_of(page)


def test_a_file_that_has_changed_since_the_build_is_not_shown():
    data, lines = small_set()
    Path("photos/logo.jpg").write_bytes(draw(99))
    with pytest.raises(PictureError, match="changed"):
        read_thumbnail(Path("photos"), next(one for one in lines if one["file"] == "logo.jpg"), 100, 100)
    page = page_of(data)
    assert "logo.jpg" in page.text and not any("logo.jpg" in alt for alt in alts_of(page))


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "", "."])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(draw(1))
    (tmp_path / "photos").mkdir()
    for file in (name, str(tmp_path / "secret.jpg")):
        fields = line(file, sha256=hashlib.sha256(draw(1)).hexdigest())
        with pytest.raises(PictureError, match="leads out|Is a directory"):
            read_thumbnail(tmp_path / "photos", fields, 100, 100)


def test_a_set_that_comes_decoded_and_is_not_cleaned():
    """Like CIFAR-10: no files, few fields."""
    config = make_config(set="plain")
    lines = [line(f"row/{k}.jpg") for k in range(4)]
    write_set(config, lines, {one["file"]: draw(k) for k, one in enumerate(lines)})
    few = ("file", "verdict", "reason", "sha256", "class", "split", "row", "width", "height")
    SetPlan.of(config.data).manifest.write_text("".join(json.dumps({k: one[k] for k in few}) + "\n" for one in lines))
    SetPlan.of(config.data).summary.write_text('{"recipe": {"source": "cifar10"}}')
    shutil.rmtree("photos/row")
    page = page_of(config.data)
    assert "4 of 4 files" in page.text and len(page.having("img")) == 4


def test_the_pages_size_is_limited(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PAGE_BYTES", 20_000)
    page = page_of(small_set()[0])
    uris = [one["src"] for one in page.having("img")]
    assert uris and sum(map(len, uris)) <= 20_000
    assert "example pictures were omitted to limit the page's size" in page.text


def write_manifest(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    with open(path, "w") as stream:
        stream.writelines(json.dumps(one) + "\n" for one in lines)
    return path


def test_examples_are_a_fixed_random_sample(tmp_path):
    lines = [line(f"{k}.jpg", sha256=hashlib.sha256(str(k).encode()).hexdigest()) for k in range(500)]
    chosen = []
    for number, order in enumerate((lines, lines[::-1])):
        manifest = Manifest(write_manifest(tmp_path / f"{number}.jsonl", order))
        chosen.append([one["file"] for one in manifest.examples("kept", 10)])
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == 10
    numbers = sorted(int(name.partition(".")[0]) for name in chosen[0])
    assert numbers[0] < 150 and numbers[-1] > 350
    ranks = {one["file"]: hashlib.sha256(f"{one['sha256']} {one['file']}".encode()).digest() for one in lines}
    assert chosen[0] == sorted(ranks, key=lambda name: ranks[name])[:10]  # as in every version


def test_foreign_texts_do_not_fill_memory(tmp_path):
    """The first MAX_NAMES names are counted one by one."""
    path = write_manifest(tmp_path / "m.jsonl", (line(f"{k}.jpg", license=f"licence {k}") for k in range(5000)))
    names = Manifest(path).count("license")
    assert len(names) == MAX_NAMES + 1 and sum(names.values()) == 5000
    assert list(names)[:2] == ["licence 0", "licence 1"] and names["(others)"] == 5000 - MAX_NAMES


def test_a_full_temporary_disk_is_reported(tmp_path, monkeypatch):
    path = write_manifest(tmp_path / "m.jsonl", [line("a.jpg")])
    monkeypatch.setattr("datasets.pack.manifest.AFTER_INSERT", ("pragma max_page_count = 1", "create table full (a)"))
    with pytest.raises(UserError, match="m.jsonl: cannot be counted .*is full.*TMPDIR"):
        Manifest(path)


def some_lines(count: int) -> Iterator[dict[str, Any]]:
    for k in range(count):
        fields = {"reason": (None, "logo: x", "blank: x", "duplicate: x")[k % 4], "license": f"licence {k}"}
        fields["duplicate_of"] = "0.jpg" if k % 4 == 3 else None
        yield line(f"{k}.jpg", sha256=f"{k:064x}", ok_score=k % 100 / 100, **fields)


def test_memory_does_not_grow_with_the_manifest(tmp_path):
    peaks = []
    for count in (4000, 20_000):
        path = write_manifest(tmp_path / f"{count}.jsonl", some_lines(count))
        tracemalloc.start()
        with Manifest(path) as manifest:
            assert manifest.total() == count
            page: Any = SimpleNamespace(of_file=lambda one, alt: {"file": one["file"]}, of_packed=lambda one, alt: {})
            for part in (report._dropped, report._views, report._duplicates):
                part(manifest, page)
            report._border(manifest, 0.5, page)
            report._unknown(manifest)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0], peaks


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((200, 30, 30), "red"),
        ((30, 70, 190), "blue"),
        ((40, 130, 60), "green"),
        ((235, 205, 40), "yellow"),
        ((15, 15, 18), "black"),
        ((245, 245, 244), "white"),
        ((185, 188, 190), "silver"),
    ],
)
def test_the_colour_is_the_middles_not_the_walls(colour, name):
    """A car in front of a wall of another colour, on a grey road."""
    picture = np.full((64, 96, 3), (120, 150, 120) if name != "green" else (150, 120, 110), np.uint8)
    picture[44:] = (90, 90, 92)
    picture[22:48, 14:82] = colour
    picture[40:52, 20:32] = picture[40:52, 64:76] = (10, 10, 10)
    assert guess_colour(picture) == name
