"""FreezeD: what is frozen stays bit for bit, the source is never written to, and what cannot be is refused."""

import shutil
from pathlib import Path

import pytest
import torch

from harness.checkpoints.checkpoint import load_state, load_weights, read_meta
from harness.errors import UserError
from harness.native.train import finetune_run, train_run
from tests.harness.tiny_runs import assert_same_checkpoint, file_hashes, tiny_config, write_set

TUNED_LAST = Path("runs/tiny-freezed/checkpoints/step-00000006")


def test_freezed_run(go_to, no_pictures) -> None:
    """Frozen blocks stay bitwise, vectors too; the source stays as it was; cut and resumed it is the same."""
    whole = go_to("whole")
    train_run(tiny_config(), limit_steps=3)
    source = Path("runs/tiny/checkpoints/step-00000003")
    before = file_hashes(Path("runs/tiny"))
    assert finetune_run(tiny_config()) == Path("runs/tiny-freezed")
    assert file_hashes(Path("runs/tiny")) == before

    was, now = load_weights(source, "discriminator"), load_weights(TUNED_LAST, "discriminator")
    frozen = [key for key in was if key.startswith(("blocks.0.", "blocks.1."))]
    assert {key.rsplit("_", 1)[1] for key in frozen if "weight" in key} == {"orig", "u", "v"}
    assert all(torch.equal(was[key], now[key]) for key in frozen)
    free = [key for key in was if key not in frozen and key != "linear1.weight_u"]  # a vector of one number
    assert all(not torch.equal(was[key], now[key]) for key in free)
    moved = load_weights(source, "generator"), load_weights(TUNED_LAST, "generator")
    assert all(not torch.equal(moved[0][key], moved[1][key]) for key in moved[0] if "weight" in key)
    state, meta = load_state(TUNED_LAST), read_meta(TUNED_LAST)
    assert [state[name]["param_groups"][0]["lr"] for name in ("g_optimizer", "d_optimizer")] == [1e-3, 4e-4]
    assert meta["finetuned_from"] == str(source)
    assert meta["finetuned_from_sha256"] == read_meta(source)["sha256"]

    shutil.copytree(whole / "runs/tiny", go_to("cut") / "runs/tiny")
    finetune_run(tiny_config(), limit_steps=2)
    shutil.rmtree("runs/tiny")  # what it started from is in its own checkpoints now
    finetune_run(tiny_config())
    assert_same_checkpoint(whole / TUNED_LAST, TUNED_LAST)
    assert read_meta(TUNED_LAST)["finetuned_from"] == str(source)


def test_finetuning_starts_from_the_named_checkpoint(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(train__save_every_steps=1), limit_steps=3)
    finetune_run(tiny_config(), checkpoint="step-00000002", limit_steps=1)
    meta = read_meta(Path("runs/tiny-freezed/checkpoints/step-00000001"))
    assert meta["finetuned_from"] == "runs/tiny/checkpoints/step-00000002"
    with pytest.raises(UserError, match="found no .*step-00000009, allowed best and step-00000003, step-00000002"):
        finetune_run(tiny_config(), checkpoint="step-00000009")
    with pytest.raises(UserError, match="was fine-tuned from .*step-00000002, but .*step-00000003 is asked for"):
        finetune_run(tiny_config(), checkpoint="step-00000003")
    finetune_run(tiny_config(), checkpoint="step-00000002", limit_steps=2)


def test_a_source_without_average_starts_one(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(model__apply_g_ema=False), limit_steps=2)
    finetune_run(tiny_config(), limit_steps=1)
    assert (Path("runs/tiny-freezed/checkpoints/step-00000001") / "generator_ema.safetensors").exists()


def test_finetuning_refuses_what_cannot_be(workplace: Path, no_pictures) -> None:
    with pytest.raises(UserError, match="no checkpoint to start from"):
        finetune_run(tiny_config())
    train_run(tiny_config(), limit_steps=1)
    for count in (4, 9):  # 0 is refused by the config
        with pytest.raises(UserError, match=f"finetune.freeze_layers: found {count}, allowed 1 to 3"):
            finetune_run(tiny_config(finetune__freeze_layers=count))
    finetune_run(tiny_config(), limit_steps=1)  # a mended number goes on in the same folder
    shutil.rmtree("runs/tiny-freezed")
    with pytest.raises(UserError) as caught:
        finetune_run(tiny_config(model__g_conv_dim=8, model__z_dim=16, model__g_ema_decay=0.5))
    assert "model.g_conv_dim: the run has 4, this config 8" in str(caught.value)
    assert "model.z_dim: the run has 8, this config 16" in str(caught.value)
    assert "g_ema_decay" not in str(caught.value)
    write_set("large", size=64)
    large = {"data": {"set": "large"}}
    with pytest.raises(UserError, match="runs/tiny: found a run of 32x32 pictures, this config's are 64x64"):
        finetune_run(tiny_config(data__img_size=64, finetune__override=large))
    assert not Path("runs/tiny-freezed").exists()
