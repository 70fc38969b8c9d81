"""The demo runs stages in order, resumes whatever ends it or a stage, and counts their use over all starts."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from blend.demo import demo
from blend.demo.stages import STAGES, Stage, seconds_left
from harness.storage.lock import process_start
from tests.blend.demo.stand_ins import (
    CONFIG,
    FEW_NAMES,
    NAMES,
    STAND_INS,
    Demo,
    is_gone,
    journal,
    metrics,
    plan,
    started,
    unplan,
    usage_of,
    waiting_in,
)
from tests.commands import options_of, run_python, wait_until

# ---- from scratch to the page ----


def test_every_stage_runs_once_in_order_with_the_config():
    assert Demo("seed=7", "blend.pairs=5", stages=STAND_INS).code() == 0
    assert started() == NAMES == ["dataset", "train", "finetune", "encoder", "invert", "measure", "blend", "gallery"]
    words = f"--config {CONFIG} --set seed=7 --set blend.pairs=5"
    assert all(line.endswith(words) for line in journal() if " starts " in line)


def test_it_logs_its_stages_and_ends_with_the_page_and_five_figures():
    assert Demo(stages=STAND_INS).code() == 0
    log = Path("stderr").read_text()
    assert re.match(r"demo: 8 stages, about \d+ min on two cores\.", log)
    assert re.search(
        r"\n\[1/8\] dataset: ordinary and concept cars to learn from \(about .+; \d+ min left in all\)\n", log
    )
    assert "\n[8/8] gallery: writes the page (about " in log and "left in all" not in log.splitlines()[-2]
    lines = Path("stdout").read_text().strip().splitlines()  # what stages print there goes to stderr
    assert log.count("a line on stdout") == 8
    assert lines[0] == "runs/demo/report.html"
    assert [line.split()[0] for line in lines[1:]] == ["encoder", "inversion", "intensity", "futurism", "time"]
    assert "latent error 0.771" in lines[1] and "picture error unknown" in lines[2]
    assert "CPU-seconds" in lines[5]


def test_finished_stages_are_skipped():
    Demo().code()
    history = Path("runs/demo/metrics.jsonl").read_text()
    assert Demo().code() == 0
    assert started() == FEW_NAMES
    assert Path("stderr").read_text() == "demo: already done: train, encoder, gallery\n"
    assert Path("stdout").read_text().strip().startswith("runs/demo/report.html")
    assert Path("runs/demo/metrics.jsonl").read_text() == history


def test_the_page_is_written_with_the_figures_and_they_are_completed_after_it():
    plan("train", cpu_sec=0.3)
    Demo().code()
    seen, after = json.loads(Path("runs/demo/report.html").read_text()), metrics()
    assert list(seen["demo"]["stages"]) == FEW_NAMES[:-1] and list(after["demo"]["stages"]) == FEW_NAMES
    assert seen["encoder"] == after["encoder"] == {"latent_mse": 0.7712}
    for figures in (seen["demo"], after["demo"]):
        for key in ("seconds", "cpu_sec"):
            total = sum(stage[key] for stage in figures["stages"].values())
            assert figures[key] == pytest.approx(total, abs=0.2 + 1e-9)  # each rounded to 0.1
        assert figures["stages"]["train"]["cpu_sec"] >= 0.3
    lines = Path("runs/demo/metrics.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [["demo"]] * 2


# ---- killed, stopped, failed ----


def test_it_resumes_after_a_kill_of_each_stage():
    for number, name in enumerate(NAMES):
        run, stage = waiting_in(name, stages=STAND_INS)
        os.kill(stage, signal.SIGKILL)
        assert run.code() == 75
        log = Path("stderr").read_text().splitlines()[-1]
        assert log.startswith(f"[{number + 1}/8] {name} was killed by SIGKILL") and "the same command resumes" in log
        unplan(name)
    assert Demo(stages=STAND_INS).code() == 0
    assert started() == [name for name in NAMES for _ in range(2)]
    assert [line for line in journal() if line.endswith("done")] == [f"{name} done" for name in NAMES]


def test_it_resumes_after_a_kill_of_the_demo_in_each_stage():
    for name in NAMES:
        run, _ = waiting_in(name, stages=STAND_INS)
        assert run.kill() == -signal.SIGKILL
        plan(name)  # the next start of this stage does not wait; the orphan still does
    assert Demo(stages=STAND_INS).code() == 0
    assert started() == [name for name in NAMES for _ in range(2)]


def test_an_orphan_saves_and_ends_before_its_stage_is_started_again():
    run, left = waiting_in("encoder")
    run.kill()
    assert not is_gone(left)
    again = Demo()
    wait_until(lambda: started().count("encoder") == 2, "a second start")
    assert is_gone(left)
    assert [line.split()[1] for line in journal() if line.startswith("encoder")][:4] == [
        "starts",
        "waits",
        "SIGTERM",
        "starts",
    ]
    unplan("encoder")
    assert again.code() == 0
    assert f"still running (process {left})" in Path("stderr").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_stage_once_and_the_demo_ends_after_it(number):
    as_usual = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may be under nohup
    run, stage = waiting_in("encoder", before=as_usual)
    os.kill(run.pid, number)
    assert run.kill(number) == 75
    assert is_gone(stage)
    assert [line for line in journal() if line.startswith("encoder")][2:] == ["encoder SIGTERM"]
    assert Path("stderr").read_text().splitlines()[-1] == (
        "stopped in [2/3] encoder: the same command resumes from there"
    )
    assert not Path("runs/demo/demo/lock.json").exists()
    unplan("encoder")
    assert Demo().code() == 0
    assert started().count("encoder") == 2 and started().count("train") == 1


def test_hanging_up_stops_nothing_under_nohup():
    run, _ = waiting_in("train", before=partial(signal.signal, signal.SIGHUP, signal.SIG_IGN))
    os.kill(run.pid, signal.SIGHUP)
    unplan("train")
    assert run.code() == 0


@pytest.mark.parametrize("code", [1, 2, 75])
def test_the_code_of_a_failing_stage_is_passed_on(code):
    plan("encoder", code=code)
    assert Demo().code() == code
    assert started() == ["train", "encoder"]
    last = Path("stderr").read_text().splitlines()[-1]
    assert last.startswith("[2/3] encoder ") and "the same command resumes from there" in last
    unplan("encoder")
    assert Demo().code() == 0
    assert started()[2:] == ["encoder", "gallery"]


def test_an_error_of_the_demo_itself_leaves_no_stage_behind():
    """Such as a full disk when the record is written."""

    def fill_up() -> None:
        write = demo.atomic_write

        def full(path: Path, content: str) -> None:
            if Path("full").exists():
                raise OSError(28, "No space left on device", str(path))
            write(path, content)

        demo.atomic_write = full

    run, stage = waiting_in("train", before=fill_up)
    Path("full").touch()
    assert run.code() == 2
    assert is_gone(stage) and journal()[-1] == "train SIGTERM"
    assert "No space left on device" in Path("stderr").read_text()


# ---- one at a time; a plan ----


def test_a_second_demo_in_the_same_run_is_refused():
    run, _ = waiting_in("train")
    assert Demo().code() == 2
    assert f"process {run.pid} on host" in Path("stderr").read_text()
    assert started() == ["train"]
    unplan("train")
    assert run.code() == 0


def tree() -> dict[str, bytes]:
    mine = ("stdout", "stderr")
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in Path().rglob("*") if p.name not in mine}


def test_a_dry_run_prints_the_plan_and_touches_nothing():
    before = tree()
    assert Demo("seed=7", stages=STAND_INS, dry_run=True).code() == 0
    assert tree() == before
    first, command, *_, last = Path("stdout").read_text().splitlines()
    assert re.fullmatch(r"\[1/8\] dataset: ordinary and concept cars to learn from \(about \d+ (s|min)\)", first)
    assert command == f"      python -S -E stand_in.py dataset --config {CONFIG} --set seed=7"
    assert re.fullmatch(r"# the page: runs/demo/report\.html; about \d+ min in all", last)
    plan("encoder", code=2)
    Demo(stages=STAND_INS).code()
    before = tree()
    assert Demo(stages=STAND_INS, dry_run=True).code() == 0
    assert tree() == before
    assert "[3/8] finetune: FreezeD on concept cars (done)" in Path("stdout").read_text()
    assert "[4/8] encoder: learns to read a picture back (about " in Path("stdout").read_text()


def test_a_faulty_config_exits_with_2_and_leaves_nothing():
    assert Demo("optim.g_lrr=1").code() == 2
    assert not Path("runs").exists() and journal() == []


# ---- the table ----


@pytest.mark.parametrize("stage", STAGES, ids=NAMES)
def test_each_stage_is_a_command_that_takes_a_config(stage: Stage):
    flag, module, command, *options = stage.command
    known = options_of(import_module(f"{module}.__main__").app, command)
    assert flag == "-m" and {"--config", "--set", *options[::2]} <= known


def test_the_time_left_follows_the_speed_so_far_and_the_time_spent():
    stages = [replace(STAGES[0], name=name, expected_sec=100.0) for name in "abcd"]
    assert seconds_left(stages, 0, {}) == [100, 100, 100, 100]
    assert seconds_left(stages, 0, {"a": 30}) == [70, 100, 100, 100]
    assert seconds_left(stages, 0, {"a": 500})[0] == pytest.approx(10)
    slower = seconds_left(stages, 2, {"a": 300.0, "b": 300.0})
    assert slower == pytest.approx([0, 0, 100 * 660 / 260, 100 * 660 / 260])
    assert seconds_left(stages, 4, {}) == [0, 0, 0, 0]


def test_the_demo_itself_needs_no_torch():
    assert run_python("-c", "import sys, blend.demo.demo; print('torch' in sys.modules)").stdout == "False\n"


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
