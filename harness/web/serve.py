"""Serving a local page until Ctrl-C."""

import errno
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from harness.cli import STOP_SIGNALS, captured_signals
from harness.errors import UserError
from harness.messages import log

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STOP_SEC = 5


@contextmanager
def ui_extra(page: str) -> Iterator[None]:
    """UserError if an import in the block needs the ui extra; `page`: what needs it."""
    try:
        import uvicorn  # noqa: F401

        yield
    except ImportError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn", "anyio"):
            raise
        hint = "try `pip install -r requirements.txt`, or only: pip install fastapi uvicorn"
        raise UserError(f"ui extra: {error.name} is not installed, and the {page} is a web page; {hint}") from error


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 = any free one. UserError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP, or asyncio leaves Nagle's algorithm on, and every response waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            why = f"found {host!r}, which is not an address of this machine, try 127.0.0.1, or 0.0.0.0 for all"
            raise UserError(f"HOST: {why}") from error
        why = f"found {host}:{port}, which cannot be used ({error.strerror}); leave --port out for any free one"
        raise UserError(f"--port: {why}") from error
    listener.listen()
    return listener


def serve_page(
    app: Any,
    host: str,
    port: int,
    opened: str,
    open_page: bool,
    closing: Callable[[], None] = lambda: None,
) -> None:
    """Serves an ASGI application until one of STOP_SIGNALS; pending responses then have STOP_SEC to finish.

    Prints its address on stdout. UserError if the address cannot be used.

    Args:
        opened: what is open, for the log line.
        open_page: also open it in the browser.
        closing: called at once at the end, to end event streams.
    """
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        print(address, flush=True)
        log(f"{opened}; Ctrl-C closes it")
        if host not in LOOPBACK:
            log(f"listening on {host}: anybody who can reach it can use it and see your pictures")
        if open_page:
            webbrowser.open(address)
        _serve(app, listener, closing)


def _serve(app: Any, listener: socket.socket, closing: Callable[[], None]) -> None:
    import uvicorn

    from harness.web.protocol import PatientProtocol

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            closing()
            super().handle_exit(sig, frame)

    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="off",
        http=PatientProtocol, timeout_keep_alive=30, timeout_graceful_shutdown=STOP_SEC,
    )  # fmt: skip
    # uvicorn re-raises the signals when it ends.
    with captured_signals(STOP_SIGNALS), suppress(KeyboardInterrupt):
        Server(settings).run(sockets=[listener])
