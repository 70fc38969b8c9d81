"""The demo run, started from the page as a child process, and its progress.

Stopped (by the page, or with the server) it saves and ends; started again, it resumes. A demo that was started
elsewhere is shown the same way.
"""

import signal
import time
from pathlib import Path
from typing import Any

from blend.demo.demo import DemoRecord
from blend.demo.stages import STAGES
from blend.studio.jobs import Cancelled, Job
from harness.config.experiment import Config, load_config
from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, UserError
from harness.runtime.child import Child
from harness.storage.lock import lock_holder

POLL_EVERY_SEC = 0.5


class DemoProcess:
    """`command` runs the demo of `config_path` and logs to stderr."""

    def __init__(self, config_path: Path, command: list[str]) -> None:
        self.config_path, self.command = config_path, command
        self._child: Child | None = None

    def config(self) -> Config:
        return load_config(self.config_path)

    def plan(self) -> list[dict[str, Any]]:
        """Its stages: `name`, `about`, `state` (done, running or open), `seconds` left."""
        record = DemoRecord(self.config(), STAGES)
        record.read()
        done, left = record.done_count(), record.seconds_left()
        running = record.running.stage if record.running and self.is_running() else None
        return [
            {
                "name": stage.name,
                "about": stage.about,
                "state": "done" if number < done else "running" if stage.name == running else "open",
                "seconds": round(left[number]),
            }
            for number, stage in enumerate(STAGES)
        ]

    def is_running(self) -> bool:
        """Started here or elsewhere."""
        return self._is_ours() or self._other_pid() is not None

    def run(self, job: Job) -> dict[str, Any]:
        """Starts the demo, or follows the one that is running, until it ends.

        Raises:
            UserError: it failed; with its message.
            Cancelled: the job was cancelled and the demo has saved, or it was stopped otherwise.
        """
        if self._other_pid() is not None:
            while self._other_pid() is not None:
                self._report(job)
                time.sleep(POLL_EVERY_SEC)
            if any(stage["state"] != "done" for stage in self.plan()):
                raise UserError("the demo that was running has stopped before its end; start it here to resume it")
            return {}
        child = self._child = Child(self.command)
        try:
            while child.running:
                self._report(job)
                child.read_output(POLL_EVERY_SEC)
        finally:
            code = child.stop()
        if code == EXIT_RESUMABLE or code in (-signal.SIGTERM, -signal.SIGINT):
            raise Cancelled
        if code:
            message = child.error_text(otherwise=3).replace("\n", " ")
            hint = "" if code == EXIT_USER_ERROR else f"; for details run `make demo CONFIG={self.config_path}`"
            raise UserError(f"the demo run failed: {message}{hint}")
        return {}

    def _report(self, job: Job) -> None:
        plan = self.plan()
        done = sum(stage["state"] == "done" for stage in plan)
        message = self._child.lines[-1] if self._child and self._child.lines else "the demo run is in progress"
        job.report(done, len(plan), message, plan=plan)

    def _is_ours(self) -> bool:
        return self._child is not None and self._child.running

    def _other_pid(self) -> int | None:
        """The process that runs this demo where we did not start it."""
        return None if self._is_ours() else lock_holder(DemoRecord(self.config(), STAGES).lock_path)
