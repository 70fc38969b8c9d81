"""One process at a time in a run's folder; a stale lock is taken over."""

import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.messages import log
from harness.storage import lock
from harness.storage.lock import hold_lock, lock_holder, process_start
from harness.storage.rundir import RunDir
from tests.harness.sabotage import Saboteur
from tests.harness.tiny_runs import make_config

fork = multiprocessing.get_context("fork")


def held_by_child(run: RunDir, seconds: float) -> Iterator[int]:
    """A process that holds the lock until it is told to end."""
    ready, stop = fork.Event(), fork.Event()

    def hold() -> None:
        with run.lock():
            ready.set()
            stop.wait(seconds)

    child = fork.Process(target=hold)
    child.start()
    assert ready.wait(20) and child.pid
    yield child.pid
    stop.set()
    child.join(20)


def test_a_second_process_is_refused_and_comes_in_afterwards(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    for pid in held_by_child(run, 30):
        with pytest.raises(UserError, match=f"process {pid} on host {socket.gethostname()}"), run.lock():
            pass
        assert run.lock_path.exists()
    with run.lock():
        assert json.loads(run.lock_path.read_text())["pid"] == os.getpid()
    assert not run.lock_path.exists()


def test_a_process_cannot_take_its_own_lock_twice(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    with run.lock(), pytest.raises(UserError, match="is working here"), RunDir.open(make_config(), tmp_path).lock():
        pass


def dead_pid() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_a_stale_lock_is_taken_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = RunDir.open(make_config(), tmp_path)
    here = {"host": socket.gethostname(), "token": "x"}
    gone = {"pid": dead_pid(), "process_start": "boot:1", **here}
    recycled = {"pid": os.getpid(), "process_start": "boot:1", **here}
    if lock.process_start(os.getpid()) is None:
        recycled = gone  # a system that does not say when a process began
    for stale in (json.dumps(gone), json.dumps(recycled), "", "{half", "[]"):
        run.lock_path.write_text(stale)
        with run.lock():
            assert json.loads(run.lock_path.read_text())["token"] != "x"
        assert "took over" in capsys.readouterr().err
    assert run.log_path.read_text().count("took over") == 5


def test_a_process_that_ended_unawaited_holds_no_lock(tmp_path: Path):
    """In a container whose first process awaits nobody, a killed orphan stays in the process table."""
    start = "import os, time; print('started', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    held = {"pid": child.pid, "host": socket.gethostname(), "process_start": process_start(child.pid), "token": "x"}
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(held))
    with pytest.raises(UserError, match="is working here"), hold_lock(path, print):
        pass
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table
    with hold_lock(path, print):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    child.wait()


def test_a_lock_of_another_host_is_refused_with_the_file_to_delete(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    run.lock_path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "process_start": None, "token": "x"}))
    with pytest.raises(UserError, match=f"host elsewhere.*delete {run.lock_path}"), run.lock():
        pass
    assert run.lock_path.exists()


def test_of_many_processes_at_a_stale_lock_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    judge = lock._is_alive

    def judge_slowly(pid: int, start: str | None) -> bool:  # so that all judge before the first acts
        alive = judge(pid, start)
        time.sleep(0.2)
        return alive

    monkeypatch.setattr(lock, "_is_alive", judge_slowly)
    run = RunDir.open(make_config(), tmp_path)
    for _ in range(2):
        run.lock_path.write_text(json.dumps({"pid": dead_pid(), "host": socket.gethostname(), "process_start": "b:1"}))
        start, finish, results = fork.Event(), fork.Event(), fork.SimpleQueue()

        def compete(start=start, finish=finish, results=results) -> None:
            start.wait(20)
            try:
                with run.lock():
                    results.put("got it")
                    finish.wait(20)
            except UserError:
                results.put("refused")

        children = [fork.Process(target=compete) for _ in range(4)]
        for child in children:
            child.start()
        start.set()
        outcomes = [results.get() for _ in children]
        finish.set()
        for child in children:
            child.join(20)
        assert sorted(outcomes) == ["got it"] + ["refused"] * 3


def test_a_lock_that_another_process_took_is_not_removed(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    with run.lock():
        run.lock_path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "token": "theirs"}))
    assert "theirs" in run.lock_path.read_text()


def test_the_lock_cleans_up_and_goes_after_errors(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    leftovers = [run.path / ".tmp-1-status.json", run.checkpoints / ".tmp-1-step", run.samples / ".tmp-1-x.png"]
    for path in leftovers:
        path.write_text("half")
    with pytest.raises(ZeroDivisionError), run.lock():
        assert not any(path.exists() for path in leftovers)
        raise ZeroDivisionError
    assert not run.lock_path.exists()


def test_a_full_disk_leaves_no_empty_lock(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)

    def full(name: str, args: tuple) -> None:
        if name == "write":
            raise OSError(errno.ENOSPC, "No space left on device")

    for at in range(1, 8):
        with pytest.MonkeyPatch.context() as patch:
            Saboteur(patch, at, full)
            with suppress(UserError), run.lock():
                pass
        assert not run.lock_path.exists()


@pytest.mark.parametrize("pid", [0, -1, True, "7", None, 10**30])
def test_a_garbled_lock_names_no_process(tmp_path: Path, pid: object, capsys: pytest.CaptureFixture) -> None:
    """`kill 0` would end the whole group of who follows the advice."""
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"pid": pid, "host": socket.gethostname()}))
    assert lock_holder(path) is None
    with hold_lock(path, log):
        assert json.loads(path.read_text())["pid"] == os.getpid()
