"""`python -m blend studio`: opens a run, or the offer to make one, and serves its page until it is stopped."""

import errno
import os
import signal
import socket
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import noted_signals, say
from harness.errors import UserError

if TYPE_CHECKING:
    from blend.studio.studio import Studio

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEMO = Path("configs/demo.yaml")
STOP_SEC = 5
MOST_NAME_BYTES = 200  # of a run: folders and files are named after it


def studio_command(run: str, host: str, port: int, open_page: bool) -> None:
    """Serves the studio of a run; says its address on stdout."""
    if not run or "/" in run or run.startswith(".") or len(os.fsencode(run)) > MOST_NAME_BYTES:
        raise UserError(f"RUN: found {run[:80]!r}, allowed the name of a folder in runs/, try RUN=demo")
    if not host:
        raise UserError("HOST: found nothing, allowed an address of this machine, try 127.0.0.1, or 0.0.0.0 for all")
    studio = open_studio(run)
    try:
        with listen(host, port) as listener:
            address = f"http://{_shown(host)}:{listener.getsockname()[1]}/"
            print(address, flush=True)
            what = (
                f"the studio of {run} is open" if studio.workshop else f"{studio.fault}; the page offers the demo run"
            )
            say(f"{what}; Ctrl-C closes it")
            if host not in LOOPBACK:
                say(f"it was asked to listen on {host}: whoever reaches it can use it, and sees your pictures")
            if open_page:
                webbrowser.open(address)
            serve(studio, listener, host)
    finally:
        studio.close()
    say("the studio is closed; designs that were kept are in the run's folder")


def open_studio(run: str) -> "Studio":
    """UserError when what the page needs is not installed."""
    try:
        import uvicorn  # noqa: F401

        from blend.studio import server  # noqa: F401
        from blend.studio.demo_job import DemoChild
        from blend.studio.studio import Studio
    except ImportError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn", "anyio"):
            raise
        hint = "try `pip install -r requirements.txt`, or only: pip install fastapi uvicorn"
        raise UserError(f"ui extra: {error.name} is not installed, and the studio is a web page; {hint}") from error
    command = [sys.executable, "-m", "blend", "demo", "--config", str(DEMO)]
    return Studio(run, DemoChild(DEMO, command))


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on, and every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            why = f"found {host!r}, which is no address of this machine, try 127.0.0.1, or 0.0.0.0 for all"
            raise UserError(f"HOST: {why}") from error
        why = f"found {host}:{port}, which cannot be used ({error.strerror}); leave --port out for any free one"
        raise UserError(f"--port: {why}") from error
    listener.listen(128)
    return listener


def serve(studio: "Studio", listener: socket.socket, host: str = LOOPBACK[0]) -> None:
    """Until SIGINT or SIGTERM; then what is under way is cancelled, and a demo run saves and ends."""
    import uvicorn

    from blend.studio.server import make_app

    away = host not in LOOPBACK
    names = (host.lower(), socket.gethostname().lower()) if away else ()
    settings = uvicorn.Config(
        make_app(studio, names, away), log_level="warning", access_log=False, server_header=False, ws="none",
        lifespan="off", timeout_keep_alive=30,
    )  # fmt: skip
    settings.timeout_graceful_shutdown = STOP_SEC
    # Told at once, so that streams of events end and the server need not wait for them.
    with noted_signals((signal.SIGINT, signal.SIGTERM)), suppress(KeyboardInterrupt):
        server = uvicorn.Server(settings)
        before = server.handle_exit

        def handle_exit(number: int, frame: object) -> None:
            studio.closing.set()
            before(number, frame)  # type: ignore[arg-type]

        server.handle_exit = handle_exit  # type: ignore[method-assign]
        server.run(sockets=[listener])


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
