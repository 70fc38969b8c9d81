"""A rebuild: the build command as a child process, so that its memory is freed and its errors do not end the clinic."""

import threading
import time
from collections.abc import Callable

from harness.messages import log
from harness.runtime.child import Child

STOP_SEC = 20


class Rebuild:
    """Starts at once. `on_success` is called after success, before `running` becomes False.

    Attributes: running; error ("" = none so far); last_line.
    """

    def __init__(self, command: list[str], on_success: Callable[[], None]) -> None:
        self.running, self.error = True, ""
        self._started, self._on_success = time.monotonic(), on_success
        self._child = Child(command, on_line=log)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def last_line(self) -> str:
        return self._child.lines[-1] if self._child.lines else "starting"

    @property
    def seconds(self) -> int:
        return int(time.monotonic() - self._started)

    def _follow(self) -> None:
        try:
            if self._child.wait():
                self.error = self._child.error_text()
            else:
                self._on_success()
        except Exception as error:  # shown on the page: nobody reads a thread's traceback
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.running = False

    def wait(self, timeout_sec: float) -> None:
        self._thread.join(timeout_sec)

    def stop(self) -> None:
        """Ends the process, which leaves no incomplete file."""
        self._child.request_stop()
        self.wait(STOP_SEC)
        if self._child.running:
            self._child.kill()
