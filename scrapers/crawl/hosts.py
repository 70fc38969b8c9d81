"""Each host's own pace: how often, how many at once, when to pause, when to stop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import HostStopped
from scrapers.crawl.robots import RobotsRules

# Known, with their rules; of more, those not asked for longest are forgotten.
MAX_HOSTS, MAX_RULES_CHARS = 2000, 32 << 20


class Clock:
    """The time; tests bring their own."""

    def now(self) -> float:
        """Seconds of a clock that is never set back."""
        return time.monotonic()

    def today(self) -> float:
        """Seconds since 1970: for dates that servers send."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Host:
    """One scheme, name and port. Everybody who asks it for something waits here for a turn."""

    def __init__(self, name: str, hosts: "Hosts") -> None:
        self.name, self.politeness, self.clock = name, hosts.politeness, hosts.clock
        self.total_slots, self.on_stop = hosts.total_slots, hosts.on_stop
        self.rules: RobotsRules | None = None
        self.rules_until = 0.0
        self.rules_lock = asyncio.Lock()  # one request for robots.txt, however many wait for it
        self.gap_sec = 1.0 / self.politeness.per_host_rate
        self.next_at = 0.0
        self.slots = asyncio.Semaphore(self.politeness.per_host_concurrency)
        self.line = asyncio.Lock()
        self.stopped: str | None = None
        self.failures = 0  # addresses in a row
        self.users = 0

    def stop(self, reason: str) -> None:
        """No more requests in this run."""
        if self.stopped is None:
            self.stopped = reason
            self.on_stop(self.name, reason)

    def take_rules(self, rules: RobotsRules, max_age_sec: float) -> None:
        self.rules, self.rules_until = rules, self.clock.now() + max_age_sec
        if rules.stop:
            self.stop(rules.stop)
        if rules.gap_sec > self.politeness.longest_wait_sec:
            self.stop(f"robots.txt asks for {rules.gap_sec:.0f} s between requests")
        if rules.gap_sec > 1.0 / self.politeness.per_host_rate:
            self.gap_sec = rules.gap_sec
            self.slots = asyncio.Semaphore(1)  # whoever asks for a delay wants one at a time
            self.next_at = max(self.next_at, self.clock.now() + self.gap_sec)

    def pause(self, seconds: float) -> None:
        """The host has asked for a pause (Retry-After): nobody asks it before; too long a one stops it."""
        if seconds > self.politeness.longest_wait_sec:
            self.stop(f"asks to be left alone for {seconds:.0f} s")
        self.next_at = max(self.next_at, self.clock.now() + seconds)

    def count_failure(self, reason: str) -> None:
        """An address could not be had through the host's or the network's fault."""
        self.failures += 1
        if self.failures >= self.politeness.stop_after_failures:
            self.stop(f"{self.failures} addresses failed in a row, the last one with {reason}")

    def count_success(self) -> None:
        self.failures = 0

    @asynccontextmanager
    async def turn(self, url: str) -> AsyncIterator[None]:
        """For one request: waits until the host, and all hosts together, have room for it; or HostStopped."""
        slots = self.slots
        async with slots:
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
    """All hosts met in this run."""

    def __init__(self, politeness: Politeness, clock: Clock, on_stop: Callable[[str, str], None]) -> None:
        self.politeness, self.clock, self.on_stop = politeness, clock, on_stop
        self.total_slots = asyncio.Semaphore(politeness.total_concurrency)
        self.known: dict[str, Host] = {}

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Host]:
        """The host, kept as long as somebody uses it, and its stop or pause as long as there is room."""
        host = self.known.pop(name, None) or Host(name, self)
        self.known[name] = host  # the last one is the one used last
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            if len(self.known) > MAX_HOSTS or self._rules_chars() > MAX_RULES_CHARS:
                self._forget()

    def _rules_chars(self) -> int:
        return sum(len(host.rules.text) for host in self.known.values() if host.rules)

    def _forget(self) -> None:
        now = self.clock.now()
        idle = (h for h in self.known.values() if not h.users and not h.stopped and h.next_at <= now)
        for host in [host for host, _ in zip(idle, range(MAX_HOSTS // 10), strict=False)]:
            del self.known[host.name]
