"""Figures of a run, from a tiny one that was really trained."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.config.experiment import load_config
from harness.errors import UserError
from harness.features import load_reader
from harness.metrics.evaluate import evaluate_with_reader, picture_figures, sample_with_labels
from harness.storage.rundir import RunDir
from tests.harness.metrics.conftest import TINY
from tests.harness.tiny_runs import BASE


def test_a_run_is_read_beside_real_pictures(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    figures = evaluate_with_reader("tiny", count=12)
    assert figures["step"] == 2 and figures["reader_sha256"] == load_reader().sha256
    samples, train, held_out = (figures[key] for key in ("samples", "training_pictures", "held_out_pictures"))
    assert (samples["pictures"], train["pictures"], held_out["pictures"]) == (12, 12, 12)
    assert held_out["accepted"] >= 0.8 > 0.3 > samples["accepted"]  # two steps draw no cars
    assert held_out["futurism"] <= 0.35
    assert samples["pair_distance_median"] < 0.5 * held_out["pair_distance_median"]  # and all alike
    assert samples["kid"] > 5 * abs(train["kid"]) and "kid" not in held_out


def test_figures_are_kept_with_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    rundir = RunDir.existing("tiny")
    rundir.write_metrics("other", {"fid": 3.0})
    before = rundir.metrics_history_path.read_text().splitlines()
    first, second = evaluate_with_reader("tiny", 6, seed=1), evaluate_with_reader("tiny", 6, seed=2)
    latest = json.loads(rundir.metrics_path.read_text())
    assert latest["other"] == {"fid": 3.0} and latest["reader"] == second
    lines = rundir.metrics_history_path.read_text().splitlines()
    assert lines[: len(before)] == before and [json.loads(line)["reader"] for line in lines[-2:]] == [first, second]


def test_samples_are_a_function_of_checkpoint_and_seed(place: Path) -> None:
    (folder,) = (place / "runs/tiny/checkpoints").iterdir()
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


def test_runs_that_cannot_be_read_are_told(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match="tiny"):  # the runs that there are
        evaluate_with_reader("absent")
    monkeypatch.chdir(tmp_path)
    RunDir.open(load_config(BASE, TINY))
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate_with_reader("tiny")
