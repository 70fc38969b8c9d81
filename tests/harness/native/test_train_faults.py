"""What goes wrong around a run: signals, full disks, losses that are not finite, a second process, bad input.

Each ends with one clear line and the right exit code, loses nothing, and goes on as if nothing had happened.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from tiny_runs import (
    BASE,
    ONE_UPDATE,
    REPOSITORY,
    HarnessProcess,
    assert_one_clear_error,
    assert_same_checkpoint,
    assert_same_state,
    fail_writes_below,
    file_hashes,
    overrides_of,
    run_harness,
    tiny_config,
    write_set,
)

import harness.native.build
import harness.native.step
import harness.native.train
from harness.errors import UserError
from harness.native.train import train_run

LAST = Path("runs/tiny/checkpoints/step-00000004")
SHORT = {"optim__total_steps": 4, "train__save_every_steps": 2, "train__log_every_steps": 2, **ONE_UPDATE}


@pytest.fixture
def whole(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The last checkpoint of a run that nothing happened to."""
    (folder := tmp_path / "whole").mkdir()
    (folder / "data").symlink_to(workplace / "data")
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patch:
        for name in ("save_samples", "save_reals", "save_curves"):
            patch.setattr(harness.native.train, name, lambda *_: None)
        train_run(tiny_config(**SHORT))
    monkeypatch.chdir(workplace)
    return folder / LAST


def status() -> dict[str, Any]:
    return json.loads(Path("runs/tiny/status.json").read_text())


# ---- signals ----------------------------------------------------------------------------------------------------


def signal_in_step(number: int) -> None:
    """The signal arrives in the middle of step 3."""
    real = harness.native.train.train_step

    def step(run):
        values = real(run)
        if run.step == 3:
            os.kill(os.getpid(), number)
        return values

    harness.native.train.train_step = step


def signals_in_save() -> None:
    """SIGINT in step 3, and more of them in the middle of the save that follows."""
    signal_in_step(signal.SIGINT)
    real = harness.native.build.save_checkpoint

    def save(*words: Any) -> None:
        for descriptor_call in ("fsync", "replace", "rename"):
            inner = getattr(os, descriptor_call)

            def call(*arguments: Any, inner: Callable = inner) -> Any:
                os.kill(os.getpid(), signal.SIGINT)
                return inner(*arguments)

            setattr(os, descriptor_call, call)
        real(*words)

    harness.native.build.save_checkpoint = save


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_exits_75(workplace: Path, number: int) -> None:
    child = run_harness(workplace, "train", before=partial(signal_in_step, number), **SHORT)
    assert child.process.exitcode == 75 and "Traceback" not in child.stderr, child.stderr
    assert f"{signal.Signals(number).name}: finishing this step and saving" in child.stderr
    assert status()["state"] == "interrupted" and status()["step"] == 3
    assert not Path("runs/tiny/lock.json").exists()


def test_more_signals_during_the_save_do_not_stop_it(workplace: Path, whole: Path, no_pictures) -> None:
    child = run_harness(workplace, "train", before=signals_in_save, **SHORT)
    assert child.process.exitcode == 75 and "Traceback" not in child.stderr, child.stderr
    assert child.stderr.count("SIGINT") > 10
    assert sorted(p.name for p in Path("runs/tiny/checkpoints").iterdir()) == ["step-00000002", "step-00000003"]
    train_run(tiny_config(**SHORT))
    assert_same_checkpoint(whole, LAST)


# ---- disks ------------------------------------------------------------------------------------------------------


def disk_fails_in_step_3(part: str, code: int) -> None:
    real = harness.native.train.train_step

    def step(run):
        if run.step == 2:
            fail_writes_below(part, code)
        return real(run)

    harness.native.train.train_step = step


