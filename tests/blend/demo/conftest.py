"""An empty checkout as working directory."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blend.demo.stand_ins import STAND_IN, is_gone, journal


@pytest.fixture(autouse=True)
def checkout(in_tmp_path: None) -> Iterator[None]:
    """Processes that a test leaves running are killed after it."""
    Path("plan").mkdir()
    Path("stand_in.py").write_text(STAND_IN)
    yield
    for words in (line.split() for line in journal()):
        if words[1] == "starts" and not is_gone(int(words[2])):
            os.kill(int(words[2]), signal.SIGKILL)
