"""Runs of a few steps by the stand-in for StudioGAN: their config, set, and the weights that it claims to make."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.runtime.child import group_members
from tests.harness import tiny_runs
from tests.harness.studiogan.weights.foreign_weights import STEP, make_exported, small_config

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


def make_weights(folder: Path) -> None:
    """StudioGAN's files as of every step up to LAST_STEP: folder/step-<N>/model=..."""
    _, files = make_exported(folder, small_config(), run_name="run")
    for step in range(1, LAST_STEP + 1):
        made = folder / f"step-{step}"
        made.mkdir()
        for path in files.iterdir():
            content = torch.load(path, weights_only=True)
            if "step" in content:
                content["step"] = step
            torch.save(content, made / path.name.replace(f"step={STEP}.", f"step={step}."))
