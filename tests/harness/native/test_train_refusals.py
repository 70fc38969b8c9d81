"""What is refused before a run trains: a second process in its folder, and bad input. One message, exit code 2."""

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import harness.native.train
from harness.checkpoints.checkpoint import state_bytes
from harness.native.state import networks_of, optimizers_of
from tests.harness.packing import raw
from tests.harness.tiny_runs import (
    BASE,
    SHORT,
    SHORT_LAST,
    HarnessProcess,
    assert_one_clear_error,
    assert_same_checkpoint,
    file_hashes,
    overrides_of,
    run_harness,
    run_module,
    tiny_config,
    training,
    write_set,
)

# ---- two processes ----------------------------------------------------------------------------------------------


def wait_in_step() -> None:
    def step(run):
        Path("waiting").touch()
        time.sleep(60)

    harness.native.train.train_step = step


def test_too_little_disk_is_said_at_the_start(workplace: Path, no_pictures, monkeypatch, capsys) -> None:
    """What is told is about what the checkpoints take."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    harness.native.train.train_run(tiny_config(**SHORT))
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "GiB free on the disk" in line]
    assert "0.00 GiB free" in told
    with training() as run:
        estimate = state_bytes(networks_of(run).values(), optimizers_of(run).values())
    newest = max(Path("runs/tiny/checkpoints").iterdir())
    taken = sum(path.stat().st_size for path in newest.iterdir())
    assert 0.6 * taken < estimate < 1.1 * taken


def test_a_second_process_is_refused_and_a_stale_lock_taken_over(workplace: Path, short_whole: Path) -> None:
    first = HarnessProcess(workplace, "train", before=wait_in_step, **SHORT)
    try:
        deadline = time.monotonic() + 60
        while not Path("waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        before = file_hashes(Path("runs"))
        (other := workplace / "other").mkdir()
        for name in ("data", "runs"):
            (other / name).symlink_to(workplace / name)
        words = f"process {first.process.pid}", "working here"
        assert_one_clear_error(run_harness(other, "train", **SHORT), *words)
        assert file_hashes(Path("runs")) == before
    finally:
        first.process.kill()
        first.process.join()
    assert Path("runs/tiny/lock.json").exists()
    third = run_harness(workplace, "train", **SHORT)
    assert third.process.exitcode == 0 and "took over the lock" in third.stderr
    assert_same_checkpoint(short_whole, SHORT_LAST)


# ---- bad input --------------------------------------------------------------------------------------------------


def no_set() -> None:
    shutil.rmtree("data")


def half_a_file() -> None:
    path = Path("data/hdf5/tiny/custom_32_train.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_flipped_pixel() -> None:
    """In the middle of the pictures: found by the row's sha256 when it is read."""
    with raw(Path("data/hdf5/tiny/custom_32_train.hdf5"), "r+") as file:
        file["imgs"][7, 0, 3, 3] ^= 1


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
        (another_size, {"data__set": "large"}, ["holds 64x64 pictures", "data.img_size is"]),
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
    done = run_module("harness", "train", "--config", str(BASE), *sets, folder=workplace)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: data/hdf5/nothing/custom_32_train.hdf5: not there")
    assert len(done.stderr.splitlines()) == 1
