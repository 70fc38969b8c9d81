"""One GET, as it should be: guarded, allowed by robots.txt, at the host's pace, bounded in every way, tried again.

Every hop of a redirect is an address of its own: checked, asked for under its own host's rules, at its own pace.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import DefaultCookiePolicy

import httpx2
import stamina
from stamina.instrumentation import set_on_retry_hooks

from harness.runtime.daemon import in_daemon_thread
from scrapers.crawl.hosts import Clock, Host, Hosts
from scrapers.crawl.optout import header_opt_out
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import FAILED, REFUSED, FetchError, HostStopped
from scrapers.crawl.response import (
    REDIRECTS,
    Response,
    Stopping,
    TryAgain,
    check_status,
    next_hop,
    origin_of,
    read_body,
    retry_after_sec,
)
from scrapers.crawl.robots import MAX_AGE_SEC, MAX_ROBOTS_BYTES, RobotsRules, rules_of_response
from scrapers.crawl.ssrf_guard import GuardedNetwork, GuardedTransport, NoSuchName, PrivateAddress, check_url

PICTURE = {"Accept": "image/jpeg, image/png, image/webp, */*;q=0.1", "Accept-Encoding": "identity"}
PAGE = {"Accept": "text/html, application/json, */*;q=0.5", "Accept-Encoding": "gzip, deflate"}
ROBOTS = {"Accept": "text/plain, */*;q=0.5", "Accept-Encoding": "gzip, deflate"}

MAX_PARSING = 2  # robots.txt at the same time: parsed, one takes up to 32 MB

Check = Callable[[Response], None]


@dataclass
class FetchState:
    """One address on its way through attempts and redirects."""

    url: str
    headers: Mapping[str, str]
    check: Check
    host: str  # the one asked last
    api: bool = False
    cap: int = 0  # bytes of the body
    attempts: int = 0
    ends: set[str] = field(default_factory=set)  # what the attempts would have made of the address


@dataclass(frozen=True)
class Request:
    """One request. `url` is the address that it is about, `target` the hop that is asked now."""

    url: str
    target: httpx2.URL
    headers: Mapping[str, str]
    cap: int  # bytes of the body
    cut: bool = False  # a longer body is cut there, not refused
    heed_wishes: bool = False


class Client:
    """The one client of a crawl. Lives in one event loop."""

    def __init__(
        self, politeness: Politeness, clock: Clock, network: GuardedNetwork, on_stop: Callable[[str, str], None]
    ) -> None:
        self.politeness, self.clock = politeness, clock
        self.hosts = Hosts(politeness, clock, on_stop)
        self.stopping = False
        self.parsing = asyncio.Semaphore(MAX_PARSING)
        self.transfers: set[asyncio.Task | None] = set()  # what a stop lets finish
        set_on_retry_hooks([])  # stamina would log every retry; the ledger and the progress say what matters
        timeout = httpx2.Timeout(politeness.silence_timeout_sec, connect=politeness.connect_timeout_sec)
        self.http = httpx2.AsyncClient(
            transport=GuardedTransport(network, politeness.total_concurrency),
            timeout=timeout,
            trust_env=False,
            headers={"User-Agent": politeness.user_agent},
            follow_redirects=False,
        )
        self.http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # none are kept

    async def close(self) -> None:
        await self.http.aclose()

    async def get(
        self,
        url: str,
        headers: Mapping[str, str],
        check: Check = lambda response: None,
        api: bool = False,
        cap: int | None = None,
    ) -> Response:
        """The answer (200, or 304 when `headers` are conditional), tried as often as it takes.

        `api`: an interface that its host offers to programs. robots.txt is about walking through pages: it is fetched
        and sets the pace, but what it disallows on that host is not meant here, nor are wishes about indexing.
        `cap`: bytes of its body, where that is less than `max_bytes`.
        `check` raises TryAgain or FetchError for an answer that is not what was asked for. FetchError (refused) after
        the last attempt only when every attempt ended so: among other faults it may have been one of them."""
        cap = min(cap or self.politeness.max_bytes, self.politeness.max_bytes)
        state = FetchState(url, headers, check, origin_of(check_url(url, self.politeness.allow_private)), api, cap)
        try:
            async for attempt in self._retries():
                with attempt:
                    state.attempts = attempt.num
                    response = await self._follow(state)
            await self._mark(state, None)
            return response
        except TryAgain as error:
            self._go_on()  # it was not tried as often as it should be
            await self._mark(state, error.reason if error.host_failure else None)
            status = error.status if len(state.ends) == 1 else FAILED
            raise FetchError(url, status, error.reason, error.http, state.attempts) from error
        except FetchError as error:
            # A name that does not exist is asked for once a run, and counts as much as any other failure.
            error.attempts = self.politeness.attempts if error.status == FAILED else state.attempts
            if error.http is not None:
                await self._mark(state, None)
            raise

    async def _mark(self, state: FetchState, fault: str | None) -> None:
        async with self.hosts.use(state.host) as host:
            host.count_failure(fault) if fault else host.count_success()

    def _retries(self) -> AsyncIterator[stamina.Attempt]:
        politeness = self.politeness
        return stamina.retry_context(
            on=lambda error: isinstance(error, TryAgain) and not self.stopping,
            attempts=politeness.attempts,
            timeout=None,
            wait_initial=politeness.backoff_sec,
            wait_jitter=politeness.backoff_sec,
            wait_max=politeness.max_backoff_sec,
        )

    async def _follow(self, state: FetchState) -> Response:
        """One attempt, through all its redirects."""
        try:
            target, seen = check_url(state.url, self.politeness.allow_private), set()
            headers, api = state.headers, state.api
            while True:
                if target in seen or len(seen) > self.politeness.max_redirects:
                    what = "in a circle" if target in seen else f"more than {self.politeness.max_redirects}"
                    raise TryAgain(f"redirects: {what}", REFUSED, host_failure=False)
                seen.add(target)
                response = await self._hop(state, Request(state.url, target, headers, state.cap, heed_wishes=not api))
                if response.status not in REDIRECTS:
                    check_status(state.url, response)
                    state.check(response)
                    return replace(response, attempts=state.attempts)
                following = next_hop(state.url, response, self.politeness.allow_private)
                if origin_of(following) != origin_of(target):  # a key for one host is not for another
                    api = False
                    headers = {name: value for name, value in headers.items() if name in PICTURE}
                target = following
        except TryAgain as error:
            state.ends.add(error.status)
            raise

    async def _hop(self, state: FetchState, request: Request) -> Response:
        """One address: allowed by its host, and asked for in its turn."""
        state.host = origin_of(request.target)
        async with self.hosts.use(state.host) as host:
            rules = await self._rules(host, request.target)
            if request.heed_wishes and (refusal := await self._refusal(host, rules, request.target)):
                raise FetchError(state.url, *refusal)
            self._go_on()
            async with host.turn(state.url):
                return await self._request(host, request)

    async def _rules(self, host: Host, target: httpx2.URL) -> RobotsRules:
        """The host's rules, fetched when they are not known or too old."""
        async with host.rules_lock:
            if host.rules is None or self.clock.now() >= host.rules_until:
                host.take_rules(await self._fetch_rules(target), MAX_AGE_SEC)
            assert host.rules is not None
            return host.rules

    async def _refusal(self, host: Host, rules: RobotsRules, target: httpx2.URL) -> tuple[str, str] | None:
        """As RobotsRules.refusal. One address of a host after the other, so that none takes all the time there is."""
        async with host.rules_lock:
            return await in_daemon_thread(rules.refusal, str(target))

    async def _fetch_rules(self, target: httpx2.URL) -> RobotsRules:
        robots = str(target.copy_with(raw_path=b"/robots.txt"))
        try:
            async for attempt in self._retries():
                with attempt:
                    return await self._follow_robots(robots)
        except TryAgain as error:
            self._go_on()
            return RobotsRules(stop=f"robots.txt: {error.reason}")
        except HostStopped as error:
            return RobotsRules(stop=error.reason.removeprefix("host_stopped: "))
        except FetchError as error:
            return RobotsRules(closed=error.reason, closed_status=error.status)
        raise AssertionError("a retry ends with a value or an error")

    async def _follow_robots(self, robots: str) -> RobotsRules:
        target = check_url(robots, self.politeness.allow_private)
        for _ in range(self.politeness.max_redirects + 1):
            self._go_on()
            async with self.hosts.use(origin_of(target)) as host, host.turn(robots):
                response = await self._request(host, Request(robots, target, ROBOTS, MAX_ROBOTS_BYTES, cut=True))
            if response.status not in REDIRECTS:
                async with self.parsing:
                    rules = await in_daemon_thread(rules_of_response, response.status, response.body)
                if rules.stop:
                    raise TryAgain(rules.stop.removeprefix("robots.txt "))
                return rules
            target = next_hop(robots, response, self.politeness.allow_private)
        raise TryAgain("redirects: too many")

    async def _request(self, host: Host, request: Request) -> Response:
        """One request and its answer; whatever goes wrong on the way is TryAgain or FetchError."""
        self._go_on()
        try:
            with self.in_flight():
                return await self._transfer(host, request)
        except NoSuchName as error:
            raise FetchError(request.url, FAILED, f"network: {error}") from error
        except PrivateAddress as error:
            raise FetchError(request.url, REFUSED, f"address: {error}") from error
        except TimeoutError as error:
            raise TryAgain(f"slow: not done after {self.politeness.request_timeout_sec:g} s") from error
        except httpx2.TimeoutException as error:
            raise TryAgain(f"timeout: {type(error).__name__}") from error
        except httpx2.HTTPError as error:  # refused and reset connections, broken and short answers
            raise TryAgain(f"network: {error or type(error).__name__}") from error

    async def _transfer(self, host: Host, request: Request) -> Response:
        async with asyncio.timeout(self.politeness.request_timeout_sec):
            sent = self.http.build_request("GET", request.target, headers=request.headers)
            response, body = await self.http.send(sent, stream=True), b""
            try:
                self._hear(host, request, response)
                if response.status_code == 200:
                    body = await read_body(request.url, response, request.cap, request.cut)
            finally:
                await response.aclose()
        return Response(request.target, response.status_code, response.headers, body)

    def _go_on(self) -> None:
        if self.stopping:
            raise Stopping

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """A stop lets the task finish this block."""
        task = asyncio.current_task()
        self.transfers.add(task)
        try:
            yield
        finally:
            self.transfers.discard(task)

    def _hear(self, host: Host, request: Request, response: httpx2.Response) -> None:
        """What comes before the body: a pause for everybody, or the wish that the body be left where it is."""
        status, headers = response.status_code, response.headers
        if status in (429, 503):
            wait_sec = retry_after_sec(headers, self.clock)
            if wait_sec is None and status == 429:
                wait_sec = self.politeness.backoff_sec
            host.pause(wait_sec or 0.0)
        if request.heed_wishes and self.politeness.obey_optout and status < 400:
            if wish := header_opt_out(headers.get_list("x-robots-tag"), headers.get("tdm-reservation")):
                raise FetchError(request.url, REFUSED, f"optout: {wish}", status)
