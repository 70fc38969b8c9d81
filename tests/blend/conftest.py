"""A temporary folder for every test; a tiny run with a fine-tune and an encoder, made once; a studio on a copy."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import harness.checkpoints.sampling
from harness.runtime.device import one_thread
from tests.blend.tiny_blend import BASE, add_encoder, make_quick, make_tiny_runs
from tests.serving import served


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    make_quick(monkeypatch)


@pytest.fixture(scope="session")
def made_run(tmp_path_factory) -> Path:
    """A folder with runs/tiny, runs/tiny-freezed, their sets and an encoder."""
    folder = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(folder)
        patch.setattr(harness.checkpoints.sampling, "STANDING_BATCHES", 1)
        add_encoder(make_tiny_runs(folder))
    return folder


@pytest.fixture
def run_folder(made_run, in_tmp_path, monkeypatch) -> None:
    """A copy of it is the working directory."""
    shutil.copytree(made_run, ".", dirs_exist_ok=True)
    monkeypatch.setattr(harness.checkpoints.sampling, "STANDING_BATCHES", 1)


@pytest.fixture
def make_studio(run_folder) -> Iterator[Callable[..., Any]]:
    """Opens studios; `command`: stands in for the demo run."""
    from blend.studio.demo_job import DemoProcess
    from blend.studio.studio import Studio

    demo = Path("demo.yaml")
    demo.write_text(f"extends: {BASE.parent}/demo.yaml\nname: demo\n")
    with ExitStack() as stack:

        def make(name: str = "tiny", command: list[str] | None = None, **options: Any) -> Any:
            studio = Studio(name, DemoProcess(demo, command or ["true"]), **options)
            stack.callback(studio.close)
            return studio

        yield make


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Serves studios in this process; returns the address."""
    with ExitStack() as stack:

        def start(studio: Any) -> str:
            from blend.studio.server import make_app

            address = stack.enter_context(served(make_app(studio)))
            stack.callback(studio.closing.set)
            return address

        yield start
