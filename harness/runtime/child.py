"""A child process in its own process group: its output, stopping it, its exit code and resource usage (needs /proc)."""

import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAST_LINES = 15
LINE_BYTES = 1 << 16  # longer lines are split
READ_BYTES = 1 << 16
POLL_SEC = 0.1
GROUP_WAIT_SEC = 10.0
TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


class Child:
    """Starts at once, in its own process group, so that Ctrl-C reaches it only through us.

    Read its output until it ends: a full pipe blocks it.

    Attributes: pid; lines (the last ones of its output).
    """

    def __init__(self, command: list[str], on_line: Callable[[str], None] = lambda line: None, **options: Any) -> None:
        """`on_line` gets each line that `read_output` reads. `options`: of Popen; by default only stderr is read."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(command, **{**given, "process_group": 0, **options})
        self.pid, self._on_line = self._process.pid, on_line
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self._splitters = {"stdout": LineSplitter(), "stderr": LineSplitter()}
        self._selector = selectors.DefaultSelector()
        for name in self._splitters:
            if (stream := getattr(self._process, name)) is not None:
                self._selector.register(stream, selectors.EVENT_READ, name)

    def poll(self) -> int | None:
        """The exit code, negative for a signal's number; None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.poll() is None

    def read_chunks(self, seconds: float) -> Iterator[tuple[str, bytes]]:
        """(stream name, bytes) as they come within `seconds`; empty bytes at a stream's end."""
        deadline = time.monotonic() + seconds
        while ready := self._selector.select(max(0.0, deadline - time.monotonic())):
            for key, _ in ready:
                part = os.read(key.fd, READ_BYTES)
                if not part:
                    self._selector.unregister(key.fileobj)
                yield key.data, part

    def to_lines(self, name: str, part: bytes) -> list[str]:
        """The lines that a chunk of this stream completes; at the stream's end the partial line."""
        splitter = self._splitters[name]
        lines = splitter.feed(part) if part else [rest] if (rest := splitter.flush()) else []
        self.lines.extend(lines)
        return lines

    def read_output(self, seconds: float) -> None:
        for name, part in self.read_chunks(seconds):
            for line in self.to_lines(name, part):
                self._on_line(line)

    def error_text(self, otherwise: int = LAST_LINES) -> str:
        """The last output from `error: ` on, as our commands print it; without it, the last lines."""
        lines = list(self.lines)
        begin = max(0, len(lines) - otherwise)
        first = next((number for number, line in enumerate(lines) if line.startswith("error: ")), begin)
        return "\n".join(lines[first:]).removeprefix("error: ")

    def request_stop(self) -> None:
        """Sends SIGTERM: our commands finish their step, save, stop their own processes and exit."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Reads its output to the end; returns the exit code."""
        while (code := self.poll()) is None:
            self.read_output(POLL_SEC)
        self.read_output(0)
        self.close()
        return code

    def stop(self) -> int:
        """Sends SIGTERM and waits as long as it takes: if killed, it would leave its own processes behind."""
        self.request_stop()
        return self.wait()

    def kill(self) -> int:
        """Kills its whole group; returns the exit code."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        wait_for_group(self.pid)
        return code

    def close(self) -> None:
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class LineSplitter:
    """Splits chunks of bytes into lines; `\\r` ends one too (progress bars)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> list[str]:
        """The non-empty lines that `part` completes."""
        *whole, self._rest = re.split(rb"[\r\n]", self._rest + part)
        while len(self._rest) > LINE_BYTES:
            whole.append(self._rest[:LINE_BYTES])
            self._rest = self._rest[LINE_BYTES:]
        return [text for line in whole if (text := _decode(line))]

    def flush(self) -> str:
        """The partial last line."""
        rest, self._rest = self._rest, b""
        return _decode(rest)


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()


def group_members(group: int) -> list[int]:
    """Living processes of a group; [] on a system without /proc."""
    found = []
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in "ZX":  # state and pgrp of proc(5)
                    found.append(int(name))
    return found


def wait_for_group(group: int) -> None:
    """Waits until the group is empty, at most GROUP_WAIT_SEC."""
    deadline = time.monotonic() + GROUP_WAIT_SEC
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.02)


# ---- resource usage ----


@dataclass
class Usage:
    """`peak_rss_mb`: the larger of the sampled total and the largest single process."""

    seconds: float = 0.0
    cpu_sec: float = 0.0
    peak_rss_mb: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        peak_rss_mb = max(self.peak_rss_mb, other.peak_rss_mb)
        return Usage(self.seconds + other.seconds, self.cpu_sec + other.cpu_sec, peak_rss_mb)


def tree_usage(pid: int) -> Usage | None:
    """Of a process and its living descendants; None if it is gone. Shared pages count for each."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # from field 3 of proc(5) on
        uptime_sec = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:  # gone, or a system without /proc
        return None
    if fields[0] == "Z":
        return None
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, and those of children that have ended
    usage = Usage(uptime_sec - int(fields[19]) / TICKS_PER_SEC, ticks / TICKS_PER_SEC, int(fields[21]) * PAGE_MB)
    for child in _children(pid):
        if (more := tree_usage(child)) is not None:
            usage.cpu_sec, usage.peak_rss_mb = usage.cpu_sec + more.cpu_sec, usage.peak_rss_mb + more.peak_rss_mb
    return usage


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # that process or thread has just ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found
