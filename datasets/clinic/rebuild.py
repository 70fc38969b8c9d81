"""A rebuild under way: the ordinary build command as a process of its own, its last words, and how it ended.

A process, so that its memory goes with it, and nothing that goes wrong in it ends the clinic.
"""

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable

from harness.cli import say

LAST_LINES = 12
STOP_SEC = 20


class Rebuild:
    """Starts at once. `take_over` is called after a good end, before `running` becomes False.

    Attributes: running; fault ("" = none so far); says (its last line).
    """

    def __init__(self, command: list[str], take_over: Callable[[], None]) -> None:
        self.running, self.fault = True, ""
        self._started, self._lines = time.monotonic(), deque(["starting"], LAST_LINES)
        self._take_over = take_over
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
        )
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def says(self) -> str:
        return self._lines[-1]

    @property
    def seconds(self) -> int:
        return int(time.monotonic() - self._started)

    def _follow(self) -> None:
        assert self._process.stderr is not None
        try:
            for text in self._process.stderr:
                line = text.decode("utf-8", "replace").rstrip()
                if line:
                    self._lines.append(line)
                    say(line)
            code = self._process.wait()
            if code:
                self.fault = "\n".join(self._lines) if code != 2 else self._user_error()
            else:
                self._take_over()
        except Exception as error:  # told on the page: nobody reads a thread's traceback
            self.fault = f"{type(error).__name__}: {error}"
        finally:
            self.running = False

    def _user_error(self) -> str:
        """From the line that begins so: a fault may be told in several."""
        lines = list(self._lines)
        first = next((k for k, line in enumerate(lines) if line.startswith("error: ")), 0)
        return "\n".join(lines[first:]).removeprefix("error: ")

    def wait(self, timeout_sec: float) -> None:
        self._thread.join(timeout_sec)

    def stop(self) -> None:
        """Asks it to end (it leaves nothing half-made), and sees that it does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SEC)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
