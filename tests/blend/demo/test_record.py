"""The demo's record of its stages: their use over all starts, and which have to run again."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from blend.demo import demo
from harness.storage.lock import process_start
from tests.blend.demo.stand_ins import (
    FEW_NAMES,
    Demo,
    journal,
    metrics,
    plan,
    started,
    unplan,
    usage_of,
    waiting_in,
)
from tests.commands import run_python, wait_until

# ---- what it counts ----


def test_use_adds_up_over_interruptions_and_counts_the_children_of_a_stage():
    run, _ = waiting_in("encoder", cpu_sec=0.2, child_cpu_sec=0.2)
    assert run.kill(signal.SIGTERM) == 75
    first = usage_of("encoder")
    assert 0.3 <= first["cpu_sec"] < 0.6
    plan("encoder", cpu_sec=0.6)
    assert Demo().code() == 0
    second = usage_of("encoder")
    assert first["cpu_sec"] + 0.3 <= second["cpu_sec"] < first["cpu_sec"] + 0.6
    assert second["seconds"] > first["seconds"] > 0
    assert metrics()["demo"]["stages"]["encoder"]["cpu_sec"] == round(second["cpu_sec"], 1)


def test_use_until_a_kill_of_the_demo_is_kept():
    run, _ = waiting_in("train", cpu_sec=0.6)  # after half of it
    wait_until(lambda: usage_of("train")["cpu_sec"] >= 0.3, "a record of the use so far")
    run.kill()
    killed = usage_of("train")
    unplan("train")
    wait_until(lambda: "train done" in journal(), "the end of the orphan")
    assert Demo().code() == 0
    assert usage_of("train")["cpu_sec"] >= killed["cpu_sec"] and usage_of("train")["seconds"] > killed["seconds"]


def test_an_orphan_is_counted_to_its_end():
    record_at_the_start_alone = partial(setattr, demo, "RECORD_EVERY_SEC", 1000.0)
    run, _ = waiting_in("train", before=record_at_the_start_alone, cpu_sec=0.6)  # after half of it
    run.kill()
    assert usage_of("train")["cpu_sec"] < 0.3
    plan("train")
    assert Demo().code() == 0
    assert usage_of("train")["cpu_sec"] >= 0.3  # the second start needed none


def test_use_before_a_stage_became_an_orphan_is_kept():
    run, _ = waiting_in("train", cpu_sec=0.6)
    assert run.kill(signal.SIGTERM) == 75
    run, _ = waiting_in("train", times=2)
    run.kill()
    plan("train")
    assert Demo().code() == 0
    assert usage_of("train")["cpu_sec"] >= 0.3


def test_memory_is_that_of_the_largest_stage():
    plan("encoder", bytes=200_000_000)
    Demo().code()
    figures = metrics()["demo"]
    peaks = {name: stage["peak_rss_mb"] for name, stage in figures["stages"].items()}
    assert figures["peak_rss_mb"] == max(peaks.values()) >= peaks["encoder"] > 190


def peak_mb(code: str, sample_every_sec: float) -> float:
    """Of a stage that runs this code, started by a small process, whose memory counts until the exec."""
    measure = f"""
from blend.demo import demo
demo.SAMPLE_EVERY_SEC = {sample_every_sec}
process = demo.StageProcess({[sys.executable, "-S", "-c", code]})
assert process.watch([], lambda pid, usage: None) == 0
print(process.usage.peak_rss_mb)
"""
    return float(run_python("-c", measure).stdout)


def test_a_short_peak_between_samples_counts():
    assert 190 < peak_mb("b'x' * 200_000_000", sample_every_sec=1000) < 300
    assert peak_mb("pass", sample_every_sec=1000) < 100


def test_memory_of_a_stages_processes_is_taken_together():
    hold = "import time; kept = b'x' * 100_000_000; time.sleep(1)"
    child = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', {hold!r}])"
    assert 190 < peak_mb(f"{child}; kept = b'x' * 100_000_000; p.wait()", sample_every_sec=0.02) < 300


def test_an_ended_process_and_another_with_its_pid_are_not_stopped():
    ended = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # nobody has asked for its exit code yet
    assert demo.stop_orphan(ended.pid, process_start(ended.pid), pytest.fail) is None
    assert ended.wait() == 0
    assert demo.stop_orphan(os.getpid(), "boot:1", pytest.fail) is None


# ---- what makes stages run again ----


def test_another_config_runs_all_stages_again():
    Demo().code()
    before = {name: usage_of(name)["seconds"] for name in FEW_NAMES}
    assert Demo("blend.pairs=7").code() == 0
    assert started() == FEW_NAMES * 2
    assert all(usage_of(name)["seconds"] > before[name] for name in FEW_NAMES)


def test_lost_outputs_run_the_stage_and_all_later_ones_again_from_zero():
    plan("encoder", cpu_sec=0.4)
    Demo().code()
    Path("runs/demo/encoder.work").unlink()
    unplan("encoder")
    assert Demo().code() == 0
    assert started() == FEW_NAMES + FEW_NAMES[1:]
    assert usage_of("encoder")["cpu_sec"] < 0.4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_that_runs_again_is_not_done_nor_are_the_later_ones(number):
    Demo().code()
    Path("runs/demo/encoder.work").unlink()
    run, _ = waiting_in("encoder")
    run.kill(number)
    unplan("encoder")
    Demo().code()
    assert started() == FEW_NAMES + ["encoder"] + FEW_NAMES[1:]


@pytest.mark.parametrize("content", ["", "{half", "[]", '{"stages": {"train": {"done": true}}}'])
def test_a_damaged_record_starts_at_the_first_stage(content):
    Demo().code()
    Path("runs/demo/demo/stages.json").write_text(content)
    assert Demo().code() == 0
    assert started() == FEW_NAMES * 2
