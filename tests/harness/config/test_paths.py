"""`~` and `$VARIABLES` in paths are expanded unless the literal path exists."""

from pathlib import Path

import pytest

from harness.config.paths import expand_path, to_path
from tests.refusals import refused


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CARS", str(tmp_path / "cars"))
    monkeypatch.delenv("dir", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize("read", [to_path, expand_path])
def test_home_and_variables_are_expanded(home: Path, read):
    assert read("~/a") == home / "a" and read("$CARS/b") == home.parent / "cars/b" and read("c") == Path("c")


@pytest.mark.parametrize("read", [to_path, expand_path])
def test_a_path_that_is_there_is_taken_as_it_is_written(home: Path, read):
    for name in ("my$dir", "$CARS", "${x}", "home/my$dir"):
        Path(name).mkdir(parents=True)
    assert read("my$dir") == Path("my$dir") and read("$CARS") == Path("$CARS") and read("${x}") == Path("${x}")
    assert read("~/my$dir") == home / "my$dir"


def test_a_variable_that_is_not_set():
    assert to_path("my$dir/a") == Path("my$dir/a")
    with refused("clean.decisions: found my$dir/a", "allowed variables that are set", "try `export dir=...`"):
        expand_path("my$dir/a", "clean.decisions")
