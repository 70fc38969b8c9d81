"""The run folder: nothing is lost or mixed whatever fails, one process at a time, statistics that survive a kill."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness import lockfile, rundir
from harness.config import Config, load_config
from harness.errors import UserError
from harness.rundir import RunDir, atomic_file, atomic_folder, atomic_write, clean_leftovers, remove_folder

BASE = Path(__file__).resolve().parents[2] / "configs" / "base.yaml"
OPERATIONS = ("open", "write", "fsync", "close", "replace", "rename", "unlink", "rmdir", "mkdir")
OLD, NEW = b"old" * 1000, b"new" * 1_000_000  # three writes of at most 1 MiB
fork = multiprocessing.get_context("fork")


def make_config(*overrides: str) -> Config:
    return load_config(BASE, ["name=run", *overrides])


class Saboteur:
    """Fails at the `at`-th call of an os function; counts them all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[str, tuple], None]) -> None:
        self.count, self.at, self.act, self.done = 0, at, act, []
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, real: Callable) -> Callable:
        def call(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                self.act(name, args)
            result = real(*args, **kwargs)
            self.done.append(name)
            return result

        return call


def fail_with(number: int) -> Callable[[str, tuple], None]:
    def act(name: str, args: tuple) -> None:
        raise OSError(number, os.strerror(number))

    return act


def die(name: str, args: tuple) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


real_write = os.write


def write_half_and_die(name: str, args: tuple) -> None:
    if name == "write":
        real_write(args[0], args[1][: len(args[1]) // 2])
    die(name, args)


def save_file(folder: Path) -> None:
    atomic_write(folder / "kept", NEW)


def save_folder(folder: Path) -> None:
    """As a checkpoint is saved: the new one appears, then the old one goes."""
    with atomic_folder(folder / "new") as temp:
        with atomic_file(temp / "a") as stream:
            stream.write(NEW)
        (temp / "deep").mkdir()
        (temp / "deep" / "b").write_bytes(NEW)
    remove_folder(folder / "old")


def prepare(folder: Path, save: Callable) -> None:
    folder.mkdir(parents=True)
    if save is save_file:
        (folder / "kept").write_bytes(OLD)
    else:
        (folder / "old" / "deep").mkdir(parents=True)
        for name in ("a", "deep/b"):
            (folder / "old" / name).write_bytes(OLD)


def whole(folder: Path, save: Callable) -> set[bytes]:
    """What is there under its final name, checked to be whole."""
    if save is save_file:
        content = (folder / "kept").read_bytes()
        assert content in (OLD, NEW), "neither the old nor the new content"
        return {content}
    found = set()
    for name, content in (("old", OLD), ("new", NEW)):
        if (folder / name).exists():
            assert (folder / name / "a").read_bytes() == (folder / name / "deep" / "b").read_bytes() == content
            found.add(content)
    return found


# ---- atomic operations ----


@pytest.mark.parametrize("save", [save_file, save_folder])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_an_error_at_any_operation_keeps_old_or_new(save: Callable, number: int, tmp_path: Path):
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepare(folder, save)
        with pytest.MonkeyPatch.context() as patch:
            saboteur = Saboteur(patch, at, fail_with(number))
            failed = False
            try:
                save(folder)
            except OSError as error:
                assert error.errno == number
                failed = True
            renamed = {"replace", "rename"} & set(saboteur.done)
        found = whole(folder, save)
        if failed and not renamed:
            assert found == {OLD}
            assert not list(folder.glob(".tmp-*")), "the temporary file stayed"
        assert found, "nothing is left"
        if saboteur.count < at:
            assert found == {NEW} and not failed
            break
    assert at > 6, "the operations were not reached through os"


@pytest.mark.parametrize("save", [save_file, save_folder])
@pytest.mark.parametrize("act", [die, write_half_and_die])
def test_a_kill_at_any_operation_keeps_old_or_new(save: Callable, act: Callable, tmp_path: Path):
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepare(folder, save)
        child = os.fork()
        if child == 0:
            try:
                with pytest.MonkeyPatch.context() as patch:
                    Saboteur(patch, at, act)
                    save(folder)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert whole(folder, save), "nothing is left"
        for leftover in clean_leftovers(folder):
            assert leftover.name.startswith(".tmp-")
        assert not [path for path in folder.iterdir() if path.name not in ("kept", "old", "new")]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0 and whole(folder, save) == {NEW}
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert at > 6


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "x") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "y") as temp:
        (temp / "a").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_folder_never_takes_an_existing_place(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "there"):
        pass
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "late"):
        (tmp_path / "late").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "there"]


