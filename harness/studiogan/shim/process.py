"""Signals, parent and output lines of the process that runs StudioGAN. Imports no torch."""

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import time
from typing import Any, NoReturn

EXIT_OUT_OF_MEMORY = 3  # beside those of harness/errors.py
PR_SET_PDEATHSIG = 1  # prctl(2)
PARENT_VARIABLE = "CARFORGE_PARENT_PID"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
HEARTBEAT_SEC = 5.0

_stop_signals: list[int] = []


def log_event(word: str, **facts: Any) -> None:
    """One line `carforge: word key=value ...` on stdout, in one write, so that processes do not mix their lines."""
    values = (f" {key}={value:.10g}" if isinstance(value, float) else f" {key}={value}" for key, value in facts.items())
    sys.stdout.write(f"carforge: {word}{''.join(values)}\n")
    sys.stdout.flush()


class Heartbeat:
    """Reports the step to the engine between StudioGAN's rare log lines, so that a slow run is not taken for a hung
    one.
    """

    def __init__(self) -> None:
        self._sent_at_sec = time.monotonic()

    def beat(self, step: int) -> None:
        """After update `step`; at most one line in HEARTBEAT_SEC."""
        now = time.monotonic()
        if now - self._sent_at_sec >= HEARTBEAT_SEC:
            self._sent_at_sec = now
            log_event("step", step=step)


def catch_stop_signals() -> None:
    """STOP_SIGNALS are recorded, and handled between two iterations."""
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: _stop_signals.append(number))


def init_worker(worker: int) -> None:
    """For data-loader workers: a signal to the group would kill them, and torch would fail in the iteration.

    Without `die_with_parent` they would outlive a killed training by seconds.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(None)


def stop_requested() -> bool:
    return bool(_stop_signals)


def die_with_parent(parent_pid: int | None) -> None:
    """The process is killed when the engine dies, on Linux; the last save is kept."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent_pid is not None and os.getppid() != parent_pid:  # the parent died before the call
        sys.exit(1)


def engine_pid() -> int | None:
    """The process that started the shim."""
    given = os.environ.get(PARENT_VARIABLE)
    return int(given) if given else None


def exit_now(code: int) -> NoReturn:
    """Ends this process and its data-loader workers at once; a normal exit waits for them, and they ignore signals."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error there when a worker is killed
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def set_master_address() -> None:
    """Rendezvous of the -DDP processes on this machine, instead of a cluster's job script's."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(listener.getsockname()[1])
