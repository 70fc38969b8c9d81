"""A tiny run on drawn cars, made once for each file of tests."""

from pathlib import Path

import numpy as np
import pytest

from datasets.procedural.sets import render_many
from harness.checkpoints import sampling
from harness.config.experiment import load_config
from harness.native.train import train_run
from tests.harness.tiny_runs import BASE, pack_cars

TINY = (
    "name=tiny", "data.img_size=32", "model.g_conv_dim=8", "model.d_conv_dim=8", "model.z_dim=16", "optim.batch_size=4",
    "optim.total_steps=2", "optim.d_updates_per_step=1", "train.threads=1", "train.device=cpu", "train.sample_count=4",
    "train.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def renders() -> np.ndarray:
    return np.stack([picture for _, _, picture in render_many("ordinary", 40, 9, 32)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, renders: np.ndarray) -> Path:
    """A folder with a run of two steps, 25 training pictures and 15 held-out ones."""
    place = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sampling, "STANDING_BATCHES", 1)
        config = load_config(BASE, TINY)
        pack_cars(config, renders, 25)
        train_run(config)
    return place
