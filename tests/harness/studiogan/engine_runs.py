"""Runs of a few steps by the stand-in for StudioGAN: their config, set, and the weights that it claims to make."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.experiment import Config
from harness.runtime.child import group_members
from harness.studiogan import checkout, supervise
from tests.harness import tiny_runs
from tests.harness.studiogan.weights.foreign_weights import STEP, make_exported

STAND_IN = Path(__file__).with_name("stand_in")
COUNT, LAST_STEP = 12, 12
TINY: dict[str, Any] = {
    "name": "tiny",
    "engine": "studiogan",
    "data.set": "tiny",
    "data.img_size": 32,
    "model.z_dim": 8,
    "model.g_conv_dim": 4,
    "model.d_conv_dim": 4,
    "optim.batch_size": 4,
    "optim.total_steps": 6,
    "train.device": "cpu",
    "train.threads": 1,
    "train.log_every_steps": 1,
    "train.save_every_steps": 2,
    "train.sample_every_steps": 100,
    "train.sample_count": 4,
    "finetune.override": {"data": {"set": "other"}, "optim": {"g_lr": 1e-3, "total_steps": 4}},
}


@dataclass
class StandIn:
    """`behave("crash:3")`: what goes wrong before which step; `starts`: what each start of it was given."""

    record: Path
    behave: Callable[[str], None]

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []

    def left_running(self) -> list[int]:
        """Processes of all groups that were ever started."""
        return [member for start in self.starts for member in group_members(start["pid"])]


write_set = partial(tiny_runs.write_set, count=COUNT)
tiny_config = partial(tiny_runs.tiny_config, TINY)


def make_stand_in(folder: Path, config: Config, last_step: int = LAST_STEP) -> None:
    """folder/checkout, a git repository, and folder/weights: StudioGAN's files of such a run as of every step, as
    step-<N>/model=..."""
    shutil.copytree(STAND_IN / "src", folder / "checkout/src", ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "0.2.0"]):
        subprocess.run(["git", "-C", str(folder / "checkout"), *identity, *words], check=True)
    _make_weights(folder / "weights", config, last_step)


def place_stand_in(patch: pytest.MonkeyPatch, parts: Path, record: Path) -> StandIn:
    """Everything that the engine looks for is what `make_stand_in` made; times are short."""
    head = ["git", "-C", str(parts / "checkout"), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    patch.setattr(checkout, "COMMITS", {**checkout.COMMITS, "0.2.0": commit})
    patch.setattr(checkout, "MODULES", ("json",))
    patch.setattr(supervise, "SHIM", STAND_IN / "shim.py")
    patch.setattr(supervise, "POLL_SEC", 0.02)
    patch.setattr(supervise, "HANG_GRACE_SEC", 0.3)
    variables = {
        "STUDIOGAN_HOME": parts / "checkout", "STUDIOGAN_PYTHON": sys.executable, "STAND_IN_PACED": 1,
        "STAND_IN_WEIGHTS": parts / "weights", "STAND_IN_RECORD": record, "PYTHONDONTWRITEBYTECODE": 1,
    }  # fmt: skip
    for name, value in variables.items():
        patch.setenv(name, str(value))
    patch.delenv("STAND_IN_MODE", raising=False)
    return StandIn(record, lambda mode: patch.setenv("STAND_IN_MODE", mode))


def _make_weights(folder: Path, config: Config, last_step: int) -> None:
    _, files = make_exported(folder, config, run_name="run")
    for step in range(1, last_step + 1):
        made = folder / f"step-{step}"
        made.mkdir()
        for path in files.iterdir():
            content = torch.load(path, weights_only=True)
            if "step" in content:
                content["step"] = step
            torch.save(content, made / path.name.replace(f"step={STEP}.", f"step={step}."))
