"""A cleaned set from files to HDF5: changes are refused, rebuilds read only what changed, hostile files, kills."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from datasets.bench.files import hostile_files, write_hostile
from datasets.clean.manual_labels import Decision
from datasets.pack import build_set as stage
from datasets.pack.recipe import SetPlan
from datasets.scan.pool import map_in_order
from datasets.scan.scan import ScanJob, Scanned, scan
from datasets.scan.store import ScanStore
from harness.config.experiment import Config
from harness.errors import UserError
from harness.storage.hdf5 import open_packed
from tests.commands import python_at_work, wait_until
from tests.datasets.stand_in import (
    StandIn,
    build_set,
    die_at,
    died_in_child,
    make_config,
    make_folder,
    noise_picture,
    read_manifest,
    write_decision,
)
from tests.harness.pictures import fit_picture


def build(config: Config, **options: Any) -> tuple[list[Path], StandIn]:
    classifier = options.pop("classifier", None) or StandIn()
    return build_set(
        config.data, config.clean, workers=options.pop("workers", 0), classifier=classifier, **options
    ), classifier


def sha256s(config: Config) -> list[str]:
    paths = [config.data.hdf5_path(split) for split in ("train", "valid")]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()]


def test_what_is_kept_is_packed_and_what_is_not_has_a_line():
    make_folder(20, logos=5)
    config = make_config(valid_fraction=0.3)
    paths, _ = build(config)
    lines = read_manifest(config.data)
    assert len(lines) == 20 and Counter(line["verdict"] for line in lines) == {"keep": 15, "drop": 5}
    for line in lines:
        assert 0 <= line["ok_score"] <= 1 and round(line["ok_score"], 4) == line["ok_score"]
        if line["verdict"] == "keep":
            with open_packed(config.data.hdf5_path(line["split"])) as packed:
                kept = packed.read(np.array([line["row"]]))[0]
            assert np.array_equal(kept, fit_picture(noise_picture(int(line["file"][:3])), 32, 32, "crop"))
    summary = json.loads(SetPlan.of(config.data).summary.read_text())
    assert summary["dropped"] == {"logo": 5} and summary["views"] == {"front_left": 15}
    assert summary["sorter"] == {"name": "stand_in", "sha256": "5" * 64, "threshold": 0.5, "labels": 0}
    with open_packed(paths[0]) as packed:
        assert packed.attributes["views"] == {"front_left": 15}
        assert packed.attributes["recipe"]["sorter"] == {"name": "stand_in", "sha256": "5" * 64}
        assert packed.attributes["recipe"]["clean"]["min_side_px"] == 64
        manifest = SetPlan.of(config.data).manifest.read_bytes()
        assert packed.attributes["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()


def test_mirrored_pictures_are_packed_mirrored():
    make_folder(6)
    build(make_config("clean.mirror_to=right", valid_fraction=0))
    with open_packed(make_config().data.hdf5_path("train")) as packed:
        pictures = packed.read()
    assert np.array_equal(
        pictures[:, :, ::-1], [fit_picture(noise_picture(number), 32, 32, "crop") for number in range(6)]
    )


def test_drawn_sets_are_not_cleaned():
    config = make_config(
        "data.source=procedural", "data.src=null", "data.count=5", "data.kind=concept", "clean.views=[rear]"
    )
    build_set(config.data, config.clean, workers=0)
    assert len(read_manifest(config.data)) == 5 and not SetPlan.of(config.data).scan.exists()
    assert all(line["verdict"] == "keep" and line["ok_score"] == 1.0 for line in read_manifest(config.data))


# ---- rebuilds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, key",
    [
        ("clean.min_side_px=70", "clean.min_side_px"), ("clean.views=null", "clean.views"),
        ("clean.mirror_to=left", "clean.mirror_to"), ("clean.features=reader", "clean.features"),
        ("clean.apply=false", "clean"),
    ],
)  # fmt: skip
def test_other_cleaning_is_refused_and_rebuilt_without_reading(change, key, monkeypatch):
    make_folder(12)
    build(make_config("clean.features=stand_in"))
    before = sha256s(make_config())
    with pytest.raises(UserError) as error:
        build(make_config("clean.features=stand_in", change))
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines if ": found" in line] in ([key], [key, "decisions_sha256"])
    assert "--rebuild" in lines[-1] and sha256s(make_config()) == before
    monkeypatch.setattr("datasets.scan.run.scan", lambda job: pytest.fail("read again"))
    build(make_config("clean.features=stand_in", change), rebuild=True)
    build(make_config("clean.features=stand_in", change))


def test_auto_accepts_a_set_made_by_another_classifier():
    make_folder(12)
    build(make_config("clean.features=auto"))
    _, classifier = build(make_config("clean.features=auto"), classifier=StandIn("7"))
    assert classifier.calls == 0
    build(make_config("clean.features=stand_in"))  # which auto was resolved to
    with pytest.raises(UserError, match="clean.features: found 'auto', the config says 'reader'"):
        build(make_config("clean.features=reader"))


def test_known_files_are_those_read_by_earlier_builds(capsys):
    make_folder(5)
    os.symlink("nowhere.png", "photos/link.png")
    build(make_config())
    assert "known" not in capsys.readouterr().err
    Image.fromarray(noise_picture(5)).save("photos/005.png")
    build(make_config(), rebuild=True)
    assert "mine: 1 files read, 5 known from earlier builds" in capsys.readouterr().err


def test_new_decisions_are_refused_and_applied_without_reading(monkeypatch):
    make_folder(12, logos=2)
    config = make_config()
    build(config)
    line, path = read_manifest(config.data)[5], SetPlan.of(config.data).decisions_path
    write_decision(path, Decision(line["file"], line["sha256"], "drop", "", "a note"))
    with pytest.raises(UserError, match="decisions.csv: has changed since the set was built"):
        build(config)
    monkeypatch.setattr("datasets.scan.run.scan", lambda job: pytest.fail("read again"))
    build(config, rebuild=True)
    assert read_manifest(config.data)[5]["reason"] == "person: a note"
    write_decision(path, Decision(line["file"], line["sha256"], "drop", "", "another note"))
    build(config)  # notes are for people


def test_a_missing_table_of_decisions_is_reported(capsys):
    make_folder(6)
    build(make_config("clean.decisions=typo.csv"))
    assert "clean.decisions: found no typo.csv, so no decision is applied" in capsys.readouterr().err


def test_the_message_about_a_bad_decision_does_not_suggest_a_rebuild():
    make_folder(6)
    config = make_config()
    build(config)
    SetPlan.of(config.data).decisions_path.write_text("file,sha256,verdict,view,note\na.png,12,drop,,\n")
    for options in ({}, {"rebuild": True}):
        with pytest.raises(UserError, match="line 2: sha256: found '12'") as error:
            build(config, **options)
        assert "--rebuild" not in str(error.value)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"recipe": []}'])
def test_a_missing_summary_is_reported_and_rebuilt(content: str | None):
    make_folder(6)
    config = make_config()
    build(config)
    summary = SetPlan.of(config.data).summary
    whole = summary.read_bytes()
    summary.unlink() if content is None else summary.write_text(content)
    with pytest.raises(UserError, match="summary-32.json: (not there|is damaged).*\n.*--rebuild"):
        build(config)
    build(config, rebuild=True)
    assert summary.read_bytes() == whole


def test_a_full_disk_under_the_store_is_reported_and_the_build_resumes(monkeypatch):
    make_folder(40)
    config = make_config()
    with monkeypatch.context() as patch:
        patch.setattr(ScanStore, "keep", Mock(side_effect=sqlite3.OperationalError("database or disk is full")))
        with pytest.raises(UserError, match="scan-32.sqlite: cannot be used .*disk is full.* --rescan"):
            build(config)
    build(config)
    assert Counter(line["verdict"] for line in read_manifest(config.data)) == {"keep": 40}


def test_another_spelling_of_the_folders_path_is_the_same():
    make_folder(6)
    build(make_config(src="photos"))
    os.mkdir("elsewhere")
    build(make_config(src=f"{os.getcwd()}/elsewhere/../photos"))
    with pytest.raises(UserError, match="src: found '.*photos', the config says '.*elsewhere'"):
        build(make_config(src="elsewhere"))


def test_decisions_may_be_in_another_file():
    make_folder(6)
    config = make_config("clean.decisions=mine.csv")
    sha256 = hashlib.sha256(Path("photos/002.png").read_bytes()).hexdigest()
    write_decision(Path("mine.csv"), Decision("002.png", sha256, "drop"))
    build(config)
    assert read_manifest(config.data)[2]["reason"] == "person"
    os.rename("mine.csv", "yours.csv")
    build(make_config("clean.decisions=yours.csv"))
    with pytest.raises(UserError, match="mine.csv: has changed"):
        build(config)


def test_a_rebuild_reads_what_changed_and_a_rescan_everything():
    make_folder(10)
    config, read = make_config(), []

    def noting(function: Any, jobs: Any, workers: int) -> Any:
        return map_in_order(lambda job: read.append(Path(job.path).name) or function(job), jobs, 0)

    build(config, mapper=noting)
    assert len(read) == 10
    make_folder(11)
    os.utime("photos/003.png", ns=(5, 5))
    stamps = {path.name: path.stat().st_mtime_ns for path in Path("photos").iterdir()}
    read.clear()
    build(config, rebuild=True, mapper=noting)
    assert set(read) == set(stamps)  # they were all written again
    read.clear()
    os.utime("photos/004.png", ns=(7, 7))
    build(config, rebuild=True, mapper=noting)
    assert read == ["004.png"]
    read.clear()
    build(config, rescan=True, mapper=noting)
    assert len(read) == 11


def test_sets_of_an_older_stage_are_refused():
    make_folder(5)
    config = make_config()
    build(config)
    summary = json.loads(SetPlan.of(config.data).summary.read_text())
    summary["recipe"] = {k: v for k, v in summary["recipe"].items() if k not in ("clean", "decisions_sha256")}
    summary["recipe"]["stage_version"] = 1
    SetPlan.of(config.data).summary.write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"stage_version: found 1[\s\S]*--rebuild"):
        build(config)


def test_dropping_every_file_is_refused_with_a_remedy():
    make_folder(4, logos=4)
    with pytest.raises(UserError, match=r"none of the 4 files .* \(4 logo; --set clean.apply=false keeps all"):
        build(make_config())


def test_the_same_whatever_the_number_of_workers():
    make_folder(40, logos=3)
    shutil.copy("photos/020.png", "photos/030_copy.png")
    config = make_config()
    found = set()
    for workers in (0, 1, 2):
        build(config, rescan=True, workers=workers)
        found.add((*sha256s(config), hashlib.sha256(SetPlan.of(config.data).manifest.read_bytes()).hexdigest()))
    assert len(found) == 1


# ---- hostile files ----------------------------------------------------------------------------------------------


def test_hostile_files_are_accounted_for():
    write_hostile(Path("hostile"), 3, 120)
    noted = {f"files/{name}": sha256 for name, _, sha256 in hostile_files(3, 120)}
    config = make_config("clean.apply=false", src="hostile")
    build(config, workers=2)
    lines = {line["file"]: line for line in read_manifest(config.data)}
    assert len(lines) == 120 and not any((line["reason"] or "").startswith("crash") for line in lines.values())
    assert all(str(lines[name]["reason"]).startswith("damaged") for name, sha256 in noted.items() if sha256)
    kept = {name: (line["width"], line["height"]) for name, line in lines.items() if line["verdict"] == "keep"}
    assert {name.partition("_")[2]: size for name, size in kept.items()} == {
        "10000x1.png": (10000, 1), "1x1.png": (1, 1), "cmyk.jpg": (96, 72), "la.png": (96, 72), "p_alpha.png": (96, 72),
        "i16.png": (96, 72), "turned.jpg": (72, 96), "no_end.png": (96, 72), "bomb.png": (64, 64),
    }  # fmt: skip
    reasons = {name.partition("_")[2]: (line["reason"] or "").partition(":")[0] for name, line in lines.items()}
    expected = {
        **dict.fromkeys("gif_named.jpg eps.jpg psd.jpg fits.jpg svg.jpg".split(), "format"),
        **dict.fromkeys("tiff_named.jpg bmp_named.png".split(), "format"),
        **dict.fromkeys("60000x60000.png 100_megapixels.png".split(), "too_large"),
        "flipped_bit.png": "damaged",
    }
    assert {name: reasons[name] for name in expected} == expected


def test_without_a_ledger_no_damaged_png_passes():
    write_hostile(Path("hostile"), 4, 200)
    (Path("hostile") / "ledger.jsonl").unlink()
    config = make_config("clean.apply=false", src="hostile")
    build(config)
    lines = read_manifest(config.data)
    assert len(lines) == 200
    damaged = [line for line in lines if line["file"].endswith("mutated.png")]
    taken = [line for line in damaged if line["verdict"] == "keep"]
    assert len(damaged) > 50 and len(taken) < 5, "all of which but the end is there"
    assert all(line["note"].startswith("cut short: ") for line in taken)


def scan_or_die(job: ScanJob) -> Scanned:
    if job.path.endswith("007.png"):
        os._exit(11)
    if job.path.endswith("011.png"):
        time.sleep(600)
    return scan(job)


def test_a_file_that_kills_or_blocks_its_decoder_costs_itself_alone(monkeypatch):
    make_folder(24)
    config = make_config()
    build(config, workers=2, mapper=lambda _, jobs, workers: map_in_order(scan_or_die, jobs, workers, timeout_sec=3))
    reasons = {line["file"]: line["reason"] for line in read_manifest(config.data) if line["reason"]}
    assert reasons["007.png"] == "crash: the decoder ended with code 11"
    assert reasons["011.png"].startswith("timeout") and len(reasons) == 2


# ---- kills ------------------------------------------------------------------------------------------------------


def test_killed_at_many_points_the_end_is_the_same(monkeypatch):
    monkeypatch.setattr("datasets.scan.run.BLOCK_FILES", 8)
    make_folder(40, logos=4)
    config = make_config()
    build(config)
    whole = sha256s(config)
    shutil.rmtree("data")
    points = [
        *((ScanStore, "keep", number, after) for number in (1, 2, 3) for after in (False, True)),
        (stage, "list_into", 1, True),
        (stage, "decide", 1, False),
        (stage, "assign_splits", 1, True),
        *((os, "replace", number, after) for number in (1, 2, 3, 4) for after in (False, True)),
    ]
    for point in points:
        if not died_in_child(lambda: build(config), die_at(*point)):
            SetPlan.of(config.data).manifest.unlink()  # it was complete: from here on only deciding and packing
    build(config)
    assert sha256s(config) == whole
    assert not [path for path in Path("data").rglob("*") if path.name.endswith(("partial", "-journal"))]


def test_kill_9_while_reading(monkeypatch):
    make_folder(150)
    config = make_config("clean.apply=false")
    build(config)
    whole = sha256s(config)
    shutil.rmtree("data")
    arguments = "folder photos --name mine --size 32 --workers 1 --set clean.apply=false".split()
    scanned = SetPlan.of(config.data).scan
    with python_at_work("-m", "datasets", *arguments, stderr=subprocess.DEVNULL):
        wait_until(lambda: scanned.exists() and scanned.stat().st_size >= 300_000, "a part of the files to be read")
    assert not config.data.hdf5_path("train").exists()
    build(config)
    assert sha256s(config) == whole
