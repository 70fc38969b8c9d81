"""A stand-in checkout in place of StudioGAN, with a tiny packed set to train on, in an empty working directory."""

import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import torch

from harness.studiogan import checkout, follow_log, supervise
from harness.studiogan.weights import convert
from tests.harness.studiogan.engine_runs import STAND_IN, StandIn, make_weights, tiny_config, write_set


@pytest.fixture(scope="session")
def stand_in_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkout/ (a git repository), weights/step-N/ and data/: made once, never written to."""
    folder = tmp_path_factory.mktemp("stand_in")
    shutil.copytree(STAND_IN / "src", folder / "checkout/src", ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "0.2.0"]):
        subprocess.run(["git", "-C", str(folder / "checkout"), *identity, *words], check=True)
    make_weights(folder / "weights")
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
    """Everything that the engine looks for is the stand-in; times are short."""
    head = ["git", "-C", str(stand_in_parts / "checkout"), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(checkout, "COMMITS", {**checkout.COMMITS, "0.2.0": commit})
    monkeypatch.setattr(checkout, "MODULES", ("json",))
    monkeypatch.setattr(supervise, "SHIM", STAND_IN / "shim.py")
    monkeypatch.setattr(supervise, "POLL_SEC", 0.02)
    monkeypatch.setattr(supervise, "HANG_GRACE_SEC", 0.3)
    monkeypatch.setattr(convert, "networks_on_meta", lambda *_: network_shapes)
    variables = {
        "STUDIOGAN_HOME": stand_in_parts / "checkout", "STUDIOGAN_PYTHON": sys.executable, "STAND_IN_PACED": 1,
        "STAND_IN_WEIGHTS": stand_in_parts / "weights", "STAND_IN_RECORD": tmp_path / "record.jsonl",
        "PYTHONDONTWRITEBYTECODE": 1,
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("STAND_IN_MODE", raising=False)
    shutil.copytree(stand_in_parts / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return StandIn(tmp_path / "record.jsonl", lambda mode: monkeypatch.setenv("STAND_IN_MODE", mode))


@pytest.fixture
def no_pictures(no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this engine neither."""
    monkeypatch.setattr(follow_log, "save_samples", lambda *_: None)
    monkeypatch.setattr(follow_log, "save_curves", lambda *_: None)
    monkeypatch.setattr(supervise, "save_reals", lambda *_: None)
