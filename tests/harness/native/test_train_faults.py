"""Failures during training: signals, full disks, damaged checkpoints, losses that are not finite.

Each ends with one clear line and the right exit code, loses nothing, and goes on as if nothing had happened.
"""

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.native.state
import harness.native.step
import harness.native.train
from harness.checkpoints.checkpoint import load_state
from harness.errors import UserError
from harness.native.train import train_run
from tests.harness.sabotage import raising
from tests.harness.tiny_runs import (
    CONDITIONAL,
    SHORT,
    SHORT_LAST,
    assert_one_clear_error,
    assert_same_checkpoint,
    assert_same_state,
    checkpoint_names,
    fail_writes_below,
    file_hashes,
    run_harness,
    status,
    step_after,
    steps_logged,
    tiny_config,
    write_set,
)

# ---- signals ----------------------------------------------------------------------------------------------------


def signal_in_step(number: int) -> None:
    """The signal arrives in the midst of step 3. (The tests themselves may be under nohup.)"""
    harness.native.train.train_step = step_after(lambda done: done == 2 and os.kill(os.getpid(), number))


def signals_in_save() -> None:
    """SIGINT in step 3, and more of them in the middle of the save that follows."""
    signal_in_step(signal.SIGINT)
    real = harness.native.state.save_checkpoint

    def save(*words: Any) -> None:
        for descriptor_call in ("fsync", "replace", "rename"):
            inner = getattr(os, descriptor_call)

            def call(*arguments: Any, inner: Callable = inner) -> Any:
                os.kill(os.getpid(), signal.SIGINT)
                return inner(*arguments)

            setattr(os, descriptor_call, call)
        real(*words)

    harness.native.state.save_checkpoint = save


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_saves_and_exits_75(workplace: Path, number: int) -> None:
    child = run_harness(workplace, "train", before=partial(signal_in_step, number), **SHORT)
    assert child.process.exitcode == 75 and "Traceback" not in child.stderr, child.stderr
    assert f"{signal.Signals(number).name}: finishing this step and saving" in child.stderr
    assert status()["state"] == "interrupted" and status()["step"] == 3
    assert not Path("runs/tiny/lock.json").exists()


def test_more_signals_during_the_save_do_not_stop_it(workplace: Path, short_whole: Path, no_pictures) -> None:
    child = run_harness(workplace, "train", before=signals_in_save, **SHORT)
    assert child.process.exitcode == 75 and "Traceback" not in child.stderr, child.stderr
    assert child.stderr.count("SIGINT") > 10
    assert checkpoint_names() == ["step-00000002", "step-00000003"]
    train_run(tiny_config(**SHORT))
    assert_same_checkpoint(short_whole, SHORT_LAST)


# ---- disks ------------------------------------------------------------------------------------------------------


def disk_fails_in_step_3(part: str, code: int) -> None:
    harness.native.train.train_step = step_after(lambda done: done == 2 and fail_writes_below(part, code))


PARTS = ("checkpoints", "stats.jsonl", "samples", "tensorboard", "log.txt", "curves.png", "status")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_loses_nothing(workplace: Path, short_whole: Path, no_pictures, part: str, code: int) -> None:
    child = run_harness(workplace, "train", before=partial(disk_fails_in_step_3, part, code), **SHORT)
    assert_one_clear_error(child, "runs/tiny", os.strerror(code))
    assert "step-00000002" in checkpoint_names() and not [name for name in checkpoint_names() if ".tmp" in name]
    assert part == "status" or status()["state"] == "failed" and os.strerror(code) in status()["message"]
    train_run(tiny_config(**SHORT))
    assert_same_checkpoint(short_whole, SHORT_LAST)
    assert steps_logged() == [2, 4]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("part", ["noise.pt", "env.json", "config.yaml", "lock.json", "reals.png"])
def test_a_disk_that_fails_at_the_start(workplace: Path, short_whole: Path, no_pictures, part: str, code: int) -> None:
    child = run_harness(workplace, "train", before=partial(fail_writes_below, part, code), **SHORT)
    assert_one_clear_error(child, "runs/tiny", os.strerror(code))
    train_run(tiny_config(**SHORT))
    assert_same_checkpoint(short_whole, SHORT_LAST)


