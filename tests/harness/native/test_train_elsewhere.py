"""Resuming imported weights, checkpoints of an older version, and checkpoints in another memory layout."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from harness.checkpoints.checkpoint import NETWORKS, load_state, load_weights, read_meta, save_checkpoint
from harness.checkpoints.load import load_checkpoint
from harness.errors import UserError
from harness.native.train import finetune_run, train_run
from tests.harness.native.evaluated_runs import CHECKPOINTS, LAST
from tests.harness.tiny_runs import assert_same_checkpoint, tiny_config


def rewrite(folder: Path, networks: tuple[str, ...], **changes) -> None:
    """The checkpoint again, with these networks alone and these changes of its meta.json."""
    weights, state, meta = (
        {name: load_weights(folder, name) for name in networks},
        load_state(folder),
        read_meta(folder),
    )
    shutil.rmtree(folder)
    save_checkpoint(folder, weights, state, {**meta, **changes})


def test_another_memory_layout_steps_alike(workplace: Path, go_to, no_pictures) -> None:
    """A fused Adam adds moment to weight by address: in another order it would be another update."""
    ends = []
    for layout in (True, False):
        go_to(str(layout))
        train_run(tiny_config(), limit_steps=3)
        train_run(tiny_config(train__channels_last=layout), limit_steps=4, allow_config_change=True)
        ends.append(load_weights(CHECKPOINTS / "step-00000004", "discriminator"))
    torch.testing.assert_close(*ends, atol=2e-4, rtol=0)


def test_weights_without_a_training_set_of_their_own_go_on(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    rewrite(CHECKPOINTS / "step-00000002", NETWORKS, data_sha256=None)
    train_run(tiny_config(), limit_steps=3)
    assert read_meta(CHECKPOINTS / "step-00000003")["data_sha256"]


def test_a_run_that_says_d_call_goes_on(workplace: Path, uninterrupted, no_pictures) -> None:
    """As older versions left it: in its config, and in the config of its checkpoints."""
    train_run(tiny_config(), limit_steps=4)
    kept = CHECKPOINTS / "step-00000004"
    config = read_meta(kept)["config"]
    config["train"]["d_call"] = {"fast": "concat"}[config["train"].pop("numerics")]
    rewrite(kept, NETWORKS, config=config)
    Path("runs/tiny/config.yaml").write_text(yaml.safe_dump(config))
    assert load_checkpoint(kept).config.train.numerics == "fast"
    finetune_run(tiny_config(), limit_steps=1)
    with pytest.raises(UserError, match='train.numerics: run has "fast", config says "studiogan"'):
        train_run(tiny_config(train__numerics="studiogan"))
    train_run(tiny_config())
    assert_same_checkpoint(uninterrupted() / "checkpoints" / LAST.name, LAST)


def test_a_generator_alone_cannot_train(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    rewrite(CHECKPOINTS / "step-00000002", ("generator",))
    with pytest.raises(UserError, match="has a generator only, and training needs a discriminator too"):
        train_run(tiny_config(), limit_steps=3)
