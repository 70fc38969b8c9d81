"""What all tests share: where real photos are, and skipping what this machine cannot run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, lacking in (("photos", _lacks_photos), ("studiogan", _lacks_studiogan), ("gpu", _lacks_gpu)):
        if item.get_closest_marker(mark) and (reason := lacking()):
            pytest.skip(reason)


def _lacks_photos() -> str:
    return "" if os.environ.get("CARFORGE_PHOTOS") else "CARFORGE_PHOTOS is not set"


def _lacks_studiogan() -> str:
    home = Path(os.environ.get("STUDIOGAN_HOME") or ROOT / "third_party" / "PyTorch-StudioGAN")
    return "" if (home / "src").is_dir() else "no StudioGAN checkout (make studiogan)"


def _lacks_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch works with one thread; its process-wide settings go back after the test."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def studiogan_python() -> Path:
    """The interpreter that can import StudioGAN. For tests that are marked `studiogan` and run its training."""
    from harness.errors import UserError
    from harness.studiogan.checkout import find_python

    try:
        return find_python()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def photos() -> Path:
    """The folder of real photos: dealer/, concept/, brands/, messy/. For tests that are marked `photos`."""
    return Path(os.environ["CARFORGE_PHOTOS"])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright; what needs it skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = os.environ.get("CARFORGE_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip("no chromium on the PATH: install one, or set CARFORGE_CHROMIUM to its program")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium) -> Iterator[Any]:
    """A page that fails the test for whatever its console complains about."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(30_000)
    complaints: list[str] = []
    context.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context.new_page()
    context.close()
    expected = ("409", "net::ERR_")  # what the browser itself logs of a refusal, and of a server that has gone
    assert [text for text in complaints if not any(one in text for one in expected)] == []
