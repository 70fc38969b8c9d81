"""One GET request: checked against private addresses and robots.txt, rate-limited, bounded and retried.

Every redirect is a URL of its own: checked, under its own host's rules and rate.
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

MAX_PARSING = 2  # concurrent robots.txt: parsed, one takes up to 32 MB

Check = Callable[[Response], None]


@dataclass
class FetchState:
    """One URL through its attempts and redirects."""

    url: str
    headers: Mapping[str, str]
    check: Check
    host: str  # of the last request
    api: bool = False
    cap: int = 0  # bytes of the body
    attempts: int = 0
    outcomes: set[str] = field(default_factory=set)  # the status that each failed attempt would give the URL


@dataclass(frozen=True)
class Request:
    """One request. `url`: the original URL; `target`: the current redirect."""

    url: str
    target: httpx2.URL
    headers: Mapping[str, str]
    cap: int  # bytes of the body
    cut: bool = False  # truncate a longer body instead of refusing it
    obey_optout: bool = False


class Client:
    """The one client of a crawl. Lives in one event loop."""

    def __init__(
        self, politeness: Politeness, clock: Clock, network: GuardedNetwork, on_stop: Callable[[str, str], None]
    ) -> None:
        self.politeness, self.clock = politeness, clock
        self.hosts = Hosts(politeness, clock, on_stop)
        self.stopping = False
        self.parsing = asyncio.Semaphore(MAX_PARSING)
        self.transfers: set[asyncio.Task | None] = set()  # may finish after a stop
        set_on_retry_hooks([])  # stamina would log every retry
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
        """The response (200, or 304 when `headers` are conditional), with retries.

        Args:
            check: raises TryAgain or FetchError for an unexpected response.
            api: an interface for programs. robots.txt is about crawling pages: its delay applies, its disallow rules
                and opt-outs of indexing do not.
            cap: bytes of the body, where less than `max_bytes`.

        Raises:
            FetchError: its status is refused only when all attempts ended so, otherwise failed.
        """
        cap = min(cap or self.politeness.max_bytes, self.politeness.max_bytes)
        state = FetchState(url, headers, check, origin_of(check_url(url, self.politeness.allow_private)), api, cap)
        try:
            async for attempt in self._retries():
                with attempt:
                    state.attempts = attempt.num
                    response = await self._follow(state)
            await self._count_result(state, None)
            return response
        except TryAgain as error:
            self._raise_if_stopped()  # attempts are left
            await self._count_result(state, error.reason if error.host_failure else None)
            status = error.status if len(state.outcomes) == 1 else FAILED
            raise FetchError(url, status, error.reason, error.http, state.attempts) from error
        except FetchError as error:
            # A name that does not exist is not retried in this run, but counts as all attempts.
            error.attempts = self.politeness.attempts if error.status == FAILED else state.attempts
            if error.http is not None:
                await self._count_result(state, None)
            raise

    async def _count_result(self, state: FetchState, failure: str | None) -> None:
        async with self.hosts.use(state.host) as host:
            host.count_failure(failure) if failure else host.count_success()

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
        """One attempt with its redirects."""
        try:
            target, seen = check_url(state.url, self.politeness.allow_private), set()
            headers, api = state.headers, state.api
            while True:
                if target in seen or len(seen) > self.politeness.max_redirects:
                    what = "in a circle" if target in seen else f"more than {self.politeness.max_redirects}"
                    raise TryAgain(f"redirects: {what}", REFUSED, host_failure=False)
                seen.add(target)
                request = Request(state.url, target, headers, state.cap, obey_optout=not api)
                response = await self._get_once(state, request)
                if response.status not in REDIRECTS:
                    check_status(state.url, response)
                    state.check(response)
                    return replace(response, attempts=state.attempts)
                following = next_hop(state.url, response, self.politeness.allow_private)
                if origin_of(following) != origin_of(target):  # do not send a key to another host
                    api = False
                    headers = {name: value for name, value in headers.items() if name in PICTURE}
                target = following
        except TryAgain as error:
            state.outcomes.add(error.status)
            raise

    async def _get_once(self, state: FetchState, request: Request) -> Response:
        """One request without redirects, if robots.txt allows it, in the host's turn."""
        state.host = origin_of(request.target)
        async with self.hosts.use(state.host) as host:
            async with host.rules_lock:  # one URL at a time: matching one may take a second of CPU time
                if host.rules is None or self.clock.now() >= host.rules_until:
                    host.set_rules(await self._fetch_rules(request.target), MAX_AGE_SEC)
                assert host.rules is not None
                if request.obey_optout:
                    if refusal := await in_daemon_thread(host.rules.refusal, str(request.target)):
                        raise FetchError(state.url, *refusal)
            self._raise_if_stopped()
            async with host.turn(state.url):
                return await self._request(host, request)

    async def _fetch_rules(self, target: httpx2.URL) -> RobotsRules:
        robots = str(target.copy_with(raw_path=b"/robots.txt"))
        try:
            async for attempt in self._retries():
                with attempt:
                    return await self._follow_robots(robots)
        except TryAgain as error:
            self._raise_if_stopped()
            return RobotsRules(stop=f"robots.txt: {error.reason}")
        except HostStopped as error:
            return RobotsRules(stop=error.reason.removeprefix("host_stopped: "))
        except FetchError as error:
            return RobotsRules(closed=error.reason, closed_status=error.status)
        raise AssertionError("a retry ends with a value or an error")

    async def _follow_robots(self, robots: str) -> RobotsRules:
        target = check_url(robots, self.politeness.allow_private)
        for _ in range(self.politeness.max_redirects + 1):
            self._raise_if_stopped()
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
        """One request; every network error becomes TryAgain or FetchError."""
        self._raise_if_stopped()
        try:
            with self.in_flight():
                return await self._transfer(host, request)
        except NoSuchName as error:
            raise FetchError(request.url, FAILED, f"network: {error}") from error
        except PrivateAddress as error:
            raise FetchError(request.url, REFUSED, f"address: {error}") from error
        except TimeoutError as error:
            raise TryAgain(f"slow: not complete after {self.politeness.request_timeout_sec:g} s") from error
        except httpx2.TimeoutException as error:
            raise TryAgain(f"timeout: {type(error).__name__}") from error
        except httpx2.HTTPError as error:  # refused and reset connections, broken and short responses
            raise TryAgain(f"network: {error or type(error).__name__}") from error

    async def _transfer(self, host: Host, request: Request) -> Response:
        async with asyncio.timeout(self.politeness.request_timeout_sec):
            sent = self.http.build_request("GET", request.target, headers=request.headers)
            response, body = await self.http.send(sent, stream=True), b""
            try:
                self._check_head(host, request, response)
                if response.status_code == 200:
                    body = await read_body(request.url, response, request.cap, request.cut)
            finally:
                await response.aclose()
        return Response(request.target, response.status_code, response.headers, body)

    def _raise_if_stopped(self) -> None:
        if self.stopping:
            raise Stopping

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """A task in this block may finish after a stop."""
        task = asyncio.current_task()
        self.transfers.add(task)
        try:
            yield
        finally:
            self.transfers.discard(task)

    def _check_head(self, host: Host, request: Request, response: httpx2.Response) -> None:
        """Status and headers before the body: Retry-After pauses the host, an opt-out ends the request."""
        status, headers = response.status_code, response.headers
        if status in (429, 503):
            wait_sec = retry_after_sec(headers, self.clock)
            if wait_sec is None and status == 429:
                wait_sec = self.politeness.backoff_sec
            host.pause(wait_sec or 0.0)
        if request.obey_optout and self.politeness.obey_optout and status < 400:
            if opt_out := header_opt_out(headers.get_list("x-robots-tag"), headers.get("tdm-reservation")):
                raise FetchError(request.url, REFUSED, f"optout: {opt_out}", status)
