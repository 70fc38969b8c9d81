"""Long jobs of the studio: one thread runs them, tabs in turn. They report progress and can be cancelled.

A job is named by its key: a second request for the same key gets the same job.
"""

import sys
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Literal

from harness.errors import UserError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
FINAL_STATES: tuple[State, ...] = ("done", "failed", "cancelled")
MAX_FINISHED = 200  # that are remembered
MAX_WAITING, MAX_PER_TAB = 200, 20


class Cancelled(Exception):
    """Raised inside a job that was cancelled."""


class Job:
    """`work` gets the job, reports its progress there, and returns the result."""

    def __init__(self, key: str, work: Callable[["Job"], dict[str, Any]]) -> None:
        self.key, self.work = key, work
        self.state: State = "waiting"
        self._progress: dict[str, Any] = {"done": 0, "total": 0, "message": ""}
        self._cancelled = threading.Event()

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES

    def report(self, done: int, total: int, message: str, **more: Any) -> None:
        """Raises Cancelled when the job was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled
        self._progress = {"done": done, "total": total, "message": message, **more}

    def cancel(self) -> None:
        self._cancelled.set()
        if self.state == "waiting":
            self.state = "cancelled"

    def snapshot(self) -> dict[str, Any]:
        return {"key": self.key, "state": self.state, **self._progress}

    def run(self) -> None:
        if self.state != "waiting":
            return
        self.state = "running"
        try:
            self._end("done", result=self.work(self))
        except Cancelled:
            self._end("cancelled")
        except UserError as error:
            self._end("failed", error=str(error))
        except Exception as error:  # shown on the page: nobody reads a thread's traceback
            traceback.print_exc(file=sys.stderr)
            self._end("failed", error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _end(self, state: State, **more: Any) -> None:
        self._progress = {**self._progress, **more}
        self.state = state


class Jobs:
    """The queue and its thread."""

    def __init__(self) -> None:
        self._jobs_by_key: OrderedDict[str, Job] = OrderedDict()
        self._queue: deque[tuple[str, Job]] = deque()  # with the tab that each job is for
        self._last_turns: dict[str, int] = {}  # by tab
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="studio-jobs", daemon=True)
        self._thread.start()

    def start(self, key: str, work: Callable[[Job], dict[str, Any]], run_now: bool = False, tab: str = "") -> Job:
        """The job of this key: the one that waits, runs or is done, or a new one. UserError when too many wait.

        `run_now`: it takes no time, so it is run here. `tab`: who asks; tabs take turns.
        """
        with self._changed:
            job = self._jobs_by_key.get(key)
            if job is not None and job.state in ("waiting", "running", "done"):
                return job
            if not run_now:
                self._refuse_too_many(tab)
            job = self._jobs_by_key[key] = Job(key, work)
            self._jobs_by_key.move_to_end(key)
            finished = [key for key, job in self._jobs_by_key.items() if job.finished]
            for old in finished[: max(0, len(finished) - MAX_FINISHED)]:
                del self._jobs_by_key[old]
            if not run_now:
                self._queue.append((tab, job))
                self._changed.notify()
        if run_now:
            job.run()
        return job

    def run_waiting(self) -> None:
        """Runs all waiting jobs; also called by a long job that nobody waits for, so that others overtake it."""
        while True:
            with self._changed:
                if not self._queue or self._closed:
                    self._last_turns = {}
                    return
                job = self._next()
            job.run()

    def _refuse_too_many(self, tab: str) -> None:
        self._queue = deque((owner, job) for owner, job in self._queue if not job.finished)  # drops cancelled ones
        own = sum(owner == tab for owner, _ in self._queue)
        if own >= MAX_PER_TAB or len(self._queue) >= MAX_WAITING:
            raise UserError(f"jobs: {max(own, len(self._queue))} are waiting already; try again when some are done")

    def _next(self) -> Job:
        """The first job of the tab whose last turn was longest ago."""
        turns = [self._last_turns.get(owner, -1) for owner, _ in self._queue]
        place = turns.index(min(turns))
        owner, job = self._queue[place]
        del self._queue[place]
        self._last_turns[owner] = max(self._last_turns.values(), default=-1) + 1
        return job

    def get(self, key: str) -> Job | None:
        with self._changed:
            return self._jobs_by_key.get(key)

    def drop(self, key: str) -> None:
        """Forgets a finished job, so that the next `start` runs it again."""
        with self._changed:
            if (job := self._jobs_by_key.get(key)) is not None and job.finished:
                del self._jobs_by_key[key]

    def close(self) -> None:
        """Cancels everything and waits for the thread."""
        with self._changed:
            self._closed = True
            for job in self._jobs_by_key.values():
                if not job.finished:
                    job.cancel()
            self._changed.notify()
        self._thread.join(30)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
            self.run_waiting()
