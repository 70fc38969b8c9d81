"""The run's folder: which configs may resume it, and status, log and statistics that survive a kill."""

import errno
import json
import os
import re
import socket
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.storage import rundir
from harness.storage.atomic import atomic_write
from harness.storage.rundir import RunDir, refuse_other_size
from tests.harness.sabotage import Saboteur, fail_with, real_write
from tests.harness.tiny_runs import make_config
from tests.refusals import refusal_of, refused

# ---- opening and resuming ----


def test_a_run_is_made_and_found_again(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path / "deep" / "runs")
    assert run.path == tmp_path / "deep/runs/run" and run.samples.is_dir() and run.checkpoints.is_dir()
    assert RunDir.open(make_config(), tmp_path / "deep" / "runs").read_config() == make_config()
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


def test_a_run_of_another_size_is_told_in_one_line_and_stays(tmp_path: Path):
    """Also where another config is allowed: no checkpoint of it could go on."""
    run = RunDir.open(make_config(), tmp_path)
    before, other = run.config_path.read_bytes(), make_config("data.img_size=[32, 64]")
    for allowed in (False, True):
        with refused(
            f"{run.path}: found a run of 64x64 pictures, this config's are 32x64.",
            "--set name=run-32x64 (make: OVERRIDE=name=run-32x64)",
            f"RUN={run.path.name}",
            f"To replace it: rm -r {run.path}",
        ):
            RunDir.open(other, tmp_path, allow_config_change=allowed)
    assert run.config_path.read_bytes() == before
    RunDir.open(make_config("name=run-32x64", "data.img_size=[32, 64]"), tmp_path)


@pytest.mark.parametrize("old, new", [("name:", "future: {a: 1}\nname:"), ("backbone: resnet", "backbone: next")])
def test_a_run_of_a_newer_version_is_one_line_and_stays(old: str, new: str, tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    content = run.config_path.read_text()
    run.config_path.write_text(content.replace(old, new, 1))
    for action in (run.read_config, partial(RunDir.open, make_config(), tmp_path, allow_config_change=True)):
        with refused("run/config.yaml", "written by a newer version of Carforge", new.split(":")[0], "update"):
            action()
    assert run.config_path.read_text() == content.replace(old, new, 1) != content


def test_a_fine_tuned_run_of_another_size_is_told_too(tmp_path: Path):
    other = make_config("data.img_size=128")
    refuse_other_size(other, tmp_path)
    tuned = RunDir.open(make_config("name=run-freezed"), tmp_path).path
    with refused(f"{tuned}: found a run of 64x64 pictures", f"rm -r {tuned}"):
        refuse_other_size(other, tmp_path)
    base = RunDir.open(make_config(), tmp_path).path
    with refused(f"{base}: found", f"rm -r {base} {tuned}"):
        refuse_other_size(other, tmp_path)
    with refused(f"{base}: found", "--set finetune.from_run=run-128 "):
        refuse_other_size(make_config("data.img_size=128", "name=new", "finetune.from_run=run"), tmp_path)
    (base / "config.yaml").write_text("name: [")  # who opens it says so
    (tuned / "config.yaml").unlink()
    refuse_other_size(other, tmp_path)


FREE = ["optim.total_steps=9", "train.device=cpu", "train.threads=3", "train.pictures=lazy", "train.keep_last=9"]
FREE += ["train.sample_count=9", "train.log_every_steps=9", "train.save_every_steps=9", "train.sample_every_steps=9"]
FREE += ["finetune.freeze_layers=1", "finetune.override.optim.g_lr=1e-3", "finetune.from_run=x"]
BOUND = ["seed=1", "data.set=other", "optim.batch_size=8", "train.precision=fp32", "train.numerics=studiogan"]


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
    with pytest.raises(UserError, match="cannot read or write"):
        RunDir.open(make_config(), tmp_path / "file")
    RunDir.open(make_config(), tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    message = r"run: cannot read or write \(.*run\): Permission denied; "
    assert re.search(message, refusal_of(RunDir.open, make_config(), tmp_path))


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


# ---- statistics, status, log ----


@pytest.mark.parametrize("content", [b'{"a": ', b"[1]", b"\x00\xff"])
def test_damaged_metrics_are_told_before_anything_is_written(tmp_path: Path, content: bytes):
    rundir = RunDir(tmp_path)
    rundir.write_metrics("a", {"b": 1})
    rundir.metrics_path.write_bytes(content)
    before = rundir.metrics_history_path.read_bytes()
    with pytest.raises(UserError, match="metrics.json: is damaged"):
        rundir.write_metrics("a", {"b": 2})
    assert rundir.metrics_history_path.read_bytes() == before


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


def test_paths_that_are_no_text_are_logged_and_written(tmp_path: Path):
    run = RunDir(tmp_path)
    run.log("read caf\udce9/1.png")
    run.append_stats({"step": 1, "class": "caf\udce9"})
    assert run.log_path.read_text().endswith("read caf\\udce9/1.png\n")
    atomic_write(tmp_path / "page.html", "caf\udce9 caf\u00e9")
    assert (tmp_path / "page.html").read_bytes() == b"caf\\udce9 caf\xc3\xa9"


def test_env_says_what_it_ran_on(tmp_path: Path):
    run = RunDir.open(make_config(), tmp_path)
    run.write_env(device="cpu", dataset_sha256="ab", path=tmp_path)
    env = json.loads(run.env_path.read_text())
    assert env["device"] == "cpu" and env["host"] == socket.gethostname() and env["packages"]["numpy"]
    assert set(env["git"]) == {"commit", "dirty"} and env["path"] == str(tmp_path)


def test_the_commit_is_that_of_our_own_checkout(tmp_path: Path):
    assert rundir._git_state(tmp_path) == {"commit": None, "dirty": None}
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("a")
    author = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "file"), (*author, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    state = rundir._git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "file").write_text("b")
    assert rundir._git_state(tmp_path)["dirty"] is True
    assert rundir._git_state(tmp_path / "inner")["commit"] is None, "a folder inside a stranger's checkout"
