"""Lines on stderr. Standard library only: `make doctor` runs without packages."""

import errno
import io
import os
import sys
from typing import Any


def log(text: str) -> None:
    """One line on stderr; invalid bytes of file names are escaped."""
    rank = os.environ.get("RANK", "0")  # set by torchrun
    text = text if rank == "0" else f"[rank {rank}] {text}"
    sys.stderr.write(
        text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"
    )  # one write: processes share stderr
    sys.stderr.flush()


def counted(count: int, noun: str, plural: str = "s") -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} {noun}{'' if count == 1 else plural}"


def keep_output_open() -> None:
    """From here on, a terminal or pipe that closes does not end the process: its output is dropped.

    A descriptor of 0 to 2 that was closed at the start becomes the null device; otherwise a file of ours would get its
    number and receive what libraries print. A full disk under stdout is still an error: results are printed there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _steady(1, {errno.EPIPE, errno.EIO}, "surrogateescape")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _steady(2, set(errno.errorcode), "backslashreplace")


def _steady(number: int, dropped: set[int | None], errors: str) -> io.TextIOWrapper:
    raw = _SteadyFile(number, "w", closefd=False)
    raw.dropped = dropped
    line_buffering = number == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors=errors, line_buffering=line_buffering)


class _SteadyFile(io.FileIO):
    """Treats writes that fail with an errno in `dropped` as done. Other errors are raised once."""

    dropped: set[int | None]

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self.dropped:
                self.dropped.add(error.errno)  # else the last flush at exit fails again
                raise
            return memoryview(data).nbytes
