"""The right commit is cloned once, a wrong checkout or interpreter is refused by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.studiogan import checkout
from tests.refusals import refusal_of


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with three commits, for 0.2.0, 0.4.0 and later; nothing is set and nothing is made yet."""
    repository = tmp_path / "upstream"
    (repository / "src").mkdir(parents=True)
    (repository / "src" / "main.py").write_text("")
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "0.2.0")
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "0.4.0")
    monkeypatch.setattr(checkout, "COMMITS", {"0.2.0": first, "0.4.0": git(repository, "rev-parse", "HEAD")})
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "later")
    monkeypatch.setattr(checkout, "THIRD_PARTY", tmp_path / "third_party")
    monkeypatch.setattr(checkout, "DEFAULT_VENV", tmp_path / ".venv-studiogan")
    for name in ("STUDIOGAN_HOME", "STUDIOGAN_URL", "STUDIOGAN_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return repository


def stand_in(folder: Path, code: int) -> str:
    """An interpreter that answers everything with this exit code."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho 'no module named seaborn' >&2\nexit {code}\n")
    python.chmod(0o755)
    return str(python)


def test_clones_the_right_commit_once(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOGAN_URL", str(upstream))
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 0))
    home, newer = checkout.prepare(), checkout.prepare("0.4.0")
    assert home == checkout.THIRD_PARTY / "PyTorch-StudioGAN" == checkout.find_checkout()
    assert newer == checkout.THIRD_PARTY / "PyTorch-StudioGAN-0.4.0" == checkout.find_checkout("0.4.0")
    assert [git(folder, "rev-parse", "HEAD") for folder in (home, newer)] == list(checkout.COMMITS.values())
    monkeypatch.setenv("STUDIOGAN_URL", "/nowhere")
    assert checkout.prepare() == home


def test_an_unfinished_clone_does_not_count(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 0))
    monkeypatch.setenv("STUDIOGAN_URL", str(tmp_path / "nowhere"))
    assert "STUDIOGAN_URL: cannot clone" in refusal_of(checkout.prepare)
    partial = checkout.THIRD_PARTY / "PyTorch-StudioGAN.partial"
    partial.mkdir(parents=True)
    (partial / "junk").write_text("")
    monkeypatch.setenv("STUDIOGAN_URL", str(upstream))
    assert checkout.prepare().is_dir() and not partial.exists()


def test_a_checkout_that_is_missing_or_of_another_version(upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "try `make studiogan`" in refusal_of(checkout.find_checkout)
    monkeypatch.setenv("STUDIOGAN_HOME", str(upstream))
    text = refusal_of(checkout.find_checkout)
    assert git(upstream, "rev-parse", "--short=7", "HEAD") in text
    assert f"allowed {checkout.COMMITS['0.2.0'][:7]} (0.2.0)" in text
    git(upstream, "checkout", "--quiet", checkout.COMMITS["0.2.0"])
    assert checkout.find_checkout() == upstream
    with pytest.raises(UserError, match="found StudioGAN 0.2.0 .* --set studiogan.version=0.2.0"):
        checkout.find_checkout("0.4.0")


def test_a_checkout_with_changed_files(upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOGAN_HOME", str(upstream))
    git(upstream, "checkout", "--quiet", checkout.COMMITS["0.2.0"])
    (upstream / "src" / "logs").write_text("left by a run")
    assert checkout.find_checkout() == upstream
    (upstream / "src" / "main.py").write_text("changed")
    for command in ((), ("add", "src/main.py")):
        if command:
            git(upstream, *command)
        text = refusal_of(checkout.find_checkout)
        assert f"found 1 changed files in {upstream} (src/main.py ...)" in text
        assert f"try `git -C {upstream} stash`" in text
    git(upstream, "stash", "--quiet")
    assert checkout.find_checkout() == upstream


def test_description_says_what_is_missing(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = checkout.describe()
    assert [line.partition(":")[0] for line in lines] == ["0.2.0", "0.4.0", "interpreter"]
    assert all("try `make studiogan" in line for line in lines)
    git(upstream, "checkout", "--quiet", checkout.COMMITS["0.4.0"])
    monkeypatch.setenv("STUDIOGAN_HOME", str(upstream))
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 1))
    lines = checkout.describe()
    assert "found StudioGAN 0.4.0" in lines[0] and lines[1].startswith(f"0.4.0: {upstream} at ")
    assert lines[2].endswith("do not fit each other")


def test_another_list_of_packages_is_installed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(checkout, "_run", lambda command, complaint: commands.append(command))
    (tmp_path / "venv").mkdir()
    for packages, expected in ((("a", "b"), 2), (("a", "b"), 2), (("a", "c"), 4)):
        monkeypatch.setattr(checkout, "PACKAGES", packages)
        checkout._make_environment(tmp_path / "venv")
        assert len(commands) == expected


def test_interpreters(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="STUDIOGAN_PYTHON: found no interpreter at .*try `make studiogan`"):
        checkout.find_python()
    monkeypatch.setenv("STUDIOGAN_PYTHON", sys.executable)
    assert checkout.find_python() == Path(sys.executable)
    monkeypatch.setenv("STUDIOGAN_URL", str(upstream))
    monkeypatch.setenv("STUDIOGAN_PYTHON", stand_in(tmp_path, 1))
    assert "seaborn" in refusal_of(checkout.prepare)
