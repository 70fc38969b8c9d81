"""Going on from weights that came from elsewhere, and in another memory layout."""

from pathlib import Path

import pytest
import torch

from harness.checkpoints.checkpoint import load_state, load_weights, read_meta, save_checkpoint
from harness.errors import UserError
from harness.native.train import train_run
from tests.harness.tiny_runs import tiny_config

CHECKPOINTS = Path("runs/tiny/checkpoints")


def rewrite(folder: Path, networks: tuple[str, ...], **changes) -> None:
    """The checkpoint again, with these networks alone and these changes of its meta.json."""
    weights, state, meta = (
        {name: load_weights(folder, name) for name in networks},
        load_state(folder),
        read_meta(folder),
    )
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    save_checkpoint(folder, weights, state, {**meta, **changes})


def test_another_memory_layout_steps_alike(workplace: Path, go_to, no_pictures) -> None:
    """A fused Adam adds moment to weight by address: in another order it would be another update."""
    ends = []
    for layout in (True, False):
        go_to(str(layout))
        train_run(tiny_config(), limit_steps=3)
        train_run(tiny_config(train__channels_last=layout), limit_steps=4, allow_config_change=True)
        ends.append(load_weights(CHECKPOINTS / "step-00000004", "discriminator"))
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], atol=2e-4, rtol=0, msg=name)


def test_weights_without_a_training_set_of_their_own_go_on(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    rewrite(CHECKPOINTS / "step-00000002", ("generator", "generator_ema", "discriminator"), data_sha256=None)
    train_run(tiny_config(), limit_steps=3)
    assert read_meta(CHECKPOINTS / "step-00000003")["data_sha256"]


def test_a_generator_alone_cannot_train(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    rewrite(CHECKPOINTS / "step-00000002", ("generator",))
    with pytest.raises(UserError, match="has a generator alone, and training needs a discriminator too"):
        train_run(tiny_config(), limit_steps=3)
