"""Failures of a run trained by StudioGAN: signals, kills, crashes, hangs, out of memory, unknown output.

Each ends in a clear state with one clear line, loses no save, and leaves no process behind.
"""

import errno
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.native.train
from harness.errors import Interrupted
from harness.native.evaluate_while_training import Evaluations
from harness.runtime import progress
from harness.runtime.child import LineSplitter, group_members
from harness.runtime.device import Hardware
from harness.runtime.run_life import run_life
from harness.storage.atomic import atomic_write
from harness.storage.rundir import RunDir
from harness.studiogan import checkout, follow_log, supervise
from harness.studiogan.engine import train_run
from harness.studiogan.follow_log import FollowedRun, LogFollower
from harness.studiogan.process import LogLine, StudioganProcess
from harness.studiogan.workdir import list_saves
from tests.conftest import ROOT
from tests.harness.sabotage import fail_with
from tests.harness.studiogan.engine_runs import STAND_IN, TINY, StandIn, tiny_config
from tests.harness.studiogan.mutated_lines import mutated
from tests.harness.tiny_runs import RUN, checkpoint_names, overrides_of, status, steps_logged
from tests.refusals import refusal_of

pytestmark = pytest.mark.usefixtures("no_pictures")
QUICK = {"studiogan__silent_after_sec": 1}


def failure(stand_in: StandIn, mode: str, **changes: Any) -> str:
    """The one line that a start in this mode fails with; nothing of it is left running."""
    stand_in.behave(mode)
    text = refusal_of(train_run, tiny_config(**changes))
    assert not stand_in.left_running()
    return text


def assert_goes_on(stand_in: StandIn, from_step: int) -> None:
    """Without the fault, the same command ends the run from this checkpoint on."""
    stand_in.behave("")
    train_run(tiny_config())
    assert stand_in.starts[-1]["job"]["first_step"] == from_step
    assert status()["state"] == "done"
    steps = steps_logged()
    assert steps[-(6 - from_step) :] == list(range(from_step + 1, 7)) and sorted(set(steps)) == steps


# ---- signals and kills --------------------------------------------------------------------------------------------


def test_a_signal_is_passed_on_and_what_is_saved_then_is_kept(stand_in: StandIn) -> None:
    stand_in.behave("signal-parent:3,wait-for-signal:3")
    with pytest.raises(Interrupted, match="saved at step 3"):
        train_run(tiny_config())
    assert (status()["state"], status()["step"]) == ("interrupted", 3)
    assert checkpoint_names() == ["step-00000002", "step-00000003"]
    assert not stand_in.left_running()
    assert_goes_on(stand_in, 3)


def test_one_that_will_not_stop_is_killed(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_GRACE_SEC", 0.3)
    stand_in.behave("signal-parent:3,hang-deaf:3")
    with pytest.raises(Interrupted, match="did not stop within 0 s and was killed; saved at step 2"):
        train_run(tiny_config())
    assert status()["state"] == "interrupted" and not stand_in.left_running()
    assert_goes_on(stand_in, 2)


def test_a_kill_of_ours_ends_it_and_its_last_save_is_imported(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from harness.config.experiment import load_config\n"
        "from harness.studiogan import checkout, engine, follow_log, supervise\n"
        f"checkout.COMMITS, checkout.MODULES = {{'0.2.0': {checkout.COMMITS['0.2.0']!r}}}, ('json',)\n"
        f"supervise.SHIM = {str(STAND_IN / 'shim.py')!r}\n"
        "supervise.save_reals = follow_log.save_curves = lambda *_: None\n"
        "follow_log.LogFollower.import_saves = lambda *_, **__: None\n"  # killed before it has looked
        f"engine.train_run(load_config('configs/base.yaml', {overrides_of(TINY)!r}))\n"
    )
    monkeypatch.delenv("STAND_IN_PACED")
    stand_in.behave("kill-parent:3,hang:3")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=100)
    assert done.returncode == -signal.SIGKILL
    while group_members(stand_in.starts[0]["pid"]):  # it gets its signal at the parent's end
        pass
    assert not (RUN / "checkpoints/step-00000002").exists()
    assert_goes_on(stand_in, 2)
    assert "step 2, saved by StudioGAN before everything was killed, is kept" in (RUN / "log.txt").read_text()


@pytest.mark.parametrize("native_to", [None, 3])
def test_a_leftover_save_is_not_imported_after_another_resume(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], native_to: int | None
) -> None:
    """Step 2 is imported, step 4 is not; the run goes on from 4, or from where the native engine has come instead.

    The facts of that start have `d_call`, as older versions wrote."""
    monkeypatch.delenv("STAND_IN_PACED")
    with monkeypatch.context() as patch:
        patch.setattr(follow_log, "list_saves", lambda folder: [save for save in list_saves(folder) if save[0] == 2])
        failure(stand_in, "crash:5")
    assert checkpoint_names() == ["step-00000002"]
    noted = RUN / "studiogan/facts.json"
    noted.write_text(noted.read_text().replace('"numerics": "fast"', '"d_call": "concat"'))
    if native_to:
        harness.native.train.train_run(tiny_config(engine="native"), limit_steps=native_to)
    assert_goes_on(stand_in, native_to or 4)
    assert ("tiny: step 4, saved by StudioGAN, is dropped: the run" in capsys.readouterr().err) == bool(native_to)


