"""Every file is kept or has a reason: rules, duplicates, view classifier, then a person's decisions."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.clean import decide as stage
from datasets.clean.manual_labels import Decision
from datasets.clean.split import assign_splits
from datasets.pack.manifest import write_manifest
from datasets.scan.listing import list_into
from datasets.scan.run import run_scan
from datasets.scan.store import ScanStore
from tests.datasets.stand_in import StandIn, as_logo, make_config, noise_picture


@pytest.fixture(autouse=True)
def photos_folder(in_tmp_path):
    Path("photos").mkdir()


def save(name: str, picture: np.ndarray, **options: Any) -> None:
    Image.fromarray(picture).save(Path("photos") / name, **options)


def decided(
    *changes: str, decisions: dict[str, Decision] | None = None, classifier: Any = None
) -> dict[str, dict[str, Any]]:
    """File → manifest line."""
    config, classifier = make_config(*changes), classifier or StandIn()
    with ScanStore.open(Path("scan.sqlite"), {"img_size": [32, 32]}) as store:
        list_into(store, Path("photos"), "cars", "folder")
        store.delete_stale()
        run_scan(store, config.data, classifier, 0)
        stage.decide(store, config.clean, classifier, decisions or {})
        assign_splits(store, config.data.valid_fraction)
        write_manifest(store, Path("manifest.jsonl"))
    return {line["file"]: line for line in map(json.loads, Path("manifest.jsonl").read_text().splitlines())}


def slugs(lines: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {file: (line["reason"] or "kept").partition(":")[0] for file, line in lines.items()}


def by_hand(name: str, verdict: str = "", view: str = "", note: str = "") -> dict[str, Decision]:
    sha256 = hashlib.sha256((Path("photos") / name).read_bytes()).hexdigest()
    return {sha256: Decision(name, sha256, verdict, view, note)}


def test_every_rule_has_its_reason():
    save("small.png", noise_picture(1, 63, 100))
    save("tall.png", noise_picture(2, 200, 100))
    save("wide.png", noise_picture(3, 70, 300))
    save("blank.png", np.full((90, 120, 3), 130, np.uint8))
    save("dark.png", (noise_picture(4) * 0.1).astype(np.uint8))
    save("logo.png", as_logo(noise_picture(5)))
    save("right.png", noise_picture(6, nose="right"))
    save("good.png", noise_picture(7))
    Path("photos/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Path("photos/no.jpg").write_bytes(b"<html>")
    lines = decided("clean.views=[left,front_left]")
    assert slugs(lines) == {
        "small.png": "too_small", "tall.png": "aspect", "wide.png": "aspect", "blank.png": "blank", "dark.png": "dark",
        "logo.png": "logo", "right.png": "view", "good.png": "kept", "cut.png": "damaged", "no.jpg": "format",
    }  # fmt: skip
    assert {line["decided_by"] for name, line in lines.items() if name in ("logo.png", "right.png", "good.png")} == {
        "model"
    }
    assert {lines[name]["decided_by"] for name in ("small.png", "cut.png", "blank.png")} == {"rule"}
    scores = {name: line["ok_score"] for name, line in lines.items()}
    assert scores["good.png"] == 0.9 and scores["logo.png"] == 0.1 and scores["cut.png"] == scores["no.jpg"] == 0.0
    assert all(scores[name] <= 0.25 for name in ("small.png", "tall.png", "wide.png", "blank.png", "dark.png"))
    assert (lines["right.png"]["view"], lines["right.png"]["view_confidence"]) == ("front_right", 0.8)
    assert lines["right.png"]["reason"] == "view: front_right"


@pytest.mark.parametrize(
    "change, kept",
    [
        ("clean.min_side_px=90", True), ("clean.min_side_px=91", False),
        ("clean.min_aspect=1.33", True), ("clean.min_aspect=1.34", False),
        ("clean.max_aspect=1.34", True), ("clean.max_aspect=1.33", False),
        ("clean.min_ok_score=0.9", True), ("clean.min_ok_score=0.91", False),
        ("clean.min_view_confidence=0.8", True), ("clean.min_view_confidence=0.81", False),
        ("clean.views=null", True), ("clean.views=[other]", False),
    ],
)  # fmt: skip
def test_every_threshold_is_inclusive(change, kept):
    save("a.png", noise_picture(1, 90, 120))
    assert (decided(change)["a.png"]["verdict"] == "keep") is kept


def test_bars_do_not_count_for_size_and_shape():
    framed = np.zeros((220, 120, 3), np.uint8)
    framed[70:160] = noise_picture(1)
    save("a.png", framed)
    assert decided()["a.png"]["verdict"] == "keep"
    assert slugs(decided("clean.min_side_px=88")) == {"a.png": "too_small"}  # without its bars, and lines beside them


# ---- duplicates -------------------------------------------------------------------------------------------------


def test_of_the_same_bytes_the_first_stays():
    save("b.png", noise_picture(1))
    for name in ("c.png", "a.png"):
        (Path("photos") / name).write_bytes(Path("photos/b.png").read_bytes())
    lines = decided()
    assert slugs(lines) == {"a.png": "kept", "b.png": "duplicate", "c.png": "duplicate"}
    assert lines["b.png"]["duplicate_of"] == lines["c.png"]["duplicate_of"] == "a.png"
    assert lines["b.png"]["ok_score"] == 0.9  # a copy is as good a car as the other


def test_the_best_copy_stays():
    """The largest, then the least compressed, then the first."""
    whole = Image.fromarray(noise_picture(1, 180, 240))
    whole.save("photos/a_low.jpg", quality=60)
    whole.save("photos/b_high.jpg", quality=95)
    whole.resize((160, 120)).save("photos/c_small.png")
    lines = decided()
    assert slugs(lines) == {"a_low.jpg": "near_duplicate", "b_high.jpg": "kept", "c_small.png": "near_duplicate"}
    assert {line["duplicate_of"] for line in lines.values()} == {None, "b_high.jpg"}
    whole.resize((320, 240)).save("photos/d_large.jpg", quality=50)
    assert slugs(decided())["d_large.jpg"] == "kept" and slugs(decided())["b_high.jpg"] == "near_duplicate"


def test_near_duplicates_may_be_kept_and_then_share_a_split():
    for number in range(12):
        save(f"{number}.png", noise_picture(number))
        Image.fromarray(noise_picture(number)).resize((100, 75)).save(f"photos/{number}_copy.jpg", quality=80)
    assert list(slugs(decided()).values()).count("near_duplicate") == 12
    config = make_config("clean.near_duplicates=false", valid_fraction=0.4)
    with ScanStore.open(Path("scan.sqlite"), {"img_size": [32, 32]}) as store:
        stage.decide(store, config.clean, StandIn(), {})
        assign_splits(store, 0.4)
        splits = dict(store.base.execute("select key, d.split from decided d join listed using (pos)").fetchall())
    for number in range(12):
        assert splits[f"{number}.png".encode()] == splits[f"{number}_copy.jpg".encode()]
    assert set(splits.values()) == {"train", "valid"}


def test_pictures_that_may_be_copies_share_a_split(monkeypatch):
    """Possible copies are kept but never split between training and validation."""
    for number in range(20):
        save(f"{number:02d}.png", noise_picture(number))
    pairs = [stage.Pair(first, first + 1, False, False) for first in range(0, 20, 2)]
    monkeypatch.setattr(stage, "find_pairs", lambda _: iter(pairs))
    lines = list(decided("data.valid_fraction=0.4").values())
    assert all(line["verdict"] == "keep" for line in lines)
    assert all(lines[pair.first]["split"] == lines[pair.second]["split"] for pair in pairs)
    assert {line["split"] for line in lines} == {"train", "valid"}


# ---- a person ---------------------------------------------------------------------------------------------------


def test_a_decision_overrides_rules_and_model():
    save("good.png", noise_picture(1))
    save("logo.png", as_logo(noise_picture(2)))
    save("small.png", noise_picture(3, 40, 60))
    Path("photos/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save("copied.png", noise_picture(4))
    Path("photos/copy.png").write_bytes(Path("photos/copied.png").read_bytes())
    decisions = by_hand("good.png", "drop", note="ugly")
    for name in ("logo.png", "small.png", "cut.png", "copied.png"):
        decisions |= by_hand(name, "keep")
    lines = decided(decisions=decisions)
    assert slugs(lines) == {
        "good.png": "person", "logo.png": "kept", "small.png": "kept", "cut.png": "damaged", "copied.png": "kept",
        "copy.png": "duplicate",
    }  # fmt: skip
    assert lines["good.png"]["reason"] == "person: ugly" and lines["good.png"]["decided_by"] == "person"
    assert lines["logo.png"]["decided_by"] == lines["small.png"]["decided_by"] == "person"
    assert lines["cut.png"]["decided_by"] == "rule" and lines["cut.png"]["ok_score"] == 0.0


def test_a_decided_view_overrides_the_model():
    save("a.png", noise_picture(1, nose="right"))
    keep_left = "clean.views=[front_left]"
    assert slugs(decided(keep_left)) == {"a.png": "view"}
    lines = decided(keep_left, decisions=by_hand("a.png", view="front_left"))
    assert (lines["a.png"]["verdict"], lines["a.png"]["view"], lines["a.png"]["view_confidence"]) == (
        "keep",
        "front_left",
        1,
    )
    assert lines["a.png"]["decided_by"] == "person"
    assert slugs(decided(decisions=by_hand("a.png", view="rear"))) == {"a.png": "view"}
    assert slugs(decided(decisions=by_hand("a.png", "keep", "rear"))) == {"a.png": "kept"}
    logo = as_logo(noise_picture(2))
    save("a.png", logo)
    assert slugs(decided(decisions=by_hand("a.png", view="front_left"))) == {"a.png": "logo"}  # the view alone


def test_a_near_duplicate_can_be_kept_by_decision():
    save("a.png", noise_picture(1))
    Image.fromarray(noise_picture(1)).save("photos/b.jpg", quality=70)
    assert slugs(decided())["b.jpg"] == "near_duplicate"
    lines = decided(decisions=by_hand("b.jpg", "keep"))
    assert slugs(lines) == {"a.png": "kept", "b.jpg": "kept"} and lines["b.jpg"]["duplicate_of"] is None
    assert lines["a.png"]["split"] == lines["b.jpg"]["split"]


def test_enough_labels_trigger_a_few_shot_fit():
    for number in range(30):
        save(f"{number:02d}.png", noise_picture(number))
    decisions: dict[str, Decision] = {}
    for number in range(stage.MIN_LABELS):
        decisions |= by_hand(f"{number:02d}.png", ("keep", "drop", "")[number % 3], "left" if number % 3 == 2 else "")
    classifier = StandIn()
    lines = decided(decisions=decisions, classifier=classifier)
    features, ok, views = classifier.fitted_with
    assert len(features) == len(ok) == len(views) == stage.MIN_LABELS
    assert sorted(ok.tolist()) == [-1] * 8 + [0] * 8 + [1] * 8 and sorted(views.tolist()) == [-1] * 16 + [0] * 8
    assert lines["29.png"]["reason"].startswith("logo")  # the fitted stand-in predicts the opposite
    decisions.popitem()
    assert decided(decisions=decisions)["29.png"]["verdict"] == "keep"


# ---- sides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side, turned", [("left", "right"), ("right", "left"), (None, None)])
def test_noses_are_turned_to_one_side(side, turned):
    save("left.png", noise_picture(1, nose="left"))
    save("right.png", noise_picture(2, nose="right"))
    lines = decided(f"clean.mirror_to={side or 'null'}")
    assert [name for name, line in lines.items() if line["mirrored"]] == ([f"{turned}.png"] if turned else [])
    assert lines["right.png"]["view"] == "front_right"  # of the file as it is


def test_rear_left_has_its_nose_on_the_right():
    save("a.png", noise_picture(1))
    for view, mirrored in (("rear_left", True), ("rear_right", False), ("left", False), ("rear", False)):
        lines = decided("clean.mirror_to=left", decisions=by_hand("a.png", "keep", view))
        assert lines["a.png"]["mirrored"] is mirrored, view
