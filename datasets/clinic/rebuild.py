"""A rebuild under way: the ordinary build command as a process of its own, its last words, and how it ended.

A process, so that its memory goes with it, and nothing that goes wrong in it ends the clinic.
"""

import threading
import time
from collections.abc import Callable

from harness.messages import log
from harness.runtime.child import Child

STOP_SEC = 20


class Rebuild:
    """Starts at once. `take_over` is called after a good end, before `running` becomes False.

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
        except Exception as error:  # told on the page: nobody reads a thread's traceback
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.running = False

    def wait(self, timeout_sec: float) -> None:
        self._thread.join(timeout_sec)

    def stop(self) -> None:
        """Asks it to end (it leaves nothing half-made), and sees that it does."""
        self._child.request_stop()
        self.wait(STOP_SEC)
        if self._child.running:
            self._child.kill()