def test_what_outlived_a_kill_is_killed_by_the_next_start(stand_in: StandIn) -> None:
    failure(stand_in, "crash:3")
    workdir = (RUN / "studiogan").resolve()
    sleepers: list[subprocess.Popen[bytes]] = []

    def leave_behind(folder: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", "import time; time.sleep(600)"]
        sleepers.append(subprocess.Popen(words, cwd=folder, start_new_session=True))
        atomic_write(workdir / "process.json", f'{{"pid": {sleepers[-1].pid}}}')
        return sleepers[-1]

    try:
        left = leave_behind(workdir)
        failure(stand_in, "crash:3")
        assert left.wait(10) == -signal.SIGKILL
        assert "killed 1 processes of StudioGAN that an earlier start had left" in (RUN / "log.txt").read_text()
        other = leave_behind(workdir.parent)  # no process of ours: one that got its number
        assert_goes_on(stand_in, 2)
        assert other.poll() is None
    finally:
        for process in sleepers:
            process.kill()
            process.wait()


def test_its_last_output_and_save_are_read_after_its_end(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAND_IN_PACED")
    real = StudioganProcess.read
    monkeypatch.setattr(StudioganProcess, "read", lambda self, sec: [] if self.running else real(self, sec))
    train_run(tiny_config())
    assert status()["state"] == "done" and checkpoint_names() == ["step-00000004", "step-00000006"]
    assert steps_logged() == [1, 2, 3, 4, 5, 6]


# ---- failures -----------------------------------------------------------------------------------------------------


def test_a_crash(stand_in: StandIn) -> None:
    text = failure(stand_in, "crash:3")
    assert "StudioGAN ended with exit code 1: RuntimeError: the weights of pt_inception" in text
    assert "resumes from step 2" in text and "runs/tiny/studiogan.log" in text
    assert (status()["state"], status()["step"]) == ("failed", 2)
    assert "Traceback (most recent call last)" in status()["message"]
    assert 5 < status()["message"].count("\n") <= 15
    assert_goes_on(stand_in, 2)


def test_a_slow_one_is_not_taken_for_a_hang(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log would have a line after two iterations, longer than it may be silent; each step is told by the shim."""
    monkeypatch.setattr(progress, "QUIET_SEC", 0.0)
    slow = {"train__log_every_steps": 2, "train__save_every_steps": 6} | QUICK
    stand_in.behave("slow:2,slow:3")
    train_run(tiny_config(**slow))
    assert status()["state"] == "done"
    log = (RUN / "log.txt").read_text()
    assert re.search(r"step 3/6 +\d\.\d+ s/step, \d+ pictures/s, [1-9] s left", log)  # between two rows
    assert steps_logged() == [2, 4, 6]


@pytest.mark.parametrize("mode", ["hang:3", "hang-deaf:3", "hang-with-child:3"])
def test_a_hang(stand_in: StandIn, mode: str) -> None:
    text = failure(stand_in, mode, **QUICK)
    assert "was stopped after 1 s without a step or output (studiogan.silent_after_sec)" in text
    assert status()["state"] == "failed" and status()["step"] in (2, 3)  # one that hears the signal saves step 3
    assert_goes_on(stand_in, status()["step"])


def test_processes_that_it_leaves_are_ended(stand_in: StandIn) -> None:
    stand_in.behave("leave-child:3")
    train_run(tiny_config())
    assert status()["state"] == "done" and not stand_in.left_running()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("oom:3", "out of memory on StudioGAN 0.2.0, cpu with batch 4; try --set optim.batch_size=2"),
        ("die:3", r"was killed by SIGKILL \(out of memory\?\)"),
        ("end:3", "ended without saving step 6"),
        ("refuse:0", r"^loss.adv_loss: found vanilla, allowed hinge on a CPU, try hinge$"),
        ("cut:3", "ended with exit code 1"),
        ("damage:4", "weights-step=4.pth: is damaged or not a weights file"),
    ],
)
def test_other_failures(stand_in: StandIn, mode: str, words: str) -> None:
    assert re.search(words, failure(stand_in, mode))
    assert status()["state"] == "failed"
    assert_goes_on(stand_in, status()["step"])


def test_strange_output_stops_nothing(stand_in: StandIn) -> None:
    stand_in.behave("flood:2,strange-bytes:3,nan:4")
    train_run(tiny_config())
    assert status()["state"] == "done"
    rows = RunDir(RUN).read_stats()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3]["d_loss"] is None and rows[4]["d_loss"] == 1.2
    log = (RUN / "log.txt").read_text()
    assert log.count("WARNING: a loss is not finite at step 4") == 1
    assert "2 lines of StudioGAN's log were not understood" in log
    assert (RUN / "studiogan.log").stat().st_size > 2_900_000


def test_a_full_disk_ends_it_and_is_told(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_log, "import_checkpoint", fail_with(errno.ENOSPC))
    assert "runs/tiny: cannot read or write: No space left on device" in failure(stand_in, "hang:3")
    assert status()["state"] == "failed"


def test_a_thousand_mutated_lines_harm_no_run(stand_in: StandIn) -> None:
    train_run(tiny_config(), limit_steps=2)
    lines = (RUN / "studiogan.log").read_text().splitlines()
    rng = random.Random(1)
    run = FollowedRun(tiny_config(), Hardware(torch.device("cpu"), "fp32", ""), 2, 0)
    with run_life(RunDir(RUN)) as life:
        life.set_target(6, None)
        life.start(run)
        follower = LogFollower(run, life, Evaluations(run, life), life.make_reporter(4, 1), RUN / "studiogan")
        for number in range(1000):
            part = mutated(lines[number % len(lines)], lines, rng) + b"\n"
            follower.process_lines([LogLine(line, float(number)) for line in LineSplitter().feed(part)])
    steps = steps_logged()
    assert steps == sorted(set(steps)) and steps[-1] <= 6
    assert run.step == 2 and follower.unknown_lines > 100
