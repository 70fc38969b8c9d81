"""A stand-in checkout in place of StudioGAN, with a tiny packed set to train on, in an empty working directory."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import torch

from harness.studiogan import follow_log, supervise
from harness.studiogan.weights import convert
from tests.harness.studiogan.engine_runs import StandIn, make_stand_in, place_stand_in, tiny_config, write_set
from tests.harness.studiogan.weights.foreign_weights import small_config


@pytest.fixture(scope="session")
def stand_in_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkout/ (a git repository), weights/step-N/ and data/: made once, never written to."""
    folder = tmp_path_factory.mktemp("stand_in")
    make_stand_in(folder, small_config())
    with chdir(folder):
        write_set("tiny")
        write_set("other", seed=1)
    return folder


@pytest.fixture(scope="session")
def network_shapes() -> dict[str, torch.nn.Module]:
    """Of all runs here; finding them out takes longer than all else that a start does."""
    return convert.networks_on_meta(tiny_config(), 0)


@pytest.fixture
def stand_in(
    stand_in_parts: Path, network_shapes: dict[str, torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StandIn:
    """Everything that the engine looks for is the stand-in, in a working directory with the sets."""
    monkeypatch.setattr(convert, "networks_on_meta", lambda *_: network_shapes)
    shutil.copytree(stand_in_parts / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return place_stand_in(monkeypatch, stand_in_parts, tmp_path / "record.jsonl")


@pytest.fixture
def no_pictures(no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this engine neither."""
    monkeypatch.setattr(follow_log, "save_samples", lambda *_: None)
    monkeypatch.setattr(follow_log, "save_curves", lambda *_: None)
    monkeypatch.setattr(supervise, "save_reals", lambda *_: None)
