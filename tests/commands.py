"""Our commands: their options, what they do in processes of their own, and waiting for it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer.main

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SEC = 60


def python_options(threads: str = "1") -> dict[str, Any]:
    """What `subprocess` needs to give such a process text, our packages in any folder, and so many threads."""
    return {"text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}}


def run_python(*arguments: str, threads: str = "1") -> subprocess.CompletedProcess[str]:
    """`python <arguments>` from its start to its end."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, timeout=2 * PATIENCE_SEC, **python_options(threads))


@contextmanager
def python_at_work(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`python <arguments>` with pipes for what it says; it is killed if it has not ended with the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with subprocess.Popen([sys.executable, *arguments], **pipes, **python_options()) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(reached: Callable[[], object], what: str = "") -> None:
    end = time.monotonic() + PATIENCE_SEC
    while not reached():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


def options_of(app: typer.Typer, command: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    return {option for parameter in group.commands[command].params for option in parameter.opts}
