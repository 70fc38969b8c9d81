"""However a run ends: its status.json, the error message, and how long the lock is held."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import Interrupted, UserError
from harness.runtime.run_life import run_life
from harness.storage.rundir import RunDir

NOTED = ValueError("wrong")
NOTED.add_note("what it said last")
FULL = OSError(errno.ENOSPC, "No space left on device", "a.pt")
ENDS = [
    (FULL, UserError, r"cut: cannot read or write \(a.pt\): No space left on device; what was saved", str(FULL)),
    (torch.OutOfMemoryError("2 GiB"), UserError, "^take smaller batches$", "2 GiB"),
    (NOTED, ValueError, "^wrong", "wrong\nwhat it said last"),
]


@pytest.mark.parametrize(("error", "kind", "text", "noted"), ENDS, ids=["disk", "memory", "notes"])
def test_a_failure_is_noted_under_the_lock(
    tmp_path: Path, monkeypatch, error: Exception, kind: type[Exception], text: str, noted: str
) -> None:
    rundir, write = RunDir(tmp_path / "cut"), RunDir.write_status
    rundir.path.mkdir()
    locked = []

    def write_status(self: RunDir, *words: Any, **fields: Any) -> None:
        locked.append(self.lock_path.exists())
        write(self, *words, **fields)

    monkeypatch.setattr(RunDir, "write_status", write_status)
    with pytest.raises(kind, match=text), run_life(rundir) as life:
        life.resources.enter_context(rundir.lock())
        life.set_target(5, None)
        run: Any = SimpleNamespace(step=3)
        life.start(run, "take smaller batches")
        raise error
    status = rundir.read_status() or {}
    assert [status[key] for key in ("state", "step", "total_steps", "message")] == ["failed", 3, 5, noted]
    assert locked == [True] and not rundir.lock_path.exists()


@pytest.mark.parametrize("error", [Interrupted("stopped"), UserError("the config differs")])
def test_what_ends_a_run_before_it_begins_is_no_failure_of_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), run_life(RunDir(tmp_path)):
        raise error
    assert not list(tmp_path.iterdir())
