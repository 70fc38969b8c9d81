"""Runs functions on untrusted bytes in a separate process, with limits on CPU time and memory.

A C parser that takes minutes over a small file can only be stopped by killing its process.
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
START_SEC = 60.0  # for the process to start, on a very busy machine
WAIT_FACTOR = 20  # wall-clock limit of a call, in multiples of its CPU limit


class TooCostly(Exception):
    """A call exceeded its limit of time or memory."""


class BoundedCalls:
    """`call` runs a function in the process, which starts with the first call and again after a TooCostly one."""

    def __init__(self, cpu_sec: float, memory_bytes: int) -> None:
        """`memory_bytes`: of the whole process, about 30 MB of which the interpreter needs."""
        self.cpu_sec, self.memory_bytes = cpu_sec, memory_bytes
        self.lock = threading.Lock()
        self.cancelled = False
        self.pipe: Connection | None = None
        self.process: Any = None

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments). Everything is pickled, so `function` must be importable by name.

        Raises TooCostly, and Interrupted after `cancel` until `cancelled` is reset."""
        with self.lock:
            self._raise_if_cancelled()
            if self.pipe is None or not self.process.is_alive():
                self._start()
            has_started = False
            try:
                self._pipe.send((function, arguments))
                self._receive(START_SEC)  # received, with its imports
                has_started = True
                kind, result = self._receive(WAIT_FACTOR * self.cpu_sec)
            except BaseException as error:
                self.stop()
                self._raise_if_cancelled()
                if not isinstance(error, EOFError | OSError):
                    raise
                if not has_started:
                    raise RuntimeError("the process for bounded calls could not start") from error
                limits = f"{self.cpu_sec:g} s of CPU time or {self.memory_bytes >> 20} MB"
                raise TooCostly(f"takes more than {limits}") from error
        if kind == "error":
            raise RuntimeError(f"{function.__name__}:\n{result}")
        return result

    def cancel(self) -> None:
        """Ends the current call and refuses further ones. Safe in a signal handler."""
        self.cancelled = True
        if self.process is not None:
            self.process.kill()

    def _raise_if_cancelled(self) -> None:
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
        context = multiprocessing.get_context("spawn")  # not fork: it would copy held locks
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.cpu_sec, self.memory_bytes), daemon=True)
        self.process.start()
        theirs.close()  # so that the process' end closes the pipe

    def _receive(self, seconds: float) -> Any:
        """The next message; EOFError if none comes in time."""
        deadline = time.monotonic() + seconds
        while not self._pipe.poll(POLL_SEC):
            if time.monotonic() > deadline:
                raise EOFError
        return self._pipe.recv()


def _serve(pipe: Connection, cpu_sec: float, memory_bytes: int) -> None:
    """The process' loop. The timer's SIGPROF has no handler, so it ends the process even within C code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    try:
        while True:
            function, arguments = pipe.recv()
            pipe.send(("got", None))
            signal.setitimer(signal.ITIMER_PROF, cpu_sec)
            try:
                response = ("done", function(*arguments))
            except MemoryError:
                return
            except Exception:  # as text: the parent raises it
                response = ("error", traceback.format_exc())
            pipe.send(response)
            signal.setitimer(signal.ITIMER_PROF, 0)
            del function, arguments, response
    except (EOFError, OSError):
        return
