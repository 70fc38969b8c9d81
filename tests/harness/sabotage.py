"""Makes the operating system fail, or end the process, at a chosen call: what the tests of the floor share."""

import os
import signal
from collections.abc import Callable

import pytest

OPERATIONS = ("open", "write", "fsync", "close", "replace", "rename", "unlink", "rmdir", "mkdir")
real_write = os.write


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


def fail_with(number: int) -> Callable[[str, tuple], None]:
    def act(name: str, args: tuple) -> None:
        raise OSError(number, os.strerror(number))

    return act


def die(name: str, args: tuple) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half_and_die(name: str, args: tuple) -> None:
    if name == "write":
        real_write(args[0], args[1][: len(args[1]) // 2])
    die(name, args)
