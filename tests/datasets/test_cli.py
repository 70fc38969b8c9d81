"""`python -m datasets …`: paths on stdout, messages on stderr, exit codes, signals."""

import errno
import json
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from datasets.__main__ import app
from datasets.pack import build_set, draw_procedural
from harness.errors import UserError
from harness.storage.hdf5 import open_packed
from tests.commands import python_at_work, run_python, wait_until
from tests.datasets.stand_in import BASE, StandIn, make_folder, noise_picture

CONFIG = f"""extends: {BASE}
data: {{set: road, count: 6, img_size: 32}}
finetune: {{override: {{data: {{set: show, kind: concept}}}}}}
"""


@pytest.fixture(autouse=True)
def experiment(tmp_path) -> Path:
    """A config of two small drawn sets."""
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def call(*arguments: str) -> None:
    """Runs the command in this process."""
    app([*arguments, "--workers", "0"], standalone_mode=False)


def packed_count(name: str) -> int:
    total = 0
    for path in Path(f"data/hdf5/{name}").glob("*.hdf5"):
        with open_packed(path) as packed:
            total += packed.count
    return total


def test_a_set_is_named_after_its_folder(monkeypatch):
    monkeypatch.setattr(build_set, "_load_classifier", lambda name: StandIn())
    make_folder(3, folder=Path("my cars (new)"))
    call("folder", "my cars (new)", "--size", "32")
    assert packed_count("my_cars_new") == 3
    Path("(-)").mkdir()
    with pytest.raises(UserError, match=r"NAME: found no letter or digit in \(-\)"):
        call("folder", "(-)")


def test_build_makes_both_sets_once(experiment, capsys):
    call("build", "--config", str(experiment))
    first = capsys.readouterr()
    assert first.out.splitlines() == [
        f"data/hdf5/{name}/custom_32_{split}.hdf5" for name in ("road", "show") for split in ("train", "valid")
    ]
    assert packed_count("road") == packed_count("show") == 6
    call("build", "--config", str(experiment))
    again = capsys.readouterr()
    assert again.out == first.out and "road at 32: complete" in again.err


@pytest.mark.parametrize("stage, name", [("train", "road"), ("finetune", "show")])
def test_a_stage_builds_its_set_alone(experiment, stage, name):
    call("build", "--config", str(experiment), "--stage", stage)
    assert [path.name for path in Path("data/hdf5").iterdir()] == [name]


def test_src_needs_one_stage(tmp_path):
    config = tmp_path / "photos.yaml"
    config.write_text(
        f"extends: {BASE}\ndata: {{set: own, source: folder, img_size: 32}}\n"
        "clean: {apply: false}\n"
        "finetune: {override: {data: {set: own-concept}}}\n"
    )
    make_folder(3, folder=Path("mine"))
    make_folder(3, logos=3, folder=Path("concepts"))
    with pytest.raises(UserError, match="data.src: found nothing"):
        call("build", "--config", str(config), "--stage", "train")
    call("build", "--config", str(config), "--stage", "train", "--src", "mine")
    call("build", "--config", str(config), "--stage", "finetune", "--src", "concepts")
    call("build", "--config", str(config))  # both are there now
    assert packed_count("own") == packed_count("own-concept") == 3
    with pytest.raises(UserError, match="one folder for two sets"):
        call("build", "--config", str(config), "--src", "mine")


def test_dry_run_touches_nothing(experiment, capsys):
    call("build", "--config", str(experiment), "--dry-run")
    assert "# set road at 32: to be built into data/hdf5/road" in capsys.readouterr().out
    assert not Path("data").exists()


def test_another_count_is_refused_and_rebuilt(experiment):
    call("build", "--config", str(experiment), "--stage", "train")
    changed = ["build", "--config", str(experiment), "--stage", "train", "--set", "data.count=9"]
    with pytest.raises(UserError, match=r"count: found 6, the config says 9[\s\S]*--rebuild"):
        call(*changed)
    assert packed_count("road") == 6
    call(*changed, "--rebuild")
    assert packed_count("road") == 9


def test_drawn_pictures_are_reused_after_interrupted_packing(experiment, monkeypatch):
    call("build", "--config", str(experiment), "--stage", "train")
    for path in Path("data/hdf5/road").iterdir():
        path.unlink()
    monkeypatch.setattr(draw_procedural, "render_set", lambda *_: pytest.fail("drawn again"))
    call("build", "--config", str(experiment), "--stage", "train")
    assert packed_count("road") == 6


