"""What takes long: one thread does it, one job after the other, tabs in turn. Jobs tell how far they are, and can be
cancelled.

A job is named by what it does (its key): asked for twice, it is one job, and whoever asks sees how far it is.
"""

import sys
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Literal

from harness.errors import UserError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
OVER: tuple[State, ...] = ("done", "failed", "cancelled")
REMEMBERED = 200  # of jobs that are over
MAX_WAITING, MAX_PER_TAB = 200, 20


class Cancelled(Exception):
    """Raised inside a job that somebody cancelled."""


class Job:
    """`work` gets the job, tells of its progress, and returns what came of it."""

    def __init__(self, key: str, work: Callable[["Job"], dict[str, Any]]) -> None:
        self.key, self.work = key, work
        self.state: State = "waiting"
        self._told: dict[str, Any] = {"done": 0, "of": 0, "says": ""}
        self._cancelled = threading.Event()

    @property
    def over(self) -> bool:
        return self.state in OVER

    def tell(self, done: int, of: int, says: str, **more: Any) -> None:
        """How far it is. Raises Cancelled when it is not wanted any more."""
        if self._cancelled.is_set():
            raise Cancelled
        self._told = {"done": done, "of": of, "says": says, **more}

    def cancel(self) -> None:
        self._cancelled.set()
        if self.state == "waiting":
            self._end("cancelled")

    def snapshot(self) -> dict[str, Any]:
        return {"key": self.key, "state": self.state, **self._told}

    def run(self) -> None:
        if self.state != "waiting":
            return
        self.state = "running"
        try:
            result = self.work(self)
            self._end("done", result=result)
        except Cancelled:
            self._end("cancelled")
        except UserError as error:
            self._end("failed", fault=str(error))
        except Exception as error:  # told on the page: nobody reads a thread's traceback
            traceback.print_exc(file=sys.stderr)
            self._end("failed", fault=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _end(self, state: State, **more: Any) -> None:
        self._told = {**self._told, **more}
        self.state = state


class Jobs:
    """The queue and its thread."""

    def __init__(self) -> None:
        self._jobs_by_key: OrderedDict[str, Job] = OrderedDict()
        self._queue: deque[tuple[str, Job]] = deque()  # whose tab each is
        self._served: dict[str, int] = {}  # tab → turn
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="studio-jobs", daemon=True)
        self._thread.start()

    def start(self, key: str, work: Callable[[Job], dict[str, Any]], at_once: bool = False, tab: str = "") -> Job:
        """The job of this key: the one that waits, runs or is done, or a new one. UserError when too many wait.

        `at_once`: it takes no time, so it is done here and now. `tab`: who asks; tabs take turns.
        """
        with self._changed:
            job = self._jobs_by_key.get(key)
            if job is not None and job.state in ("waiting", "running", "done"):
                return job
            if not at_once:
                self._refuse_too_many(tab)
            job = self._jobs_by_key[key] = Job(key, work)
            self._jobs_by_key.move_to_end(key)
            self._forget()
            if not at_once:
                self._queue.append((tab, job))
                self._changed.notify()
        if at_once:
            job.run()
        return job

    def give_way(self) -> None:
        """Called by a long job that nobody waits for: what waits behind it is done first, by the same thread."""
        while True:
            with self._changed:
                if not self._queue or self._closed:
                    self._served = {}
                    return
                job = self._next()
            job.run()

    def _refuse_too_many(self, tab: str) -> None:
        self._queue = deque((owner, job) for owner, job in self._queue if not job.over)  # cancelled ones make room
        own = sum(owner == tab for owner, _ in self._queue)
        if own >= MAX_PER_TAB or len(self._queue) >= MAX_WAITING:
            raise UserError(f"jobs: {max(own, len(self._queue))} wait already; try again when some are done")

    def _next(self) -> Job:
        """The first job of the tab whose last turn is longest ago."""
        turns = [self._served.get(owner, -1) for owner, _ in self._queue]
        place = turns.index(min(turns))
        owner, job = self._queue[place]
        del self._queue[place]
        self._served[owner] = max(self._served.values(), default=-1) + 1
        return job

    def get(self, key: str) -> Job | None:
        with self._changed:
            return self._jobs_by_key.get(key)

    def drop(self, key: str) -> None:
        """So that the next `start` does it anew."""
        with self._changed:
            if (job := self._jobs_by_key.get(key)) is not None and job.over:
                del self._jobs_by_key[key]

    def close(self) -> None:
        """Cancels everything; returns when the thread has ended."""
        with self._changed:
            self._closed = True
            for job in self._jobs_by_key.values():
                if not job.over:
                    job.cancel()
            self._changed.notify()
        self._thread.join(30)

    def _forget(self) -> None:
        over = [key for key, job in self._jobs_by_key.items() if job.over]
        for key in over[: max(0, len(over) - REMEMBERED)]:
            del self._jobs_by_key[key]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
            self.give_way()
