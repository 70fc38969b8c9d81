"""What version 0.1.0 left on disk opens, draws the same, and is resumed.

`golden/older_runs.tar.xz` was made by the commands of f0de0a1, with one thread: a tiny run stopped at 8 of 12 steps and
the run fine-tuned from it, their sets, an encoder stopped at 8 of 12 steps, inversions, a measured sweep, two sets of
designs, two designs on the shelf, and a folder of photos with its set. `resumed-generator.safetensors` is what f0de0a1
made of the run's last four steps.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from blend.designs.design_set import read_designs
from blend.designs.export import document_to_picture
from blend.designs.generate import Request, blend_command
from blend.designs.session import open_session
from blend.encoder.train import train_encoder
from blend.report.report import make_report
from blend.studio.shelf import Shelf
from datasets.__main__ import app
from harness.config.experiment import Config, load_config
from harness.images.decode import decode_picture
from harness.native.train import finetune_run, train_run
from harness.storage.rundir import RunDir

GOLDEN = Path(__file__).with_name("golden") / "older_runs.tar.xz"
RUN, TUNED = Path("runs/old"), Path("runs/old-freezed")
CACHES = ("inversions", "standing", "measures")


@pytest.fixture(autouse=True)
def older_runs(tmp_path, monkeypatch):
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config() -> Config:
    return load_config(RUN / "config.yaml")


def weights_of(checkpoint: Path, network: str = "generator") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(checkpoint / f"{network}.safetensors")


def state_of(run: Path) -> dict[str, Any]:
    return RunDir(run).read_status() or {}


def assert_within_a_level(made: np.ndarray, kept: np.ndarray) -> None:
    assert made.shape == kept.shape and np.abs(made.astype(int) - kept).max() <= 1


def test_training_resumes_where_it_stopped(config):
    begun = weights_of(RUN / "checkpoints/step-00000008")
    train_run(config)
    assert (state_of(RUN)["state"], state_of(RUN)["step"]) == ("done", 12)
    made, kept = (
        weights_of(RUN / "checkpoints/step-00000012"),
        safetensors.torch.load_file("resumed-generator.safetensors"),
    )
    assert made.keys() == kept.keys()
    # Bit for bit on one machine; another one rounds otherwise, and Adam makes a step of the rate out of any sign.
    moved = sum(float((kept[name].float() - begun[name].float()).abs().sum()) for name in kept)
    apart = sum(float((kept[name].float() - made[name].float()).abs().sum()) for name in kept)
    assert moved > 0 and apart < 0.02 * moved


def test_fine_tuning_resumes(config):
    finetune_run(config)
    assert (state_of(TUNED)["state"], state_of(TUNED)["step"]) == ("done", 6)


def test_the_encoder_resumes(config):
    train_encoder(config)
    assert (state_of(RUN / "encoder")["state"], state_of(RUN / "encoder")["step"]) == ("done", 12)


def test_designs_are_drawn_again_and_caches_without_a_hash_are_made_again_with_a_line_each(config, capsys):
    requests = {
        "pair": Request(range=(0.0, 1.0, 3), name="pair"),
        "seeds": Request(seeds=(0, 1, 2), intensity=0.5, name="seeds"),
    }
    for name, request in requests.items():
        folder = RUN / "blends" / name
        assert blend_command(config, request) == folder  # as it is: nothing is drawn
        rows, kept = read_designs(folder), folder.rename(RUN / "blends" / f"kept-{name}")
        blend_command(config, request)
        assert [row["file"] for row in read_designs(folder)] == [row["file"] for row in rows]
        for row in rows:
            assert_within_a_level(decode_picture(folder / row["file"]), decode_picture(kept / row["file"]))
    lines = capsys.readouterr().err.splitlines()
    for cache in CACHES:
        files = {path.as_posix() for path in (RUN / cache).glob("*.safetensors")}
        logged = [line.partition(":")[0] for line in lines if line.startswith(f"{RUN / cache}/")]
        assert logged and len(logged) == len(set(logged)) and set(logged) <= files, (cache, lines)
        assert set(logged) == files or cache == "standing"  # of the styles that were drawn
    shutil.rmtree(RUN / "blends/pair")
    blend_command(config, requests["pair"])
    assert "made again" not in capsys.readouterr().err


def test_the_shelf_draws_what_was_kept():
    workshop, shelf = open_session("old"), Shelf(RUN / "studio")
    assert [entry["document"]["note"] for entry in shelf.entries()] == ["by seed", "held out"]
    for entry in shelf.entries():
        assert_within_a_level(document_to_picture(workshop, entry["document"]), shelf.picture(entry["id"]))


def test_the_page_shows_all_of_it(config):
    page, metrics = make_report(config).read_text(), json.loads((RUN / "metrics.json").read_text())
    assert f"{metrics['inversion']['refined_error']:.4f}" in page and "0.45" in page  # the latter: rank correlation
    assert "damaged" not in page


def test_sets_are_complete(monkeypatch, capsys):
    words = ["folder", "photos", "--name", "mine", "--size", "32", "--set", "clean.apply=false", "--workers", "0"]
    app(words, standalone_mode=False)
    app(["build", "--config", str(RUN / "config.yaml"), "--workers", "0"], standalone_mode=False)
    printed = capsys.readouterr()
    assert len(printed.out.split()) == 6 and printed.err.count(": complete") == 3
