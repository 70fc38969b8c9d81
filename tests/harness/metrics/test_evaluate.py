"""Figures of a run, from a tiny one that was really trained."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from datasets.procedural.sets import render_many
from harness.config.experiment import Config, load_config
from harness.errors import UserError
from harness.features import load_reader
from harness.metrics.evaluate import picture_figures, read_run, sample_with_labels
from harness.native.train import train_run
from harness.storage.hdf5 import PackedWriter
from harness.storage.rundir import RunDir

BASE = Path(__file__).resolve().parents[3] / "configs" / "base.yaml"
TINY = (
    "name=tiny", "data.img_size=32", "model.g_conv_dim=8", "model.d_conv_dim=8", "model.z_dim=16", "optim.batch_size=4",
    "optim.total_steps=2", "optim.d_updates_per_step=1", "train.threads=1", "train.device=cpu", "train.sample_count=4",
    "train.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def renders() -> np.ndarray:
    return np.stack([picture for _, _, picture in render_many("ordinary", 40, 9, 32)])


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, renders: np.ndarray) -> Path:
    """A folder with a finished run of two steps and its packed sets."""
    place = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        config = load_config(BASE, TINY)
        pack(config, renders)
        train_run(config)
    return place


def pack(config: Config, renders: np.ndarray) -> None:
    parts: tuple[tuple[Literal["train", "valid"], Any], ...] = (("train", renders[:25]), ("valid", renders[25:]))
    for split, rows in parts:
        with PackedWriter(config.data.hdf5_path(split), 32, 32, ["cars"], {}) as writer:
            for picture in rows:
                writer.append(picture, 0)


def test_a_run_is_read_beside_real_pictures(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    figures = read_run("tiny", count=12)
    assert figures["step"] == 2 and figures["reader_sha256"] == load_reader().sha256
    samples, train, held_out = (figures[key] for key in ("samples", "training_pictures", "held_out_pictures"))
    assert (samples["pictures"], train["pictures"], held_out["pictures"]) == (12, 12, 12)
    assert held_out["accepted"] >= 0.8 > 0.3 > samples["accepted"]  # two steps draw no cars
    assert held_out["futurism"] <= 0.35
    assert samples["pair_distance_median"] < 0.5 * held_out["pair_distance_median"]  # and all alike
    assert samples["kid"] > 5 * abs(train["kid"]) and "kid" not in held_out


def test_figures_are_kept_with_the_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    rundir = RunDir.existing("tiny")
    rundir.write_metrics("other", {"fid": 3.0})
    before = rundir.metrics_history_path.read_text().splitlines()
    first, second = read_run("tiny", 6, seed=1), read_run("tiny", 6, seed=2)
    latest = json.loads(rundir.metrics_path.read_text())
    assert latest["other"] == {"fid": 3.0} and latest["reader"] == second
    lines = rundir.metrics_history_path.read_text().splitlines()
    assert lines[: len(before)] == before and [json.loads(line)["reader"] for line in lines[-2:]] == [first, second]


def test_samples_are_a_function_of_checkpoint_and_seed(workplace: Path) -> None:
    (folder,) = (workplace / "runs/tiny/checkpoints").iterdir()
    first, again, other = (sample_with_labels(folder, 5, seed)[0] for seed in (0, 0, 1))
    assert first.shape == (5, 32, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_copies_show_in_the_figures(renders: np.ndarray) -> None:
    reader = load_reader()
    varied, copies = (
        picture_figures(reader, renders, renders),
        picture_figures(reader, renders[:2].repeat(20, 0), renders),
    )
    assert copies["nearest_distance_median"] < 0.05 * varied["nearest_distance_median"]
    assert copies["pair_distance_p05"] < 0.05 * varied["pair_distance_p05"]
    assert copies["kid"] > varied["kid"]


def test_runs_that_cannot_be_read_are_told(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    with pytest.raises(UserError, match="tiny"):  # the runs that there are
        read_run("absent")
    monkeypatch.chdir(tmp_path)
    RunDir.open(load_config(BASE, TINY))
    with pytest.raises(UserError, match="no checkpoint"):
        read_run("tiny")
