"""Per-host limits: request rate, concurrency, pauses, and when to stop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import HostStopped
from scrapers.crawl.robots import RobotsRules

MAX_HOSTS, MAX_RULES_CHARS = 2000, 32 << 20  # kept in memory; beyond them the least recently used are dropped


class Clock:
    """The time; tests use their own."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def today(self) -> float:
        """Seconds since 1970, to compare with dates from servers."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Host:
    """One scheme, name and port. Every request to it waits here for its turn."""

    def __init__(self, name: str, hosts: "Hosts") -> None:
        self.name, self.politeness, self.clock = name, hosts.politeness, hosts.clock
        self.total_slots, self.on_stop = hosts.total_slots, hosts.on_stop
        self.rules: RobotsRules | None = None
        self.rules_until = 0.0
        self.rules_lock = asyncio.Lock()  # one request for robots.txt, however many URLs wait for it
        self.gap_sec = 1.0 / self.politeness.per_host_rate
        self.next_at = 0.0
        self.slots = asyncio.Semaphore(self.politeness.per_host_concurrency)
        self.line = asyncio.Lock()
        self.stopped: str | None = None
        self.failures = 0  # consecutive URLs
        self.users = 0

    def stop(self, reason: str) -> None:
        """No more requests in this run."""
        if self.stopped is None:
            self.stopped = reason
            self.on_stop(self.name, reason)

    def set_rules(self, rules: RobotsRules, max_age_sec: float) -> None:
        self.rules, self.rules_until = rules, self.clock.now() + max_age_sec
        if rules.stop:
            self.stop(rules.stop)
        if rules.gap_sec > self.politeness.longest_wait_sec:
            self.stop(f"robots.txt asks for {rules.gap_sec:.0f} s between requests")
        if rules.gap_sec > 1.0 / self.politeness.per_host_rate:
            self.gap_sec = rules.gap_sec
            self.slots = asyncio.Semaphore(1)  # a delay implies one request at a time
            self.next_at = max(self.next_at, self.clock.now() + self.gap_sec)

    def pause(self, seconds: float) -> None:
        """Retry-After: no request before it has passed; a pause over `longest_wait_sec` stops the host."""
        if seconds > self.politeness.longest_wait_sec:
            self.stop(f"asks for a pause of {seconds:.0f} s")
        self.next_at = max(self.next_at, self.clock.now() + seconds)

    def count_failure(self, reason: str) -> None:
        """Counts a URL that failed because of the host or the network."""
        self.failures += 1
        if self.failures >= self.politeness.stop_after_failures:
            self.stop(f"{self.failures} URLs in a row failed, the last one with {reason}")

    def count_success(self) -> None:
        self.failures = 0

    @asynccontextmanager
    async def turn(self, url: str) -> AsyncIterator[None]:
        """For one request: waits until both the host's limits and the total ones allow it; or HostStopped."""
        async with self.slots:
            async with self.line:
                while (wait_sec := self.next_at - self.clock.now()) > 0 and not self.stopped:
                    await self.clock.sleep(wait_sec)
                await self.total_slots.acquire()
                self.next_at = max(self.next_at, self.clock.now() + self.gap_sec)
            try:
                if self.stopped:
                    raise HostStopped(url, self.stopped)
                yield
            finally:
                self.total_slots.release()


class Hosts:
    """All hosts of this run."""

    def __init__(self, politeness: Politeness, clock: Clock, on_stop: Callable[[str, str], None]) -> None:
        self.politeness, self.clock, self.on_stop = politeness, clock, on_stop
        self.total_slots = asyncio.Semaphore(politeness.total_concurrency)
        self.known: dict[str, Host] = {}

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Host]:
        """The host, kept while in use; its stop or pause is kept while there is room."""
        host = self.known.pop(name, None) or Host(name, self)
        self.known[name] = host  # most recently used last
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            rules_chars = sum(len(host.rules.text) for host in self.known.values() if host.rules)
            if len(self.known) > MAX_HOSTS or rules_chars > MAX_RULES_CHARS:
                now = self.clock.now()
                idle = [h for h in self.known.values() if not h.users and not h.stopped and h.next_at <= now]
                for old in idle[: MAX_HOSTS // 10]:
                    del self.known[old.name]
