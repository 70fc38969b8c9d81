"""The demo run, started from the page: `python -m blend demo` as a process of its own, and where it stands.

Stopped (by the page, or with the server) it saves and ends; started again, it goes on. One that somebody started
elsewhere is shown the same way.
"""

import signal
import time
from pathlib import Path
from typing import Any

from blend.demo.record import DemoRecord
from blend.demo.stages import STAGES, seconds_left
from blend.studio.jobs import Cancelled, Job
from harness.config.experiment import Config, load_config
from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, UserError
from harness.runtime.child import Child
from harness.storage.lock import lock_holder

LOOK_EVERY_SEC = 0.5


class DemoChild:
    """`command`: what runs the demo of `config_path`; its stderr is what it says of itself."""

    def __init__(self, config_path: Path, command: list[str]) -> None:
        self.config_path, self.command = config_path, command
        self._child: Child | None = None

    def config(self) -> Config:
        return load_config(self.config_path)

    def plan(self) -> list[dict[str, Any]]:
        """Its stages: `name`, `about`, `state` (done, running or open), `seconds` that it still takes."""
        record = DemoRecord(self.config(), STAGES)
        record.read()
        done = record.done_count()
        left = [0.0] * done + seconds_left(STAGES, done, record.seconds())
        running = record.running["stage"] if record.running and self.is_at_work() else None
        return [
            {
                "name": stage.name,
                "about": stage.about,
                "state": "done" if number < done else "running" if stage.name == running else "open",
                "seconds": round(left[number]),
            }
            for number, stage in enumerate(STAGES)
        ]

    def is_at_work(self) -> bool:
        """Here, or started by somebody else."""
        return (self._child is not None and self._child.running) or self._other() is not None

    def run(self, job: Job) -> dict[str, Any]:
        """Starts the demo, or follows the one that is at work, until it is done. UserError with what it said when it
        fails; Cancelled when the job is cancelled, after it has saved."""
        if self._other() is not None:
            return self._follow_other(job)
        child = self._child = Child(self.command)
        try:
            while child.running:
                self._tell(job)
                child.read_output(LOOK_EVERY_SEC)
        finally:
            code = child.stop()
        self._check_end(code, child)
        return {}

    def _follow_other(self, job: Job) -> dict[str, Any]:
        while self._other() is not None:
            self._tell(job)
            time.sleep(LOOK_EVERY_SEC)
        if any(stage["state"] != "done" for stage in self.plan()):
            raise UserError("the demo that was at work has stopped before its end; start it here, and it goes on")
        return {}

    def _tell(self, job: Job) -> None:
        plan = self.plan()
        done = sum(stage["state"] == "done" for stage in plan)
        says = self._child.lines[-1] if self._child and self._child.lines else "the demo run is at work"
        job.tell(done, len(plan), says, plan=plan)

    def _check_end(self, code: int, child: Child) -> None:
        if code == EXIT_RESUMABLE or code in (-signal.SIGTERM, -signal.SIGINT):
            raise Cancelled
        if code:
            said = child.error_text(otherwise=3).replace("\n", " ")
            hint = "" if code == EXIT_USER_ERROR else f"; `make demo CONFIG={self.config_path}` in a terminal says more"
            raise UserError(f"the demo run has failed: {said}{hint}")

    def _other(self) -> int | None:
        """The process of a demo that holds this run's lock and is not ours; None when nobody does."""
        if self._child is not None and self._child.running:
            return None
        return lock_holder(DemoRecord(self.config(), STAGES).lock_path)
