"""If the terminal or pipe closes, a command continues, or ends saved with 75."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.harness.tiny_runs import BASE, SHORT, overrides_of

# Speaks on both streams, and notes in a file that it came to its end.
SPEAKER = """
import pathlib, sys, time
from harness.cli import run_command
from harness.messages import log
def command():
    for number in range(200):
        log(f"line {number}")
        print("a result", number, flush=True)
        sys.stderr.write("as a library writes\\n")
    pathlib.Path("whole").write_text("yes")
run_command(command)
"""
GONE = ["2>&1 | head -3", "2>&1 >/dev/null | head -3", "2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


def in_shell(command: str, folder: Path) -> int:
    """Exit code of the first program of a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    whole = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    return subprocess.run(whole, cwd=folder, env=environment, stdin=subprocess.DEVNULL, timeout=120).returncode


@pytest.mark.parametrize("output", GONE)
def test_what_nobody_can_read_is_dropped(output: str, tmp_path: Path) -> None:
    (tmp_path / "speaker.py").write_text(SPEAKER)
    assert in_shell(f"{sys.executable} speaker.py {output}", tmp_path) == 0
    assert (tmp_path / "whole").read_text() == "yes"


def test_results_that_a_full_disk_does_not_take_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "speaker.py").write_text(SPEAKER)
    assert in_shell(f"{sys.executable} speaker.py >/dev/full 2>said", tmp_path) == 2
    assert (tmp_path / "said").read_text().splitlines()[-1].startswith("error: disk: No space left on device")


def test_no_file_of_ours_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else what a library prints to descriptor 2 would go into it."""
    program = """
from harness.messages import keep_output_open
keep_output_open()
with open("number", "w") as file:
    file.write(str(file.fileno()))
"""
    (tmp_path / "program.py").write_text(program)
    assert in_shell(f"{sys.executable} program.py <&- >&- 2>&-", tmp_path) == 0
    assert int((tmp_path / "number").read_text()) > 2


def test_a_training_whose_reader_leaves_is_done(workplace: Path) -> None:
    words = [word for text in overrides_of(**SHORT) for word in ("--set", text)]
    command = shlex.join([sys.executable, "-m", "harness", "train", "--config", str(BASE), *words])
    assert in_shell(f"{command} 2>&1 | head -1", workplace) == 0
    assert json.loads((workplace / "runs/tiny/status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_more_signals_do_not_cut_the_way_out_short(number: int, tmp_path: Path) -> None:
    """One ends the command with 75; more of them, while it cleans up and while the interpreter ends, change nothing."""
    again = f"os.kill(os.getpid(), {number})"
    program = f"""
import atexit, os, pathlib, signal
from harness.cli import run_command
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may be under nohup
atexit.register(lambda: {again})
def command():
    try:
        {again}
    finally:
        {again}
        pathlib.Path("cleaned").touch()
run_command(command)
"""
    (tmp_path / "program.py").write_text(program)
    assert in_shell(f"{sys.executable} program.py", tmp_path) == 75
    assert (tmp_path / "cleaned").exists()


def test_a_hangup_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    program = """
import os, signal
from harness.cli import run_command
run_command(lambda: os.kill(os.getpid(), signal.SIGHUP))
"""
    (tmp_path / "program.py").write_text(program)
    assert in_shell(f"nohup {sys.executable} program.py 2>/dev/null", tmp_path) == 0
