"""The demo run, started from the page: `python -m blend demo` as a process of its own, and where it stands.

Stopped (by the page, or with the server) it saves and ends; started again, it goes on. One that somebody started
elsewhere is shown the same way.
"""

import json
import os
import signal
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import Any

from blend.demo.record import DemoRecord
from blend.demo.stages import STAGES, seconds_left
from blend.studio.jobs import Cancelled, Job
from harness.config.experiment import Config, load_config
from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, UserError
from harness.storage.lock import process_start

LAST_LINES = 12
LOOK_EVERY_SEC = 0.5


class DemoChild:
    """`command`: what runs the demo of `config_path`; its stderr is what it says of itself."""

    def __init__(self, config_path: Path, command: list[str]) -> None:
        self.config_path, self.command = config_path, command
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: deque[str] = deque(maxlen=LAST_LINES)

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
        return (self._process is not None and self._process.poll() is None) or self._other() is not None

    def run(self, job: Job) -> dict[str, Any]:
        """Starts the demo, or follows the one that is at work, until it is done. UserError with what it said when it
        fails; Cancelled when the job is cancelled, after it has saved."""
        if self._other() is not None:
            return self._follow_other(job)
        self._lines.clear()
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
        )
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            while self._process.poll() is None:
                self._tell(job)
                reader.join(LOOK_EVERY_SEC)
        finally:
            self._stop()
        reader.join(5)
        self._check_end(self._process.returncode)
        return {}

    def _follow_other(self, job: Job) -> dict[str, Any]:
        pause = threading.Event()
        while self._other() is not None:
            self._tell(job)
            pause.wait(LOOK_EVERY_SEC)
        if any(stage["state"] != "done" for stage in self.plan()):
            raise UserError("the demo that was at work has stopped before its end; start it here, and it goes on")
        return {}

    def _tell(self, job: Job) -> None:
        plan = self.plan()
        done = sum(stage["state"] == "done" for stage in plan)
        says = self._lines[-1] if self._lines else "the demo run is at work"
        job.tell(done, len(plan), says, plan=plan)

    def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        for text in self._process.stderr:
            line = text.decode("utf-8", "replace").rstrip()
            if line:
                self._lines.append(line)

    def _stop(self) -> None:
        """It finishes its step, saves and ends: never killed, as that would leave its stage at work alone."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()

    def _check_end(self, code: int) -> None:
        if code == EXIT_RESUMABLE or code in (-signal.SIGTERM, -signal.SIGINT):
            raise Cancelled
        if code:
            lines = list(self._lines)
            first = next((k for k, line in enumerate(lines) if line.startswith("error: ")), max(0, len(lines) - 3))
            said = " ".join(lines[first:]).removeprefix("error: ")
            hint = "" if code == EXIT_USER_ERROR else f"; `make demo CONFIG={self.config_path}` in a terminal says more"
            raise UserError(f"the demo run has failed: {said}{hint}")

    def _other(self) -> int | None:
        """The process of a demo that holds this run's lock and is not ours; None when nobody does."""
        path = DemoRecord(self.config(), STAGES).lock_path
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            pid, start = int(held["pid"]), held.get("process_start")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if self._process is not None and self._process.poll() is None:
            return None
        try:
            os.kill(pid, 0)
        except (OSError, OverflowError):
            return None
        return pid if start is None or process_start(pid) == start else None
