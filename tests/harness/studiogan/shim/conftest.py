"""A working folder with a job, which is the current one."""

from pathlib import Path

import pytest

from harness.studiogan.shim import process
from tests.harness.studiogan.shim.shim_jobs import make_checked_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_checked_folder(tmp_path)
    monkeypatch.chdir(made)
    monkeypatch.setattr(process, "_stop_signals", [])
    return made
