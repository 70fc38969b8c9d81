"""An empty working directory with tiny packed sets; process-wide settings of torch go back after each test."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_runs import write_set

import harness.native.sampling
import harness.native.train


@pytest.fixture(scope="session")
def packed_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder `data` with the sets `tiny` and `other`, made once."""
    folder, before = tmp_path_factory.mktemp("sets"), Path.cwd()
    os.chdir(folder)
    try:
        write_set("tiny")
        write_set("other", seed=1)
    finally:
        os.chdir(before)
    return folder / "data"


@pytest.fixture(autouse=True)
def torch_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also: few pictures for standing statistics, which would take most of a tiny run's time."""
    monkeypatch.setattr(harness.native.sampling, "STANDING_BATCHES", 1)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def workplace(tmp_path: Path, packed_sets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with the packed sets in it."""
    shutil.copytree(packed_sets, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids and curves are left out where a test is about weights: they cost more than the tiny steps."""
    for name in ("save_samples", "save_reals", "save_curves"):
        monkeypatch.setattr(harness.native.train, name, lambda *_: None)
