"""Functions that read a stranger's bytes, in a process of their own: bounded in CPU time and memory.

A parser in C that takes minutes over a small file can be stopped by nothing but the end of its process.
"""

import multiprocessing
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from harness.errors import Interrupted

T = TypeVar("T")
POLL_SEC = 0.1
START_SEC = 60.0  # for the process to start, on a machine that is very busy
WAIT_FACTOR = 20  # a call may last so many times its CPU seconds where others are at work, too


class TooCostly(Exception):
    """A call took more time or memory than it may."""


class BoundedCalls:
    """`call` runs a function there. The process starts with the first call, and anew after one that was too costly."""

    def __init__(self, cpu_sec: float, memory_bytes: int) -> None:
        """`memory_bytes`: of all that the process holds, itself included (about 30 MB)."""
        self.cpu_sec, self.memory_bytes = cpu_sec, memory_bytes
        self.lock = threading.Lock()
        self.cancelled = False
        self.pipe: Connection | None = None
        self.process: Any = None

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments). Everything is pickled, so `function` must be importable by name.

        TooCostly; Interrupted after `cancel`, until `cancelled` is set back."""
        with self.lock:
            self._go_on()
            if self.pipe is None or not self.process.is_alive():
                self._start()
            has_begun = False
            try:
                self._pipe.send((function, arguments))
                self._receive(START_SEC)  # it has got that, and has loaded what it needs
                has_begun = True
                kind, result = self._receive(WAIT_FACTOR * self.cpu_sec)
            except BaseException as error:
                self.stop()
                self._go_on()
                if not isinstance(error, EOFError | OSError):
                    raise
                if not has_begun:
                    raise RuntimeError("a process for bounded calls could not start") from error
                limits = f"{self.cpu_sec:g} s of CPU time or {self.memory_bytes >> 20} MB"
                raise TooCostly(f"takes more than {limits}") from error
        if kind == "error":
            raise RuntimeError(f"{function.__name__}:\n{result}")
        return result

    def cancel(self) -> None:
        """Ends the call that is under way, and lets none begin. Safe in a signal handler."""
        self.cancelled = True
        if self.process is not None:
            self.process.kill()

    def _go_on(self) -> None:
        if self.cancelled:
            raise Interrupted("stopped; the same command resumes from here")

    def stop(self) -> None:
        if self.pipe is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.pipe = self.process = None

    @property
    def _pipe(self) -> Connection:
        assert self.pipe is not None
        return self.pipe

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")  # not forked: no thread or lock of ours is copied half-way
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.cpu_sec, self.memory_bytes), daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends the pipe

    def _receive(self, seconds: float) -> Any:
        """What it says; EOFError when it says nothing in this time."""
        deadline = time.monotonic() + seconds
        while not self._pipe.poll(POLL_SEC):
            if time.monotonic() > deadline:
                raise EOFError
        return self._pipe.recv()


def _serve(pipe: Connection, cpu_sec: float, memory_bytes: int) -> None:
    """The other side. SIGPROF of the timer, which nothing handles, ends the process in the middle of C code, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    try:
        while True:
            function, arguments = pipe.recv()
            pipe.send(("got", None))
            signal.setitimer(signal.ITIMER_PROF, cpu_sec)
            try:
                answer = ("done", function(*arguments))
            except MemoryError:
                return
            except Exception:  # handed over as text: it is raised on the other side
                answer = ("error", traceback.format_exc())
            pipe.send(answer)
            signal.setitimer(signal.ITIMER_PROF, 0)
            del function, arguments, answer
    except (EOFError, OSError):
        return
