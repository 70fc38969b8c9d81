"""What must be quick: one thread draws for all tabs, and of what one tab asks for only the last counts.

A slider that is dragged asks faster than anybody can draw. A request that still waits when its tab asks again is not
answered with a picture that nobody wants to see any more: it is superseded.
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
MAX_TAB_CHARS = 40  # characters of a tab's name


class Superseded(Exception):
    """The same tab has asked for something newer."""


class LatestOnlyQueue:
    """Attributes: drawn, superseded: how many requests ended so."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, str], tuple[Callable[[], Any], Future[Any]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._drew_last = False
        self.drawn = self.superseded = 0
        self._thread = threading.Thread(target=self._work, name="studio-drawing", daemon=True)
        self._thread.start()

    def ask(self, tab: str, kind: str, work: Callable[[], Any]) -> "Future[Any]":
        """What `work` returns, or Superseded. UserError when far too many wait."""
        assert kind in KINDS, kind
        future: Future[Any] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= MAX_WAITING:
                raise UserError("studio: too much is asked for at once; try again in a moment")
            # The newest takes its tab's place in the line, so that a tab that asks fast is not always the last.
            before = self._waiting.get((tab, kind))
            self._waiting[(tab, kind)] = work, future
            self._changed.notify()
        if before is not None:
            self.superseded += 1
            before[1].set_exception(Superseded())
        return future

    async def answer(self, work: Callable[[], Any], kind: str = "other", tab: str | None = None) -> Any:
        """The same, awaited. What belongs to no tab is never superseded."""
        token = object()
        return await asyncio.wrap_future(
            self.ask(f"alone {id(token)}" if tab is None else tab[:MAX_TAB_CHARS], kind, work)
        )

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
        """Pictures take every second turn, however many tabs drag. The turns between are of what somebody clicked on
        (keep, export), then of measures and sweeps; of equals the one that waits longest."""
        turns = (OTHER, "measure sweep", DRAW) if self._drew_last else (DRAW, OTHER, "measure sweep")
        return next(key for turn in turns for key in self._waiting if key[1] in turn.split())

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            work, future = taken
            if not future.set_running_or_notify_cancel():  # its tab has gone
                continue
            try:
                result = work()
            except Exception as error:  # told to who asked
                future.set_exception(error)
            else:
                self.drawn += 1
                future.set_result(result)