def test_a_foreign_raw_folder_is_left_alone(experiment):
    Path("data/raw/road-32").mkdir(parents=True)
    Path("data/raw/road-32/mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="was not drawn by Carforge"):
        call("build", "--config", str(experiment), "--stage", "train", "--rebuild")
    assert Path("data/raw/road-32/mine.png").read_bytes() == b"mine"


def test_procedural_makes_the_three_sets(capsys):
    call("procedural", "--size", "32", "--count", "12")
    assert {path.name for path in Path("data/hdf5").iterdir()} == {"cars", "concept", "messy"}
    assert packed_count("cars") == packed_count("concept") == 12
    assert Path("data/raw/cars-32/factors.csv").exists() and Path("data/raw/messy-32/messy.csv").exists()


def test_folder_takes_names_with_quotes_and_non_square_sizes():
    odd = Path("it's: #1 [車]")
    odd.mkdir()
    Image.new("RGB", (60, 40), (90, 120, 150)).save(odd / "ä.png")
    call("folder", str(odd), "--name", "odd", "--size", "128x224", "--set", "clean.apply=false")
    with open_packed(Path("data/hdf5/odd/custom_128x224_train.hdf5")) as packed:
        assert (packed.height, packed.width, packed.count) == (128, 224, 1)


def test_a_named_set_is_built_from_its_recipe(tmp_path, monkeypatch):
    """From data/raw/<set>, at its size and with its views, or from --src."""
    monkeypatch.setattr(build_set, "_load_classifier", lambda name: StandIn())
    files = Path("data/raw/concept_cars/files/aa")
    files.mkdir(parents=True)
    lines = [
        {"url": f"http://x/{number}", "status": "done", "file": f"files/aa/{number}.png", "license": "CC0"}
        for number in range(5)
    ]
    for number in range(5):
        Image.fromarray(noise_picture(number, nose="left" if number < 3 else "right")).save(files / f"{number}.png")
    (files.parents[1] / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    call("set", "concept", "--set", "data.valid_fraction=0")
    assert packed_count("concept_cars") == 5
    manifest = [json.loads(line) for line in Path("data/sets/concept_cars/manifest-128.jsonl").read_text().splitlines()]
    assert {line["license"] for line in manifest} == {"CC0"} and [line["url"] for line in manifest][0] == "http://x/0"
    call("set", "concept", "--set", "data.valid_fraction=0", "--set", "clean.views=[front_right]", "--rebuild")
    assert packed_count("concept_cars") == 2
    os.rename("data/raw/concept_cars", "elsewhere")
    call("set", "concept", "--src", "elsewhere", "--size", "32", "--set", "clean.views=null")
    assert Path("data/hdf5/concept_cars/custom_32_train.hdf5").exists()


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["set", "concept"], "fetch it with `make scrape SOURCE=concept`"),
        (["set", "nope"], "SET: found 'nope', allowed brands50, car_connection, concept"),
        (["set", "folder"], "try make dataset SET=folder SRC="),
        (["set", "procedural"], "try make dataset SET=procedural"),
        (["folder", ".", "--name", "a", "--on", "mars"], "--on: found 'mars', allowed ray"),
        (
            ["folder", ".", "--name", "a", "--set", "clean.min_aspect=9"],
            "clean.min_aspect: found 9 over max_aspect 2.6",
        ),
        (["folder", "", "--name", "a"], "SRC: found nothing"),
        (["folder", "nope", "--name", "a"], "data.src: found no folder nope"),
        (["folder", ".", "--name", "a", "--size", "big"], "SIZE: found 'big'"),
        (["folder", ".", "--name", "a", "--size", "48"], "data.img_size: found height 48"),
        (["build", "--config", "nope.yaml"], "config: cannot read nope.yaml"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, text):
    ended = run_python("-m", "datasets", *arguments)
    assert ended.returncode == 2 and ended.stdout == ""
    assert text in ended.stderr and "Traceback" not in ended.stderr


def test_a_full_disk_is_reported_and_leaves_nothing(experiment, monkeypatch):
    no_space = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(build_set, "atomic_write", no_space)
    with pytest.raises(UserError, match="no space left"):
        call("build", "--config", str(experiment), "--stage", "train")
    assert list(Path("data/hdf5").rglob("*.hdf5*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cleans_up_and_ends_with_75(number):
    arguments = ("procedural", "--size", "64", "--count", "4000", "--workers", "1")
    with python_at_work("-m", "datasets", *arguments) as process:
        wait_until(lambda: list(Path("data").rglob("*_00000*.png")), "the first pictures")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in err
    assert err.splitlines()[-1] == f"stopped by {number.name}: the same command starts again"
    assert list(Path("data").rglob("*.png")) == [] and list(Path("data").rglob("lock.json")) == []