def test_everything_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "old").mkdir()
    saboteur = Saboteur(monkeypatch, -1, die)
    save_folder(tmp_path)
    before, after = saboteur.done[: saboteur.done.index("rename")], saboteur.done[saboteur.done.index("rename") :]
    assert before.count("fsync") >= 2 + 2 + 2, "two files, two folders, and the file that was written atomically"
    assert "fsync" in after, "the folder that holds the new name"


def test_clean_leftovers_takes_only_what_a_kill_leaves(tmp_path: Path):
    (tmp_path / ".tmp-1-x").mkdir()
    (tmp_path / ".tmp-1-x" / "a").write_text("a")
    for name in (".tmp-2-y", "z.hdf5.partial", "keep", ".keep", "partial"):
        (tmp_path / name).write_text("a")
    assert [path.name for path in clean_leftovers(tmp_path)] == [".tmp-1-x", ".tmp-2-y", "z.hdf5.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".keep", "keep", "partial"]


def test_long_and_odd_names_can_be_written(tmp_path: Path):
    for name in ("a" * 255, "ü" * 127, "x y"):
        atomic_write(tmp_path / name, "text ü")
        assert (tmp_path / name).read_text(encoding="utf-8") == "text ü"


# ---- opening and resuming ----


def test_a_run_is_made_and_found_again(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path / "deep" / "runs")
    assert run.path == tmp_path / "deep/runs/run" and run.samples.is_dir() and run.checkpoints.is_dir()
    again = RunDir.open(make_config(), tmp_path / "deep" / "runs")
    assert again.read_config() == make_config()
    assert RunDir.existing("run", tmp_path / "deep" / "runs").read_config() == make_config()
    with pytest.raises(UserError, match=r"found no .*other.*allowed run "):
        RunDir.existing("other", tmp_path / "deep" / "runs")


def test_a_changed_config_is_refused_with_every_key(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    before = run.config_path.read_bytes()
    changed = make_config("optim.g_lr=1e-3", "model.z_dim=7", "optim.total_steps=9")
    with pytest.raises(UserError) as caught:
        RunDir.open(changed, tmp_path)
    text = str(caught.value)
    assert "optim.g_lr: run has 0.0002, config says 0.001" in text and "model.z_dim: run has 128, config says 7" in text
    assert "--allow-config-change" in text and "total_steps" not in text
    assert run.config_path.read_bytes() == before
    with RunDir.open(changed, tmp_path, allow_config_change=True).lock():
        assert run.read_config() == changed
    assert "optim.g_lr changed from 0.0002 to 0.001" in run.log_path.read_text()


FREE = ["optim.total_steps=9", "train.device=cpu", "train.threads=3", "train.pictures=lazy", "train.keep_last=9"]
FREE += ["train.sample_count=9", "train.log_every_steps=9", "train.save_every_steps=9", "train.sample_every_steps=9"]
FREE += ["finetune.freeze_layers=1", "finetune.override.optim.g_lr=1e-3", "finetune.from_run=x"]
BOUND = ["seed=1", "data.set=other", "optim.batch_size=8", "train.precision=fp32", "train.d_call=separate"]


@pytest.mark.parametrize("change", FREE)
def test_free_keys_may_change_and_are_kept(change: str, tmp_path: Path):
    RunDir.open(make_config(), tmp_path)
    run = RunDir.open(make_config(change), tmp_path)
    assert run.read_config() == make_config(), "nothing is written without the lock"
    with run.lock():
        assert run.read_config() == make_config(change)


@pytest.mark.parametrize("change", BOUND)
def test_bound_keys_may_not_change(change: str, tmp_path: Path):
    RunDir.open(make_config(), tmp_path)
    with pytest.raises(UserError, match=change.split("=")[0]):
        RunDir.open(make_config(change), tmp_path)


def test_a_folder_that_moved_is_no_other_config(tmp_path: Path):
    RunDir.open(make_config("data.source=folder", "data.src=/a"), tmp_path)
    RunDir.open(make_config("data.source=folder", "data.src=/b"), tmp_path)


def test_checkpoints_without_a_config_are_not_taken_for_a_new_run(tmp_path: Path):
    (tmp_path / "run" / "checkpoints" / "step-1").mkdir(parents=True)
    with pytest.raises(UserError, match="no config.yaml"):
        RunDir.open(make_config(), tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write here"):
        RunDir.open(make_config(), tmp_path / "file")
    RunDir.open(make_config(), tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"run: cannot write here \(Permission denied\)") as caught:
        RunDir.open(make_config(), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_opening_is_one_line_and_can_be_repeated(tmp_path: Path):
    for at in range(1, 30):
        with pytest.MonkeyPatch.context() as patch:
            saboteur = Saboteur(patch, at, fail_with(errno.ENOSPC))
            with suppress(UserError):
                RunDir.open(make_config(), tmp_path / str(at))
        assert RunDir.open(make_config(), tmp_path / str(at)).read_config() == make_config()
        if saboteur.count < at:
            return
    raise AssertionError("opening never succeeded")


# ---- one process at a time ----


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
    with run.lock(), pytest.raises(UserError, match="is at work here"), RunDir.open(make_config(), tmp_path).lock():
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
    if lockfile.process_start(os.getpid()) is None:
        recycled = gone  # a system that does not say when a process began
    for stale in (json.dumps(gone), json.dumps(recycled), "", "{half", "[]"):
        run.lock_path.write_text(stale)
        with run.lock():
            assert json.loads(run.lock_path.read_text())["token"] != "x"
        assert "took over" in capsys.readouterr().err
    assert run.log_path.read_text().count("took over") == 5


def test_a_lock_of_another_host_is_refused_with_the_file_to_delete(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    run.lock_path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "process_start": None, "token": "x"}))
    with pytest.raises(UserError, match=f"host elsewhere.*delete {run.lock_path}"), run.lock():
        pass
    assert run.lock_path.exists()


def test_of_many_processes_at_a_stale_lock_one_gets_it(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    for _ in range(3):
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

        children = [fork.Process(target=compete) for _ in range(6)]
        for child in children:
            child.start()
        start.set()
        outcomes = [results.get() for _ in children]
        finish.set()
        for child in children:
            child.join(20)
        assert sorted(outcomes) == ["got it"] + ["refused"] * 5


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


# ---- statistics, status, log ----


def test_statistics_are_read_back_in_order(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    assert run.read_stats() == []
    for step in range(1, 6):
        run.append_stats({"step": step, "d_loss": step / 2, "g_loss": float("nan"), "note": "ü"})
    assert [row["step"] for row in run.read_stats()] == [1, 2, 3, 4, 5]
    assert run.read_stats()[0] == {"step": 1, "d_loss": 0.5, "g_loss": None, "note": "ü"}
    run.drop_stats_after(3)
    assert [row["step"] for row in run.read_stats()] == [1, 2, 3]
    before = run.stats_path.stat().st_ino
    run.drop_stats_after(3)
    assert run.stats_path.stat().st_ino == before, "nothing to drop: not rewritten"


def test_a_line_cut_at_any_byte_is_dropped(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    for step in (1, 2, 3):
        run.append_stats({"step": step, "text": "ü\\n"})
    content = run.stats_path.read_bytes()
    last = content[: content.rindex(b'{"step": 3')]
    for length in range(len(last), len(content)):
        run.stats_path.write_bytes(content[:length])
        assert [row["step"] for row in run.read_stats()] == [1, 2]
        run.drop_stats_after(3)
        run.append_stats({"step": 3})
        assert [row["step"] for row in run.read_stats()] == [1, 2, 3]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = RunDir.open(make_config(), tmp_path)
    run.append_stats({"step": 1})
    calls = []

    def half_then_full(descriptor: int, content: bytes) -> int:
        calls.append(content)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, content[: len(content) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_then_full)
        with pytest.raises(OSError, match="No space"):
            run.append_stats({"step": 2})
    run.append_stats({"step": 3})
    assert run.stats_path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_status_keeps_the_step_that_was_reached(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    assert run.read_status() is None
    run.write_status("running", step=5, total_steps=9)
    run.write_status("failed", message="no space")
    status = run.read_status()
    assert status and (status["state"], status["step"], status["total_steps"]) == ("failed", 5, 9)
    assert status["message"] == "no space" and status["updated_at"].endswith("Z")
    run.write_status("running", step=6)
    assert (run.read_status() or {})["message"] == ""
    run.status_path.write_text("{half")
    assert run.read_status() is None


def test_durations_do_not_follow_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = RunDir.open(make_config(), tmp_path)
    monkeypatch.setattr(time, "time", lambda: -1e6)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    now[0] = 112.5
    assert run.elapsed_sec == 12.5
    run.log("two\nlines")
    monkeypatch.undo()
    time.tzset()
    line = run.log_path.read_text()
    assert line.endswith("Z +12.5s two lines\n") and line.count("\n") == 1
    written = time.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(written) - time.mktime(time.gmtime())) < 600, "UTC, whatever the zone"


def test_env_says_what_it_ran_on(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    run.write_env(device="cpu", dataset_sha256="ab", path=tmp_path)
    env = json.loads(run.env_path.read_text())
    assert env["device"] == "cpu" and env["host"] == socket.gethostname() and env["packages"]["numpy"]
    assert set(env["git"]) == {"commit", "dirty"} and env["path"] == str(tmp_path)


def test_a_folder_in_a_strangers_checkout_has_no_commit_of_ours(tmp_path: Path):
    assert rundir._git_state(tmp_path) == {"commit": None, "dirty": None}
