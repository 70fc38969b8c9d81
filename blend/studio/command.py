"""`python -m blend studio`: opens a run (or offers the demo run) and serves its page until it is stopped."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoints.origin import accept_training_sets
from harness.checkpoints.pretrained import BASE, open_pretrained
from harness.config.experiment import finetuned_name
from harness.errors import UserError
from harness.messages import log
from harness.storage.rundir import RunDir
from harness.web.serve import LOOPBACK, serve_page, ui_extra

if TYPE_CHECKING:
    from blend.studio.studio import Studio

DEMO = Path("configs/demo.yaml")
MAX_NAME_BYTES = 200  # of a run, after which folders and files are named


def studio_command(
    run: str | None, host: str, port: int, open_page: bool, other_set: bool = False, overrides: Sequence[str] = ()
) -> None:
    """Serves the studio of a run (None = the demo or, before it exists, the ready-made model); prints its address.
    `other_set`: binds the run to the present training sets."""
    run = first_run() if run is None else run
    if not run or "/" in run or run.startswith(".") or len(os.fsencode(run)) > MAX_NAME_BYTES:
        raise UserError(f"RUN: found {run[:80]!r}, allowed the name of a folder in runs/, try RUN=demo")
    if not host:
        raise UserError("HOST: found nothing, allowed an address of this machine, try 127.0.0.1, or 0.0.0.0 for all")
    if other_set:
        accept_training_sets(run, finetuned_name(RunDir.existing(run).read_config()))
    studio = open_studio(run, overrides)
    try:
        from blend.studio.server import make_app

        away = host not in LOOPBACK
        names = (host.lower(), socket.gethostname().lower()) if away else ()
        opened = f"the studio of {run} is open" if studio.session else f"{studio.error}; the page offers the demo run"
        serve_page(make_app(studio, names, away), host, port, opened, open_page, studio.closing.set)
    finally:
        studio.close()  # cancels what is running; a demo run saves first
    log("the studio is closed; kept designs are in the run's folder")


def first_run() -> str:
    """The demo's run, or the ready-made model where the demo has no checkpoint yet."""
    return DEMO.stem if any(Path("runs", DEMO.stem, "checkpoints").glob("step-*")) else BASE


def open_studio(run: str, overrides: Sequence[str] = ()) -> "Studio":
    """UserError when the `ui` extra is not installed, or `run` is the ready-made model and that is damaged."""
    with ui_extra("studio"):
        from blend.studio import server  # noqa: F401
        from blend.studio.demo_job import DemoProcess
        from blend.studio.studio import Studio
    if run == BASE:
        open_pretrained()
    command = [sys.executable, "-m", "blend", "demo", "--config", str(DEMO)]
    return Studio(run, DemoProcess(DEMO, command), overrides=overrides)
