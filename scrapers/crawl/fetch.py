"""The fetcher: pages and pictures from the network into data/raw/<set>/, politely, resumable, all accounted for."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sized
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import noted_signals
from harness.errors import Interrupted, UserError
from harness.images.magic_bytes import PICTURE_TYPES, other_kind, picture_kind
from harness.storage.lock import hold_lock
from scrapers.crawl.ledger import Ledger, picture_line, url_key
from scrapers.crawl.politeness import Manners
from scrapers.crawl.progress import Progress, say
from scrapers.crawl.records import DONE, FAILED, REFUSED, FetchError, HostStopped, Page, Tally, Wanted, raise_if_left
from scrapers.crawl.store import PageCache, PictureFiles

if TYPE_CHECKING:
    from scrapers.crawl.hosts import Clock
    from scrapers.crawl.loop_thread import Background
    from scrapers.crawl.ssrf_guard import GuardedNetwork

__all__ = ["FetchError", "Fetcher", "HostStopped", "Manners", "Page", "Tally", "Wanted", "raise_if_left"]

LOOK_AHEAD = 256  # addresses under way at once, most of them waiting for their host
DAY_SEC = 86400.0
NETWORK_EXTRA = "scrape extra: {name} is missing, try pip install httpx2 protego stamina selectolax"


class Fetcher:
    """`with Fetcher(folder, load_manners(contact=…)) as fetcher:` holds the folder's lock and one client for all.

    SIGINT or SIGTERM: what is in flight is finished shortly, the ledger written, and the call raises Interrupted
    (exit 75). Hosts that had to be stopped are told and listed in `stopped`; end a command with
    `raise_if_left(tally, fetcher.stopped)`, so that its exit code says that addresses are left.
    `network` and `clock` are for tests.
    """

    def __init__(
        self,
        folder: Path,
        manners: Manners,
        network: "GuardedNetwork | None" = None,
        clock: "Clock | None" = None,
    ) -> None:
        self.folder, self.manners = Path(folder), manners
        self.stopped: dict[str, str] = {}  # host → reason
        self.network, self.clock = network, clock
        self.background: Background | None = None
        self.stopping = False
        self.asked: set[bytes] = set()  # under way, or failed in this run
        self.closing = ExitStack()

    def __enter__(self) -> "Fetcher":
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(hold_lock(self.folder / "lock.json", say))
            self.files, self.pages = PictureFiles(self.folder), PageCache(self.folder)
            self.pages.clean()
            self.ledger = Ledger(self.folder / "ledger.jsonl", self.files.scan(), say)
            stack.callback(self.ledger.close)
            if threading.current_thread() is threading.main_thread():
                stack.enter_context(noted_signals((signal.SIGINT, signal.SIGTERM), self._heard))
            stack.callback(self._end)
            self.closing = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self.closing.close()

    def get_page(
        self, url: str, *, fresh_days: float = 7, headers: Mapping[str, str] | None = None, api: bool = False
    ) -> Page:
        """A page's text; from the cache when it was fetched within `fresh_days`, else asked for (conditionally).

        FetchError when it cannot be had. `headers` (a key) go to the first host only, and are not written anywhere.
        `api`: an interface that is offered to programs, see Client.get.
        May be called while `fetch_pictures` reads its `wanted` (a generator that reads pages as it goes)."""
        background = self._running()
        from scrapers.crawl.page import ask_page, lost_page, page_of

        url = url.partition("#")[0]
        cached = self.pages.read(url)
        now = background.client.clock.today()
        if cached is None or not 0 <= now - cached.fetched_at < fresh_days * DAY_SEC:
            try:
                cached = background.submit(ask_page, background.client, url, cached, headers or {}, api).result()
            except FetchError as error:
                if (lost := lost_page(error, now)) is None:
                    raise
                cached = lost
            except BaseException as error:
                raise self._ended(error) from None
            self.pages.write(cached)
        return page_of(cached)

    def fetch_pictures(self, wanted: Iterable[Wanted], total: int | None = None) -> Tally:
        """Every picture not yet settled by the ledger, several at a time. Reads `wanted` as it goes.

        `total`, if it is known, is for the progress' time left. An address that stands twice is fetched once."""
        background = self._running()
        total = len(wanted) if total is None and isinstance(wanted, Sized) else total
        with Progress(total) as progress:
            batch = Batch(progress)
            try:
                for item in wanted:
                    if self.stopping or batch.error:
                        break
                    if self._is_settled(item.url):
                        batch.count("skipped")
                        continue
                    batch.room.acquire()
                    future = background.submit(self._fetch, item)
                    future.add_done_callback(partial(self._finish, batch, url_key(item.url)))
            except BaseException:
                background.drop_waiting()  # the source failed: what only waits for its host would hold that up
                raise
            finally:
                batch.wait()
        if batch.error:
            raise self._ended(batch.error)
        if self.stopping:
            raise Interrupted(f"stopped: {batch.tally}; the same command goes on from here")
        return batch.tally

    def add_local(self, content: bytes, wanted: Wanted) -> str:
        """A picture from an archive or a folder into the same store and ledger; → done | refused."""
        self._go_on()
        known = self.ledger.status(wanted.url)
        if known and known[0] != FAILED:
            return known[0]
        kind, reason = picture_kind(content), None
        if len(content) > self.manners.max_bytes:
            reason = f"too_large: {len(content)} bytes, allowed {self.manners.max_bytes}"
        elif kind is None:
            reason = f"format: found {other_kind(content)}, allowed jpg, png, webp"
        if kind is None or reason:
            self.ledger.add(picture_line(wanted, REFUSED, reason=reason))
            return REFUSED
        self._keep(content, kind, wanted)
        return DONE

    def _is_settled(self, url: str) -> bool:
        """Whether there is nothing to ask for; otherwise it is under way from now on."""
        key, known = url_key(url), self.ledger.status(url)
        if key in self.asked or (known and (known[0] != FAILED or known[1] >= self.manners.total_attempts)):
            return True
        self.asked.add(key)
        return False

    async def _fetch(self, wanted: Wanted) -> str:
        """One picture from its address to its ledger line; → the status to count."""
        from scrapers.crawl.client import PICTURE
        from scrapers.crawl.response import check_picture

        assert self.background
        client, before = self.background.client, self.ledger.status(wanted.url)
        tried = before[1] if before else 0
        try:
            answer = await client.get(wanted.url, PICTURE, check_picture)
        except HostStopped:
            return "left"
        except FetchError as error:
            found = {"reason": error.reason, "http": error.http, "attempts": tried + error.attempts}
            self.ledger.add(picture_line(wanted, error.status, **found))
            return error.status
        found = {"http": answer.status, "attempts": tried + answer.attempts}
        found |= {"etag": answer.headers.get("etag"), "last_modified": answer.headers.get("last-modified")}
        kind = picture_kind(answer.body)
        assert kind is not None  # check_picture let it pass
        with client.in_flight():
            await asyncio.to_thread(self._keep, answer.body, kind, wanted, **found)
        return DONE

    def _keep(self, content: bytes, kind: str, wanted: Wanted, **found: Any) -> None:
        """The file first, then its line: a line without its file would be a lie."""
        sha256, name = self.files.keep(content, kind)
        what = {"sha256": sha256, "bytes": len(content), "content_type": PICTURE_TYPES[kind], "file": name}
        self.ledger.add(picture_line(wanted, DONE, **what, **found))

    def _finish(self, batch: "Batch", key: bytes, future: "Future[str]") -> None:
        """An address' end, in the loop's thread: counted, or what went wrong with us noted."""
        from scrapers.crawl.response import Stopping

        error = None if future.cancelled() else future.exception()
        if not future.cancelled() and error is None:
            batch.count(future.result())
        elif error is not None and not isinstance(error, Stopping):
            batch.error = batch.error or error
        if future.cancelled() or error or future.result() != FAILED:
            self.asked.discard(key)
        batch.room.release()

    def _running(self) -> "Background":
        """The client at work; started when it is first needed, so that archives and folders need no extra."""
        self._go_on()
        if self.background is None:
            try:
                from scrapers.crawl.hosts import Clock
                from scrapers.crawl.loop_thread import Background
                from scrapers.crawl.ssrf_guard import GuardedNetwork
            except ImportError as error:
                raise UserError(NETWORK_EXTRA.format(name=error.name)) from error
            network = self.network or GuardedNetwork(self.manners.allow_private)
            self.background = Background(self.manners, self.clock or Clock(), network, self._host_stopped)
        return self.background

    def _go_on(self) -> None:
        if self.stopping:
            raise Interrupted("stopped; the same command goes on from here")

    def _ended(self, error: BaseException) -> BaseException:
        """What to raise for an error of the loop: being stopped is no error."""
        from scrapers.crawl.response import Stopping

        if isinstance(error, CancelledError | Stopping):
            return Interrupted("stopped; the same command goes on from here")
        return error

    def _host_stopped(self, host: str, reason: str) -> None:
        self.stopped[host] = reason
        say(f"{host}: stopped ({reason}); what is wanted from it is left for another run")

    def _heard(self, number: int) -> None:
        """A signal: the first one winds down, the second one does not wait for that."""
        if self.stopping:
            raise Interrupted("stopped at once; the same command goes on from here")
        self.stopping = True
        with suppress(OSError):  # not print: it cannot be entered again while it is at work
            os.write(2, f"\n{signal.Signals(number).name}: finishing what is in flight\n".encode())
        if self.background:
            self.background.stop()

    def _end(self) -> None:
        if self.background:
            self.background.end()


class Batch:
    """The addresses of one `fetch_pictures`: how many there is room for, how they ended."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.tally = progress, Tally()
        self.room, self.lock = threading.Semaphore(LOOK_AHEAD), threading.Lock()
        self.error: BaseException | None = None  # a full disk, or our bug

    def count(self, status: str) -> None:
        with self.lock:
            self.tally.count(status)
            self.progress.show(self.tally)

    def wait(self) -> None:
        """Until nothing is under way."""
        for _ in range(LOOK_AHEAD):
            self.room.acquire()
