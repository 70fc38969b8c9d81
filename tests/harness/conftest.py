"""An empty working directory with tiny packed sets; process-wide settings of torch go back after each test."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import harness.checkpoints.sampling
import harness.native.train
from harness.metrics import evaluate
from harness.networks import resample
from tests.harness.native.evaluated_runs import ScriptedEvaluator
from tests.harness.tiny_runs import SHORT, SHORT_LAST, tiny_config, write_set

PICTURES = ("save_samples", "save_reals", "save_curves")


@pytest.fixture(scope="session")
def packed_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder `data` with the sets `tiny` and `other`, made once."""
    folder = tmp_path_factory.mktemp("sets")
    with chdir(folder):
        write_set("tiny")
        write_set("other", seed=1)
    return folder / "data"


@pytest.fixture(autouse=True)
def torch_settings(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Also: few pictures for standing statistics, which would take most of a tiny run's time."""
    monkeypatch.setattr(harness.checkpoints.sampling, "STANDING_BATCHES", 1)


@pytest.fixture
def fuse_small_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "FUSE_FROM_PLACES", 0)


@pytest.fixture
def workplace(tmp_path: Path, packed_sets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with the packed sets in it."""
    shutil.copytree(packed_sets, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def go_to(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Changes to a fresh folder with the same data: runs of one name (it stands in the files) side by side."""

    def change(name: str) -> Path:
        folder = workplace / name
        folder.mkdir()
        (folder / "data").symlink_to(workplace / "data")
        monkeypatch.chdir(folder)
        return folder

    return change


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, packed_sets: Path) -> Callable[..., Path]:
    """Runs folder of a run that nothing happened to, made once for each config (`changes` to the tiny one)."""

    @cache
    def train(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("uninterrupted")
        (folder / "data").symlink_to(packed_sets)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for name in PICTURES:
                patch.setattr(harness.native.train, name, lambda *_: None)
            harness.native.train.train_run(tiny_config(**changes))
        return folder / "runs/tiny"

    return train


@pytest.fixture
def short_whole(uninterrupted: Callable[..., Path]) -> Path:
    """The last checkpoint of a run of SHORT that nothing happened to."""
    return uninterrupted(**SHORT) / "checkpoints" / SHORT_LAST.name


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids and curves are left out where a test is about weights: they cost more than the tiny steps."""
    for name in PICTURES:
        monkeypatch.setattr(harness.native.train, name, lambda *_: None)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedEvaluator]:
    """Evaluations give what a test wants: from step 1 on, each is better than the one before."""
    monkeypatch.setattr(evaluate, "Evaluator", ScriptedEvaluator)
    monkeypatch.setattr(ScriptedEvaluator, "figures", {k: 100.0 - k for k in range(1, 20)})
    monkeypatch.setattr(ScriptedEvaluator, "name", "reader")
    return ScriptedEvaluator
