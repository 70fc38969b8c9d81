"""Maps a function over items in worker processes, with results in order.

Decoders of untrusted bytes may crash or hang: that item becomes `TaskFailed`, and a new process takes over the rest.
The standard pools would lose everything in flight, and cannot stop a process that hangs. Memory is bounded: no item is
dispatched further than a window ahead of the oldest unfinished one.
"""

import ctypes
import multiprocessing
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

CHUNK_ITEMS = 16  # sent to a process at once
WINDOW_ITEMS = 48  # per process, how far work may run ahead
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
REPLY_SEC = 0.5  # a chunk's results come in one message, unless it takes longer than this
START_SEC = 300  # for a process to start on a very busy machine


@dataclass(frozen=True)
class TaskFailed:
    """Result of an item whose process died or timed out."""

    reason: str


def keep_memory() -> None:
    """Lets malloc keep up to 64 MB of a picture's memory for the next one, which saves up to a millisecond a picture.

    Works with glibc alone."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(M_TRIM_THRESHOLD, 64 * 2**20)
    except (OSError, AttributeError):
        pass


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, timeout_sec: float = 120
) -> Generator[Any, None, None]:
    """function(item) or TaskFailed for every item, in order. `workers` 0: in this process, without protection.

    `function` must be importable by name; an exception in it is raised here. At most a window of `items` is held.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pool = _ProcessPool(function, items, workers, timeout_sec)
    try:
        done: dict[int, Any] = {}
        position = 0
        while position in done or pool.has_item(position):
            while position not in done:
                done.update(pool.collect(oldest=position))
            yield done.pop(position)
            position += 1
    finally:
        pool.stop()


class _ProcessPool:
    """Worker processes and the items in flight, by position."""

    def __init__(self, function: Callable, items: Iterable[Any], workers: int, timeout_sec: float) -> None:
        self.function, self.timeout_sec = function, timeout_sec
        self.source, self.taken = iter(items), 0
        self.items: dict[int, Any] = {}
        self.waiting: deque[int] = deque()
        self.window_items = WINDOW_ITEMS * workers
        self._take(CHUNK_ITEMS * workers)
        count = min(workers, -(-len(self.items) // CHUNK_ITEMS))
        self.processes = [_Worker(function) for _ in range(count)]

    def has_item(self, position: int) -> bool:
        """Whether there is an item at this position."""
        if position == self.taken:
            self._take(1)
        return position < self.taken

    def _take(self, count: int) -> None:
        for item in islice(self.source, count):
            self.items[self.taken] = item
            self.waiting.append(self.taken)
            self.taken += 1

    def collect(self, oldest: int) -> dict[int, Any]:
        """Dispatches work, waits for results, and returns them as {position: result}."""
        for worker in self.processes:
            if worker.ready and not worker.pending:
                self._dispatch(worker, oldest)
        answered = wait([worker.pipe for worker in self.processes], timeout=1.0)
        results: dict[int, Any] = {}
        for worker in list(self.processes):
            if worker.pipe in answered:
                results.update(self._receive(worker))
            elif worker.overdue(self.timeout_sec):
                results.update(self._replace(worker, f"timeout: not decoded within {self.timeout_sec:g} s"))
        for position in results:
            del self.items[position]
        return results

    def _dispatch(self, worker: "_Worker", oldest: int) -> None:
        lacking = min(CHUNK_ITEMS - len(self.waiting), oldest + self.window_items - self.taken)
        if lacking > 0:
            self._take(lacking)
        chunk = []
        while self.waiting and len(chunk) < CHUNK_ITEMS and self.waiting[0] < oldest + self.window_items:
            chunk.append(self.waiting.popleft())
        if chunk:
            worker.send([(position, self.items[position]) for position in chunk])

    def _receive(self, worker: "_Worker") -> dict[int, Any]:
        try:
            kind, position, results = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(10)
            return self._replace(worker, f"crash: the decoder ended with code {worker.process.exitcode}")
        if kind == "bug":
            raise RuntimeError(f"{self.items[position]}:\n{results}")
        worker.since = time.monotonic()
        if kind == "ready":
            worker.ready = True
            return {}
        for position, _ in results:
            assert worker.pending[0] == position
            worker.pending.popleft()
        return dict(results)

    def _replace(self, worker: "_Worker", reason: str) -> dict[int, Any]:
        """Replaces a dead process: its current item fails, its other items are queued again."""
        worker.stop()
        if not worker.ready:
            raise RuntimeError(f"a worker process could not start ({reason})")
        self.processes[self.processes.index(worker)] = _Worker(self.function)
        if not worker.pending:
            return {}
        failed = worker.current.value if worker.current.value in worker.pending else worker.pending[0]
        self.waiting.extendleft(position for position in reversed(worker.pending) if position != failed)
        return {failed: TaskFailed(reason)}

    def stop(self) -> None:
        for worker in self.processes:
            worker.stop()


class _Worker:
    """One process and our end of its pipe."""

    def __init__(self, function: Callable) -> None:
        # Spawned, not forked, so that no lock held by another thread is copied.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.current: Any = context.RawValue("q", -1)  # position of its item, in shared memory that outlives it
        self.process = context.Process(target=_work, args=(function, theirs, self.current), daemon=True)
        self.process.start()
        theirs.close()  # so that its death closes the pipe
        self.pending: deque[int] = deque()
        self.ready, self.since, self.last_seen = False, time.monotonic(), -1

    def send(self, chunk: list[tuple[int, Any]]) -> None:
        self.pending.extend(position for position, _ in chunk)
        self.since = time.monotonic()
        try:
            self.pipe.send(chunk)
        except OSError:  # it has just died; the next wait notices
            pass

    def overdue(self, timeout_sec: float) -> bool:
        limit_sec = timeout_sec if self.ready else START_SEC
        if self.current.value != self.last_seen:
            self.last_seen, self.since = self.current.value, time.monotonic()
        return (not self.ready or bool(self.pending)) and time.monotonic() - self.since > limit_sec

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(function: Callable, pipe: Connection, current: Any) -> None:
    """The process's loop: receives chunks, sends results; ends when the pipe is closed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    keep_memory()
    pipe.send(("ready", -1, None))
    try:
        while True:
            chunk, results, began_sec = pipe.recv(), [], time.monotonic()
            for position, item in chunk:
                current.value = position
                try:
                    results.append((position, function(item)))
                except Exception:  # raised again by the parent
                    pipe.send(("bug", position, traceback.format_exc()))
                    return
                if position == chunk[-1][0] or time.monotonic() - began_sec > REPLY_SEC:
                    pipe.send(("done", -1, results))
                    results, began_sec = [], time.monotonic()
    except (EOFError, OSError):
        return