PARTS = ("checkpoints", "stats.jsonl", "samples", "tensorboard", "log.txt", "curves.png", "status")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_loses_nothing(workplace: Path, whole: Path, no_pictures, part: str, code: int) -> None:
    child = run_harness(workplace, "train", before=partial(disk_fails_in_step_3, part, code), **SHORT)
    assert_one_clear_error(child, "runs/tiny", os.strerror(code))
    kept = [path.name for path in Path("runs/tiny/checkpoints").iterdir()]
    assert "step-00000002" in kept and not [name for name in kept if ".tmp" in name]
    assert part == "status" or status()["state"] == "failed" and os.strerror(code) in status()["message"]
    train_run(tiny_config(**SHORT))
    assert_same_checkpoint(whole, LAST)
    rows = [json.loads(line) for line in Path("runs/tiny/stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("part", ["noise.pt", "env.json", "config.yaml", "lock.json", "reals.png"])
def test_a_disk_that_fails_at_the_start(workplace: Path, whole: Path, no_pictures, part: str, code: int) -> None:
    child = run_harness(workplace, "train", before=partial(fail_writes_below, part, code), **SHORT)
    assert_one_clear_error(child, "runs/tiny", os.strerror(code))
    train_run(tiny_config(**SHORT))
    assert_same_checkpoint(whole, LAST)


def test_damaged_checkpoints_are_told_and_replaced(workplace: Path, whole: Path, no_pictures, capsys) -> None:
    """keep_last 1, and the newest damaged: the run goes on from the older one, and what it saves later stays."""
    train_run(tiny_config(**SHORT), limit_steps=3)
    damaged = Path("runs/tiny/checkpoints/step-00000003/generator.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    train_run(tiny_config(**SHORT, train__keep_last=1))
    assert "step-00000003 cannot be used: generator.safetensors is damaged" in capsys.readouterr().err
    names = sorted(path.name for path in Path("runs/tiny/checkpoints").iterdir())
    assert names == ["damaged-step-00000003", "step-00000004"]
    one, other = (torch.load(folder / "state.pt", weights_only=True) for folder in (whole, LAST))
    assert_same_state(one, other)


def test_all_checkpoints_damaged_is_told(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(**SHORT), limit_steps=3)
    for path in Path("runs/tiny/checkpoints").glob("*/state.pt"):
        path.write_bytes(b"")
    before = file_hashes(Path("runs/tiny/checkpoints"))
    assert_one_clear_error(run_harness(workplace, "train", **SHORT), "none of 2 checkpoints is unharmed")
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
            loss = loss * float("nan") if kind == "loss" else loss + _InfiniteGradient.apply(arguments[-1])
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
    assert [path.name for path in Path("runs/tiny/checkpoints").iterdir()] == ["step-00000002"]
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
    def step(run):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    harness.native.train.train_step = step


def test_a_broken_loss_ends_the_command(workplace: Path) -> None:
    child = run_harness(workplace, "train", before=loss_is_nan, **SHORT)
    assert_one_clear_error(child, "step 1: g_loss not finite", "g_lr")
    assert not list(Path("runs/tiny/checkpoints").iterdir())


def test_out_of_memory_becomes_advice(workplace: Path) -> None:
    child = run_harness(workplace, "train", before=out_of_memory, **SHORT)
    assert_one_clear_error(child, "out of memory", "--set optim.batch_size=2")


# ---- two processes ----------------------------------------------------------------------------------------------


def wait_in_step() -> None:
    def step(run):
        Path("waiting").touch()
        time.sleep(60)

    harness.native.train.train_step = step


def test_a_second_process_is_refused_and_a_stale_lock_taken_over(workplace: Path, whole: Path) -> None:
    first = HarnessProcess(workplace, "train", before=wait_in_step, **SHORT)
    try:
        deadline = time.monotonic() + 60
        while not Path("waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        before = file_hashes(Path("runs"))
        (other := workplace / "other").mkdir()
        for name in ("data", "runs"):
            (other / name).symlink_to(workplace / name)
        second = run_harness(other, "train", **SHORT)
        assert_one_clear_error(second, f"process {first.process.pid}", "at work here")
        assert file_hashes(Path("runs")) == before
    finally:
        first.process.kill()
        first.process.join()
    assert Path("runs/tiny/lock.json").exists()
    third = run_harness(workplace, "train", **SHORT)
    assert third.process.exitcode == 0 and "took over the lock" in third.stderr
    assert_same_checkpoint(whole, LAST)


# ---- bad input --------------------------------------------------------------------------------------------------


def no_set() -> None:
    shutil.rmtree("data")


def half_a_file() -> None:
    path = Path("data/hdf5/tiny/custom_32_train.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_flipped_pixel() -> None:
    """In the middle of the pictures: found by the row's sha256 when it is read."""
    with h5py.File("data/hdf5/tiny/custom_32_train.hdf5", "r+") as file:
        images = file["imgs"]
        assert isinstance(images, h5py.Dataset)
        images[7, 0, 3, 3] ^= 1


def another_size() -> None:
    write_set("large", size=64)
    Path("data/hdf5/large/custom_64_train.hdf5").rename("data/hdf5/large/custom_32_train.hdf5")


def no_permission() -> None:
    """For a superuser too: making a folder is refused."""

    def refused(path: Any, *words: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    os.mkdir = refused


@pytest.mark.parametrize(
    ("before", "changes", "words"),
    [
        (no_set, {}, ["custom_32_train.hdf5", "not there", "make dataset"]),
        (half_a_file, {}, ["custom_32_train.hdf5", "make dataset"]),
        (a_flipped_pixel, {}, ["rows 7", "damaged"]),
        (a_flipped_pixel, {"train__pictures": "lazy", "optim__total_steps": 12}, ["rows 7", "damaged"]),
        (another_size, {"data__set": "large"}, ["holds 64x64 pictures", "data.img_size says"]),
        (None, {"optim__g_lrr": 1}, ["optim.g_lrr", "optim.g_lr"]),
        (None, {"optim__g_lr": "fast", "seed": -1}, ["optim.g_lr", "'fast'", "seed"]),
        (None, {"train__device": "cuda"}, ["train.device: found cuda"]),
        (None, {"train__precision": "tf32"}, ["train.precision: found tf32"]),
        (no_permission, {}, ["runs/tiny", "Permission denied"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) or (next(iter(value), "") if isinstance(value, dict) else ""),
)
def test_bad_input_is_told_in_one_message(workplace: Path, before, changes: dict[str, Any], words: list[str]) -> None:
    if changes.get("train__device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    child = run_harness(workplace, "train", before=before, **{**SHORT, **changes})
    assert_one_clear_error(child, *words)
    assert child.stdout == ""


def test_bad_input_through_the_real_command(workplace: Path) -> None:
    """The same from a shell's point of view, once."""
    sets = [word for text in overrides_of(data__set="nothing") for word in ("--set", text)]
    command = [sys.executable, "-m", "harness", "train", "--config", str(BASE), *sets]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: data/hdf5/nothing/custom_32_train.hdf5: not there")
    assert len(done.stderr.splitlines()) == 1