def test_damaged_checkpoints_are_told_and_replaced(workplace: Path, short_whole: Path, no_pictures, capsys) -> None:
    """keep_last 1, and the newest damaged: the run goes on from the older one, and what it saves later stays."""
    train_run(tiny_config(**SHORT), limit_steps=3)
    damaged = Path("runs/tiny/checkpoints/step-00000003/generator.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    train_run(tiny_config(**SHORT, train__keep_last=1))
    assert "step-00000003 cannot be used: generator.safetensors is damaged" in capsys.readouterr().err
    assert checkpoint_names() == ["damaged-step-00000003", "step-00000004"]
    assert_same_state(load_state(short_whole), load_state(SHORT_LAST))


def test_all_checkpoints_damaged_is_told(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(**SHORT), limit_steps=3)
    for path in Path("runs/tiny/checkpoints").glob("*/state.pt"):
        path.write_bytes(b"")
    before = file_hashes(Path("runs/tiny/checkpoints"))
    assert_one_clear_error(run_harness(workplace, "train", **SHORT), "all 2 checkpoints are damaged")
    assert file_hashes(Path("runs/tiny/checkpoints")) == before


# ---- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["d", "g"])
@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("fused", [True, False])
def test_not_finite_is_caught_before_the_update(
    workplace: Path, no_pictures, monkeypatch, network: str, kind: str, fused: bool
) -> None:
    """In step 4 a loss is not a number, or (with a finite loss) a gradient is infinite: nothing of it is kept."""
    name, runs, weights = f"{network}_loss", [], []
    real, real_step = getattr(harness.native.step, name), harness.native.train.train_step

    def bad(*arguments: Any) -> torch.Tensor:
        loss = real(*arguments)
        if runs and runs[0].step == 3:
            # Not a number with a finite gradient, or the other way round.
            loss = loss + (
                float("nan") if kind == "loss" else _InfiniteGradient.apply(arguments[2 if network == "d" else 1])
            )
        return loss

    def step(run):
        runs[:] = [run]
        weights.append([p.detach().clone() for p in run.generator.parameters()])
        weights[-1] += [p.detach().clone() for p in run.discriminator.parameters()] if network == "d" else []
        return real_step(run)

    monkeypatch.setattr(harness.native.step, name, bad)
    monkeypatch.setattr(harness.native.train, "train_step", step)
    config = tiny_config(train__fused_adam=fused, train__save_every_steps=2, optim__d_updates_per_step=2)
    with pytest.raises(UserError, match=rf"step 4: .*{name if kind == 'loss' else 'gradient'} not finite"):
        train_run(config)
    after = [*runs[0].generator.parameters(), *(runs[0].discriminator.parameters() if network == "d" else ())]
    assert all(torch.equal(was, now) for was, now in zip(weights[-1], after, strict=True))
    assert not torch.equal(weights[-2][0], weights[-1][0])
    assert checkpoint_names() == ["step-00000002"]
    assert status()["state"] == "failed" and "step 4" in status()["message"]


class _InfiniteGradient(torch.autograd.Function):
    """0 with an infinite gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.shape = x.shape
        return x.new_zeros(())

    @staticmethod
    def backward(ctx, *grad_outputs: torch.Tensor) -> torch.Tensor:
        return grad_outputs[0].new_full(ctx.shape, float("inf"))


def loss_is_nan() -> None:
    real = harness.native.step.g_loss
    harness.native.step.g_loss = lambda *words: real(*words) * float("nan")


def out_of_memory() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    harness.native.train.train_step = raising(error)


def test_a_broken_loss_ends_the_command(workplace: Path) -> None:
    child = run_harness(workplace, "train", before=loss_is_nan, **SHORT)
    assert_one_clear_error(child, "step 1: g_loss not finite", "g_lr")
    assert checkpoint_names() == []


def test_out_of_memory_becomes_advice(workplace: Path) -> None:
    child = run_harness(workplace, "train", before=out_of_memory, **SHORT)
    assert_one_clear_error(child, "out of memory", "--set optim.batch_size=2")


def test_classes_without_a_training_picture_are_said(workplace: Path, capsys: pytest.CaptureFixture) -> None:
    write_set("tiny", classes=1)
    for changes, count in (({}, 0), (CONDITIONAL, 1)):
        train_run(tiny_config(name=f"run{count}", optim__total_steps=1, **changes))
        assert capsys.readouterr().err.count("custom_32_train.hdf5: has no picture of concept; `make dataset") == count
