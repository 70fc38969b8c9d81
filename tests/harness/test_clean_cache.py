"""`make clean-cache`: says what takes how much, and after a `yes` removes what Carforge can make again, no more."""

import io
import json
import os
import socket
from pathlib import Path

import pytest

from harness.clean_cache import clean_cache
from tests.refusals import refused

CACHES = ("data/cache/real/a.safetensors", "runs/demo/standing/a.safetensors", "data/raw/drawn-32x64/a.png")
KEPT = (
    "data/raw/my-cars/a.jpg",
    "data/hdf5/x/a.hdf5",
    "runs/demo/checkpoints/a.pt",
    "runs/demo/log.txt",
)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*CACHES, *KEPT):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(bytes(1 << 20))
    Path("data/raw/drawn-32x64/.recipe.json").write_text("{}")


def clean(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    clean_cache()


def test_after_a_yes_what_can_be_made_again_goes(monkeypatch, capsys):
    clean(monkeypatch, "yes\n")
    shown = capsys.readouterr().out
    assert "2.0 MB  runs/demo\n" in shown and "1.0 MB  runs/demo/standing  (can be made again" in shown
    assert "7.0 MB  in all, 3.0 MB of it can be made again" in shown and "removed 3.0 MB" in shown
    assert [Path(name).exists() for name in (*CACHES, *KEPT)] == [False] * len(CACHES) + [True] * len(KEPT)
    clean(monkeypatch, "")
    assert "Type yes" not in capsys.readouterr().out  # nothing to remove any more


@pytest.mark.parametrize("answer", ["", "no\n", "y\n"])
def test_without_a_yes_nothing_goes(answer, monkeypatch, capsys):
    clean(monkeypatch, answer)
    assert all(Path(name).exists() for name in (*CACHES, *KEPT)) and "nothing removed" in capsys.readouterr().out


def test_nothing_goes_while_a_command_is_at_work(monkeypatch):
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "token": "a", "process_start": None}
    Path("runs/demo/lock.json").write_text(json.dumps(holder))
    with refused(f"runs/demo/lock.json: process {os.getpid()} is at work"):
        clean(monkeypatch, "yes\n")
    assert all(Path(name).exists() for name in CACHES)
