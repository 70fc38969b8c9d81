"""The studio's short work: one thread draws for all tabs, and only the newest request of a tab counts.

A dragged slider sends requests faster than pictures can be drawn. A request that is still waiting when its tab sends
the next one of its kind is superseded.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from harness.errors import UserError

DRAW, OTHER = "draw", "other"
KINDS = (DRAW, "measure", "sweep", OTHER)
MAX_WAITING = 400
MAX_TAB_CHARS = 40  # of a tab's name


class Superseded(Exception):
    """The same tab has sent a newer request."""


class LatestOnlyQueue:
    """Attributes: completed, superseded: numbers of requests."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, str], tuple[Callable[[], Any], Future[Any]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._drew_last = False
        self.completed = self.superseded = 0
        self._thread = threading.Thread(target=self._work, name="studio-drawing", daemon=True)
        self._thread.start()

    def submit(self, tab: str, kind: str, work: Callable[[], Any]) -> "Future[Any]":
        """What `work` returns, or Superseded. UserError when too many wait."""
        assert kind in KINDS, kind
        future: Future[Any] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= MAX_WAITING:
                raise UserError("studio: too many requests at once; try again in a moment")
            # The newest takes its predecessor's place in the queue, so that a tab that sends many is not always last.
            before = self._waiting.get((tab, kind))
            self._waiting[(tab, kind)] = work, future
            self._changed.notify()
        if before is not None:
            self.superseded += 1
            before[1].set_exception(Superseded())
        return future

    async def run(self, work: Callable[[], Any], kind: str = OTHER, tab: str | None = None) -> Any:
        """The same, awaited. A request of no tab is never superseded."""
        token = object()
        name = f"alone {id(token)}" if tab is None else tab[:MAX_TAB_CHARS]
        return await asyncio.wrap_future(self.submit(name, kind, work))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            left = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for _, future in left:
            future.set_exception(Superseded())
        self._thread.join(30)

    def _take(self) -> tuple[Callable[[], Any], "Future[Any]"] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            first = self._next()
            self._drew_last = first[1] == DRAW
            return self._waiting.pop(first)

    def _next(self) -> tuple[str, str]:
        """Pictures take every second turn, however many tabs drag. The other turns go to clicks (keep, export) first,
        then to measures and sweeps; among equals, to the oldest."""
        turns = (OTHER, "measure sweep", DRAW) if self._drew_last else (DRAW, OTHER, "measure sweep")
        return next(key for turn in turns for key in self._waiting if key[1] in turn.split())

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            work, future = taken
            if not future.set_running_or_notify_cancel():  # its tab is closed
                continue
            try:
                result = work()
            except Exception as error:  # raised where the result is awaited
                future.set_exception(error)
            else:
                self.completed += 1
                future.set_result(result)
