import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.studiogan import checkout


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits, the first of which passes for 0.2.0; nothing is set and nothing is made yet."""
    repository = tmp_path / "upstream"
    (repository / "src").mkdir(parents=True)
    (repository / "src" / "main.py").write_text("")
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "0.2.0")
    monkeypatch.setattr(checkout, "COMMIT", git(repository, "rev-parse", "HEAD"))
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "later")
    monkeypatch.setattr(checkout, "DEFAULT_HOME", tmp_path / "third_party" / "PyTorch-StudioGAN")
    monkeypatch.setattr(checkout, "DEFAULT_VENV", tmp_path / ".venv-studiogan")
    for name in ("STUDIOGAN_HOME", "STUDIOGAN_URL", "STUDIOGAN_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return repository


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def stand_in(folder: Path, code: int) -> str:
    """An interpreter that answers everything with this exit code."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho 'no module named seaborn' >&2\nexit {code}\n")
    python.chmod(0o755)
    return str(python)


def test_clones_the_right_commit_once(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOGAN_URL", str(upstream))
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 0))
    home = checkout.prepare()
    assert home == checkout.DEFAULT_HOME == checkout.find_checkout()
    assert git(home, "rev-parse", "HEAD") == checkout.COMMIT
    monkeypatch.setenv("STUDIOGAN_URL", "/nowhere")
    assert checkout.prepare() == home


def test_an_unfinished_clone_does_not_count(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 0))
    monkeypatch.setenv("STUDIOGAN_URL", str(tmp_path / "nowhere"))
    with pytest.raises(UserError) as error:
        checkout.prepare()
    assert "STUDIOGAN_URL: cannot clone" in one_line(error)
    partial = checkout.DEFAULT_HOME.with_name("PyTorch-StudioGAN.partial")
    partial.mkdir(parents=True)
    (partial / "junk").write_text("")
    monkeypatch.setenv("STUDIOGAN_URL", str(upstream))
    assert checkout.prepare().is_dir() and not partial.exists()


def test_a_checkout_that_is_missing_or_of_another_version(upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as error:
        checkout.find_checkout()
    assert "try `make studiogan`" in one_line(error)
    monkeypatch.setenv("STUDIOGAN_HOME", str(upstream))
    with pytest.raises(UserError) as error:
        checkout.find_checkout()
    assert git(upstream, "rev-parse", "--short=7", "HEAD") in one_line(error) and "12ab50a" in one_line(error)
    git(upstream, "checkout", "--quiet", checkout.COMMIT)
    assert checkout.find_checkout() == upstream


def test_interpreters(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="STUDIOGAN_PYTHON: found no interpreter at .*try `make studiogan`"):
        checkout.find_python()
    monkeypatch.setenv("STUDIOGAN_PYTHON", sys.executable)
    assert checkout.find_python() == Path(sys.executable)
    monkeypatch.setenv("STUDIOGAN_URL", str(upstream))
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 1))
    with pytest.raises(UserError) as error:
        checkout.prepare()
    assert "seaborn" in one_line(error)
