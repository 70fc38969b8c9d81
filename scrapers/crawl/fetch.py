"""The fetcher: pages and pictures from the network into data/raw/<set>/, politely, resumable, all accounted for."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sized
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from harness.errors import Interrupted
from harness.images.magic_bytes import picture_kind
from harness.messages import log
from harness.runtime.progress import Progress
from scrapers.crawl.client import PICTURE, Client
from scrapers.crawl.hosts import Clock
from scrapers.crawl.ledger import picture_line, url_key
from scrapers.crawl.loop_thread import LoopThread
from scrapers.crawl.page import fetch_page, lost_page, page_of, page_of_response
from scrapers.crawl.page_text import READING
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import DONE, FAILED, FetchCounts, FetchError, HostStopped, Page, PictureItem
from scrapers.crawl.response import Stopping, check_picture
from scrapers.crawl.ssrf_guard import GuardedNetwork
from scrapers.crawl.store import PageCache

MAX_PENDING = 256  # addresses under way at once, most of them waiting for their host
DAY_SEC = 86400.0
WAIT_SEC = 0.1


class Fetcher(PictureSet):
    """`with Fetcher(folder, politeness) as fetcher:` holds the folder's lock and one client for all.

    SIGINT or SIGTERM: what is in flight is finished shortly, the ledger written, and the call raises Interrupted
    (exit 75). Hosts that had to be stopped are told and listed in `stopped`; end a command with
    `raise_if_left(tally, fetcher.stopped)`, so that its exit code says that addresses are left.
    `network` and `clock` are for tests.
    """

    loop_thread: LoopThread | None = None  # while the folder is held

    def __init__(
        self, folder: Path, politeness: Politeness, network: GuardedNetwork | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(folder, politeness)
        self.stopped: dict[str, str] = {}  # host → reason
        self.network, self.clock = network or GuardedNetwork(politeness.allow_private), clock or Clock()
        self.asked: set[bytes] = set()  # under way, or failed in this run

    def _open(self, stack: ExitStack) -> None:
        READING.cancelled = False
        super()._open(stack)
        self.pages = PageCache(self.folder)
        self.pages.clean()
        self.loop_thread = LoopThread(self.politeness, self.clock, self.network, self._on_host_stopped)
        stack.callback(self._end)

    def get_page(
        self, url: str, *, fresh_days: float = 7, headers: Mapping[str, str] | None = None, api: bool = False
    ) -> Page:
        """A page's text; from the cache when it was fetched within `fresh_days`, else asked for (conditionally).

        FetchError when it cannot be had. `headers` (a key) go to the first host only, and are not written anywhere.
        `api`: an interface that is offered to programs, see Client.get.
        May be called while `fetch_pictures` reads its `wanted` (a generator that reads pages as it goes)."""
        loop_thread = self._running()
        url = url.partition("#")[0]
        cached = self.pages.read(url)
        now = loop_thread.client.clock.today()
        if cached is None or not 0 <= now - cached.fetched_at < fresh_days * DAY_SEC:
            try:
                response = loop_thread.submit(fetch_page, loop_thread.client, url, cached, headers or {}, api).result()
                cached = page_of_response(url, response, cached, self.politeness.obey_optout and not api, now)
            except FetchError as error:
                if (lost := lost_page(error, now)) is None:
                    raise
                cached = lost
            except BaseException as error:
                raise self._ended(error) from None
            self.pages.write(cached)
        return page_of(cached)

    def pause(self, seconds: float) -> None:
        """Lets this time pass; Interrupted when the crawl is stopped in it."""
        loop_thread = self._running()
        try:
            loop_thread.submit(loop_thread.client.clock.sleep, seconds).result()
        except BaseException as error:
            raise self._ended(error) from None

    def fetch_pictures(self, wanted: Iterable[PictureItem], total: int | None = None) -> FetchCounts:
        """Every picture not yet settled by the ledger, several at a time. Reads `wanted` as it goes.

        `total`, if it is known, is for the progress' time left. An address that stands twice is fetched once."""
        loop_thread = self._running()
        total = len(wanted) if total is None and isinstance(wanted, Sized) else total
        with Progress("pictures", total) as progress:
            batch = Batch(progress)
            try:
                for item in wanted:
                    if self.stopping or batch.error:
                        break
                    if self._is_settled(item.url):
                        batch.count("skipped")
                        continue
                    batch.room.acquire()
                    future = loop_thread.submit(self._fetch, loop_thread.client, item)
                    future.add_done_callback(partial(self._finish, batch, url_key(item.url)))
            except BaseException:
                loop_thread.drop_waiting()  # the source failed: what only waits for its host would hold that up
                raise
            finally:
                batch.wait(lambda: self.at_once)
        if batch.error:
            raise self._ended(batch.error)
        if self.stopping:
            raise Interrupted(f"stopped: {batch.tally}; the same command goes on from here")
        return batch.tally

    def _is_settled(self, url: str) -> bool:
        """Whether there is nothing to ask for; otherwise it is under way from now on."""
        key, known = url_key(url), self.ledger.status(url)
        if key in self.asked or (known and (known[0] != FAILED or known[1] >= self.politeness.total_attempts)):
            return True
        self.asked.add(key)
        return False

    async def _fetch(self, client: Client, wanted: PictureItem) -> str:
        """One picture from its address to its ledger line; → the status to count."""
        before = self.ledger.status(wanted.url)
        tried = before[1] if before else 0
        try:
            response = await client.get(wanted.url, PICTURE, check_picture)
        except HostStopped:
            return "left"
        except FetchError as error:
            found = {"reason": error.reason, "http": error.http, "attempts": tried + error.attempts}
            self.ledger.add(picture_line(wanted, error.status, **found))
            return error.status
        found = {"http": response.status, "attempts": tried + response.attempts}
        found |= {"etag": response.headers.get("etag"), "last_modified": response.headers.get("last-modified")}
        kind = picture_kind(response.body)
        assert kind is not None  # check_picture let it pass
        with client.in_flight():
            await asyncio.to_thread(self._keep, response.body, kind, wanted, **found)
        return DONE

    def _finish(self, batch: "Batch", key: bytes, future: "Future[str]") -> None:
        """An address' end, in the loop's thread: counted, or what went wrong with us noted."""
        error = None if future.cancelled() else future.exception()
        if not future.cancelled() and error is None:
            batch.count(future.result())
        elif error is not None and not isinstance(error, Stopping):
            batch.error = batch.error or error
        if future.cancelled() or error or future.result() != FAILED:
            self.asked.discard(key)
        batch.room.release()

    def _running(self) -> LoopThread:
        self._go_on()
        assert self.loop_thread is not None
        return self.loop_thread

    def _ended(self, error: BaseException) -> BaseException:
        """What to raise for an error of the loop: being stopped is no error."""
        if isinstance(error, CancelledError | Stopping):
            return Interrupted("stopped; the same command goes on from here")
        return error

    def _on_host_stopped(self, host: str, reason: str) -> None:
        self.stopped[host] = reason
        log(f"{host}: stopped ({reason}); what is wanted from it is left for another run")

    def _on_signal(self, number: int) -> None:
        super()._on_signal(number)
        READING.cancel()
        if self.loop_thread:
            self.loop_thread.stop()

    def _end(self) -> None:
        assert self.loop_thread is not None
        self.loop_thread.end(self.at_once)


class Batch:
    """The addresses of one `fetch_pictures`: how many there is room for, how they ended."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.tally = progress, FetchCounts()
        self.room, self.lock = threading.Semaphore(MAX_PENDING), threading.Lock()
        self.error: BaseException | None = None  # a full disk, or our bug

    def count(self, status: str) -> None:
        with self.lock:
            self.tally.count(status)
            self.tally.show_in(self.progress)

    def wait(self, at_once: Callable[[], bool]) -> None:
        """Until nothing is under way, or nobody waits for that any more."""
        for _ in range(MAX_PENDING):
            while not self.room.acquire(timeout=WAIT_SEC):
                if at_once():
                    return
