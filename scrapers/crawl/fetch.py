"""Fetches pages and pictures into data/raw/<set>/: polite, resumable, every URL recorded in the ledger."""

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
from scrapers.crawl.page import failed_page, fetch_page, page_of_response, to_page
from scrapers.crawl.page_text import READING
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import DONE, FAILED, FetchCounts, FetchError, HostStopped, Page, PictureItem
from scrapers.crawl.response import Stopping, check_picture
from scrapers.crawl.ssrf_guard import GuardedNetwork
from scrapers.crawl.store import PageCache

MAX_PENDING = 256  # URLs at once, most of them waiting for their host
DAY_SEC = 86400.0
WAIT_SEC = 0.1


class Fetcher(PictureSet):
    """`with Fetcher(folder, politeness) as fetcher:` holds the folder's lock and one HTTP client.

    SIGINT or SIGTERM: requests in flight get a moment to finish, the ledger is written, and the call raises Interrupted
    (exit 75). Stopped hosts are logged and listed in `stopped`; end a command with
    `raise_if_incomplete(counts, fetcher.stopped)`, so that its exit code says that URLs are left.
    `network` and `clock` are for tests.
    """

    loop_thread: LoopThread | None = None  # while the folder is held

    def __init__(
        self, folder: Path, politeness: Politeness, network: GuardedNetwork | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(folder, politeness)
        self.stopped: dict[str, str] = {}  # host → reason
        self.network, self.clock = network or GuardedNetwork(politeness.allow_private), clock or Clock()
        self.requested: set[bytes] = set()  # pending, or failed in this run

    def _open(self, stack: ExitStack) -> None:
        READING.cancelled = False
        super()._open(stack)
        self.pages = PageCache(self.folder)
        self.pages.clean()
        self.loop_thread = loop_thread = LoopThread(self.politeness, self.clock, self.network, self._on_host_stopped)
        stack.callback(lambda: loop_thread.end(self.at_once))

    def get_page(
        self, url: str, *, fresh_days: float = 7, headers: Mapping[str, str] | None = None, api: bool = False
    ) -> Page:
        """A page's text: cached if fetched within `fresh_days`, else by a (conditional) request. FetchError on failure.

        `headers` (a key) go to the first host only and are not stored. `api`: see Client.get.
        May be called while `fetch_pictures` iterates over `items` (a generator that reads pages as it goes)."""
        loop_thread = self._open_loop()
        url = url.partition("#")[0]
        cached = self.pages.read(url)
        now = loop_thread.client.clock.today()
        if cached is None or not 0 <= now - cached.fetched_at < fresh_days * DAY_SEC:
            try:
                response = loop_thread.submit(fetch_page, loop_thread.client, url, cached, headers or {}, api).result()
                cached = page_of_response(url, response, cached, self.politeness.obey_optout and not api, now)
            except FetchError as error:
                if (failed := failed_page(error, now)) is None:
                    raise
                cached = failed
            except BaseException as error:
                raise self._as_interrupted(error) from None
            self.pages.write(cached)
        return to_page(cached)

    def pause(self, seconds: float) -> None:
        """Sleeps; Interrupted when the crawl is stopped meanwhile."""
        loop_thread = self._open_loop()
        try:
            loop_thread.submit(loop_thread.client.clock.sleep, seconds).result()
        except BaseException as error:
            raise self._as_interrupted(error) from None

    def fetch_pictures(self, items: Iterable[PictureItem], total: int | None = None) -> FetchCounts:
        """Fetches every picture that the ledger has not settled, several at a time, each URL once.

        `total`, if known, is for the time left."""
        loop_thread = self._open_loop()
        total = len(items) if total is None and isinstance(items, Sized) else total
        with Progress("pictures", total) as progress:
            batch = Batch(progress)
            try:
                for item in items:
                    if self.stopping or batch.error:
                        break
                    if self._is_settled(item.url):
                        batch.count("skipped")
                        continue
                    batch.room.acquire()
                    future = loop_thread.submit(self._fetch, loop_thread.client, item)
                    future.add_done_callback(partial(self._finish, batch, url_key(item.url)))
            except BaseException:
                loop_thread.drop_waiting()  # the source failed: do not wait for URLs that wait for their host
                raise
            finally:
                batch.wait(lambda: self.at_once)
        if batch.error:
            raise self._as_interrupted(batch.error)
        if self.stopping:
            raise Interrupted(f"stopped: {batch.counts}; the same command resumes from here")
        return batch.counts

    def _is_settled(self, url: str) -> bool:
        """Whether no request is needed; otherwise the URL is marked as requested."""
        key, known = url_key(url), self.ledger.status(url)
        if key in self.requested or (known and (known[0] != FAILED or known[1] >= self.politeness.total_attempts)):
            return True
        self.requested.add(key)
        return False

    async def _fetch(self, client: Client, item: PictureItem) -> str:
        """Fetches one picture and adds its ledger line; returns the status to count."""
        before = self.ledger.status(item.url)
        tried = before[1] if before else 0
        try:
            response = await client.get(item.url, PICTURE, check_picture)
        except HostStopped:
            return "left"
        except FetchError as error:
            fields = {"reason": error.reason, "http": error.http, "attempts": tried + error.attempts}
            self.ledger.add(picture_line(item, error.status, **fields))
            return error.status
        fields = {"http": response.status, "attempts": tried + response.attempts}
        fields |= {"etag": response.headers.get("etag"), "last_modified": response.headers.get("last-modified")}
        kind = picture_kind(response.body)
        assert kind is not None  # see check_picture
        with client.in_flight():
            await asyncio.to_thread(self._save, response.body, kind, item, **fields)
        return DONE

    def _finish(self, batch: "Batch", key: bytes, future: "Future[str]") -> None:
        """Counts a finished URL, or keeps our own error. Runs in the loop's thread."""
        error = None if future.cancelled() else future.exception()
        status = None if future.cancelled() or error else future.result()
        if status is not None:
            batch.count(status)
        elif error is not None and not isinstance(error, Stopping):
            batch.error = batch.error or error
        if status != FAILED:
            self.requested.discard(key)
        batch.room.release()

    def _open_loop(self) -> LoopThread:
        self._raise_if_stopped()
        assert self.loop_thread is not None
        return self.loop_thread

    def _as_interrupted(self, error: BaseException) -> BaseException:
        """The error to raise: Interrupted where the crawl was stopped."""
        if isinstance(error, CancelledError | Stopping):
            return Interrupted("stopped; the same command resumes from here")
        return error

    def _on_host_stopped(self, host: str, reason: str) -> None:
        self.stopped[host] = reason
        log(f"{host}: stopped ({reason}); its other URLs are left for another run")

    def _on_signal(self, number: int) -> None:
        super()._on_signal(number)
        READING.cancel()
        if self.loop_thread:
            self.loop_thread.stop()


class Batch:
    """The URLs of one `fetch_pictures` call: free slots and counts."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.counts = progress, FetchCounts()
        self.room, self.lock = threading.Semaphore(MAX_PENDING), threading.Lock()
        self.error: BaseException | None = None  # a full disk or a bug

    def count(self, status: str) -> None:
        with self.lock:
            self.counts.count(status)
            self.counts.show_in(self.progress)

    def wait(self, at_once: Callable[[], bool]) -> None:
        """Waits until no URL is pending, or until `at_once`."""
        for _ in range(MAX_PENDING):
            while not self.room.acquire(timeout=WAIT_SEC):
                if at_once():
                    return
