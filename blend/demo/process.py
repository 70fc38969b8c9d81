"""One stage as a child process: watched, measured, stopped on request, never left behind.

In: a command. Out: its exit code and its resource use (without /proc, the latter at its end only).
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from harness.runtime.child import POLL_SEC, Child, Usage, tree_usage
from harness.storage.lock import process_start

SAMPLE_EVERY_SEC = 0.5
RECORD_EVERY_SEC = 5.0  # at most so much is missing from the record when the demo itself is killed
MAXRSS_MB = 2**-20 if sys.platform == "darwin" else 2**-10  # getrusage(2): bytes on macOS, kilobytes elsewhere


class StageProcess(Child):
    """A running stage. Its stdout goes to stderr: stdout belongs to the demo.

    Attributes: usage (`peak_rss_mb`: of all its processes together, as sampled, or of the largest where that is more).
    """

    def __init__(self, command: list[str]) -> None:
        self.started_at_sec, self.usage = time.monotonic(), Usage()
        super().__init__(command, stdout=2, stderr=None)

    def watch(self, signals: list[int], record: Callable[[int, Usage], None]) -> int:
        """Waits for the end; the exit code, negative for a signal.

        The first of `signals` (filled by a handler) is passed on as SIGTERM, whichever it was: a stage that is still
        starting ends silently at that one. `record` gets pid and usage at once and every RECORD_EVERY_SEC. An exception
        here stops the stage too.
        """
        passed_on, sampled_at_sec, recorded_at_sec = False, float("-inf"), float("-inf")
        try:
            while (code := self.poll()) is None:
                if signals and not passed_on:
                    self.request_stop()
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
            self.stop()
            raise
        return code

    def poll(self) -> int | None:
        if self._process.returncode is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                peak_mb = max(self.usage.peak_rss_mb, used.ru_maxrss * MAXRSS_MB)
                self.usage = Usage(time.monotonic() - self.started_at_sec, used.ru_utime + used.ru_stime, peak_mb)
        return self._process.returncode

    def _sample(self) -> None:
        used = tree_usage(self.pid) or Usage()
        cpu_sec = max(self.usage.cpu_sec, used.cpu_sec)  # falls when a worker is killed
        peak_mb = max(self.usage.peak_rss_mb, used.peak_rss_mb)
        self.usage = Usage(time.monotonic() - self.started_at_sec, cpu_sec, peak_mb)


def stop_orphan(pid: int, start: str | None, log: Callable[[str], None]) -> Usage | None:
    """Stops a stage whose demo was killed, as Ctrl-C would. Its usage in all; None where it had ended before.

    `start` is its `process_start`: by now the pid may belong to another process.
    """
    used: Usage | None = None
    while start is not None and process_start(pid) == start and (now := tree_usage(pid)) is not None:
        if used is None:
            log(f"a stage of an earlier demo is still running (process {pid}): waiting for it to save and end")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        used = now
        time.sleep(POLL_SEC)
    return used
