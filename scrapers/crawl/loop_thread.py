"""The client's event loop in a thread of its own, so that sources need no async code."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from scrapers.crawl.client import Client
from scrapers.crawl.hosts import Clock
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.response import Stopping
from scrapers.crawl.ssrf_guard import GuardedNetwork

T = TypeVar("T")
GRACE_SEC = 1.0  # for requests in flight when the crawl is stopped
AT_ONCE_SEC = 0.5  # for the loop to end without waiting for them
DROP_AGAIN_SEC = 0.05


class LoopThread:
    """A running client. `submit` from any thread; `stop` lets requests in flight finish; `end` ends the thread."""

    def __init__(
        self, politeness: Politeness, clock: Clock, network: GuardedNetwork, on_stop: Callable[[str, str], None]
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = Client(politeness, clock, network, on_stop)
        self.tasks: set[asyncio.Task] = set()
        self.thread = threading.Thread(target=self._run, name="fetcher", daemon=True)
        self.thread.start()

    def submit(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> "Future[T]":
        """Runs `work(*arguments)` in the loop. A stop cancels the future, or it raises Stopping."""
        return asyncio.run_coroutine_threadsafe(self._tracked(work, *arguments), self.loop)

    def stop(self) -> None:
        """No new requests; waiting ends at once, transfers within GRACE_SEC. Safe in a signal handler."""
        self.loop.call_soon_threadsafe(self._stop)

    def drop_waiting(self) -> None:
        """Cancels waiting tasks, now and once the transfers have ended; submit nothing until then."""
        self.loop.call_soon_threadsafe(self._drop_waiting)

    def end(self, at_once: bool = False) -> None:
        """Ends the loop after pending file writes. `at_once`: leave the thread behind after AT_ONCE_SEC."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(AT_ONCE_SEC if at_once else None)

    async def _tracked(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        if self.client.stopping:
            raise Stopping
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            return await work(*arguments)
        finally:
            self.tasks.discard(task)

    def _stop(self) -> None:
        if self.client.stopping:
            return
        self.client.stopping = True
        self._cancel(self.tasks - self.client.transfers)
        self.loop.call_later(GRACE_SEC, lambda: self._cancel(self.tasks))

    def _drop_waiting(self) -> None:
        self._cancel(self.tasks - self.client.transfers)
        if self.tasks:
            self.loop.call_later(DROP_AGAIN_SEC, self._drop_waiting)

    def _cancel(self, tasks: set[asyncio.Task]) -> None:
        for task in list(tasks):
            task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._finish())
        finally:
            self.loop.close()

    async def _finish(self) -> None:
        left = list(self.tasks)
        self._cancel(self.tasks)
        await asyncio.gather(*left, return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.client.close(), GRACE_SEC)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()  # waits for pictures that are being written
