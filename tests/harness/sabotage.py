"""Makes the operating system fail, or end the process, at a chosen call; and files that would do harm."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

OPERATIONS = ("open", "write", "fsync", "close", "replace", "rename", "unlink", "rmdir", "mkdir")
real_write = os.write


class Trap:
    """A pickle that makes a folder when it is believed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


class Saboteur:
    """Fails at the `at`-th call of an os function; counts them all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[str, tuple], None]) -> None:
        self.count, self.at, self.act, self.done = 0, at, act, []
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, real: Callable) -> Callable:
        def call(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                self.act(name, args)
            result = real(*args, **kwargs)
            self.done.append(name)
            return result

        return call


def raising(error: BaseException) -> Callable[..., Any]:
    """In the place of any function."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def fail_with(number: int) -> Callable[..., Any]:
    return raising(OSError(number, os.strerror(number)))


def in_a_fork(*actions: Callable[[], object]) -> int:
    """Exit code of a process that does these in turn: 1 for any exception, minus the signal when it was killed."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            for action in actions:
                action()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(name: str, args: tuple) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half_and_die(name: str, args: tuple) -> None:
    if name == "write":
        real_write(args[0], args[1][: len(args[1]) // 2])
    die(name, args)
