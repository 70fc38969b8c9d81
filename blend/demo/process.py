"""One stage at work as a process of its own: watched, measured, asked to stop, never left behind.

In: a command. Out: its exit code, and what it used; where there is no /proc, that is known at its end only.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.storage.lock import process_start

POLL_SEC = 0.1
SAMPLE_EVERY_SEC = 0.5
RECORD_EVERY_SEC = 5.0  # so much is missing from the record when the demo itself is killed
TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
MAXRSS_MB = 2**-20 if sys.platform == "darwin" else 2**-10  # getrusage(2) counts bytes there, kilobytes elsewhere


@dataclass
class Usage:
    """`peak_rss_mb`: of all processes of the stage together, as sampled, or of its largest one where that is more."""

    seconds: float = 0.0
    cpu_sec: float = 0.0
    peak_rss_mb: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        peak_rss_mb = max(self.peak_rss_mb, other.peak_rss_mb)
        return Usage(self.seconds + other.seconds, self.cpu_sec + other.cpu_sec, peak_rss_mb)


class StageProcess:
    """A running stage. It has a process group of its own, so that Ctrl-C reaches it once, through us.

    What it prints goes to stderr: stdout is the demo's.
    """

    def __init__(self, command: list[str]) -> None:
        self.started_at_sec = time.monotonic()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, process_group=0)
        self.pid, self.usage = self._process.pid, Usage()

    def watch(self, signals: list[int], record: Callable[[int, Usage], None]) -> int:
        """Waits for the end; the exit code, negative for a signal.

        The first of `signals` (which a handler fills) is passed on as SIGTERM, whichever it was: a stage that is still
        starting ends silently at that one. `record` gets the process's number and its usage at once and now and then.
        An error here stops the stage, too.
        """
        passed_on, sampled_at_sec, recorded_at_sec = False, float("-inf"), float("-inf")
        try:
            while (code := self._poll()) is None:
                if signals and not passed_on:
                    os.kill(self.pid, signal.SIGTERM)
                    passed_on = True
                now = time.monotonic()
                if now - sampled_at_sec >= SAMPLE_EVERY_SEC:
                    self._sample()
                    sampled_at_sec = now
                if now - recorded_at_sec >= RECORD_EVERY_SEC:
                    record(self.pid, self.usage)
                    recorded_at_sec = now
                time.sleep(POLL_SEC)
        except BaseException:
            self._stop()
            raise
        return code

    def _poll(self) -> int | None:
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        peak_mb = max(self.usage.peak_rss_mb, used.ru_maxrss * MAXRSS_MB)
        self.usage = Usage(time.monotonic() - self.started_at_sec, used.ru_utime + used.ru_stime, peak_mb)
        return code

    def _sample(self) -> None:
        used = _tree_usage(self.pid) or Usage()
        seconds = time.monotonic() - self.started_at_sec
        cpu_sec = max(self.usage.cpu_sec, used.cpu_sec)  # a worker that was killed takes its own with it
        self.usage = Usage(seconds, cpu_sec, max(self.usage.peak_rss_mb, used.peak_rss_mb))

    def _stop(self) -> None:
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGTERM)
            while self._poll() is None:
                time.sleep(POLL_SEC)


def stop_left_behind(pid: int, start: str | None, say: Callable[[str], None]) -> Usage | None:
    """Ends a stage whose demo was killed, as Ctrl-C would. What it used in all once it is gone, None if it was gone.

    `start` is what `process_start` said of it: another process may have its number by now.
    """
    used: Usage | None = None
    while start is not None and process_start(pid) == start and (now := _tree_usage(pid)) is not None:
        if used is None:
            say(f"a stage that an earlier demo left is still at work (process {pid}): it saves and ends first")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        used = now
        time.sleep(POLL_SEC)
    return used


def _tree_usage(pid: int) -> Usage | None:
    """Of a process and its living descendants, so far; None when it is gone. Pages they share count for each."""
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
        if (more := _tree_usage(child)) is not None:
            usage.cpu_sec, usage.peak_rss_mb = usage.cpu_sec + more.cpu_sec, usage.peak_rss_mb + more.peak_rss_mb
    return usage


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # that process or thread has just ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found
