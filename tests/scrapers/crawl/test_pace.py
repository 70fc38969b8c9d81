"""Rates, concurrency, Retry-After and backoff, on a simulated clock."""

import asyncio
import threading
from email.utils import formatdate
from itertools import pairwise

import httpx2
import pytest
from stamina.instrumentation import set_on_retry_hooks

from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import FetchCounts, PictureItem
from scrapers.crawl.response import retry_after_sec
from tests.scrapers.faulty_site import (
    FakeClock,
    Reply,
    Site,
    SiteNetwork,
    SiteRequest,
    fetch,
    make_picture,
    quick_politeness,
)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def site(clock):
    with Site(clock) as running:
        yield running


def gaps(requests: list[SiteRequest]) -> list[float]:
    """Seconds between one request and the next."""
    return [later.at - earlier.at for earlier, later in pairwise(requests)]


@pytest.mark.parametrize(
    "rules, rate, gap_sec",
    [
        (b"", 0.5, 2),
        (b"User-agent: *\nCrawl-delay: 7", 1000, 7),
        (b"User-agent: *\nRequest-rate: 2/30", 1, 15),
        (b"User-agent: *\nCrawl-delay: 1", 0.25, 4),
    ],
)
def test_requests_of_a_host_keep_their_distance(site, tmp_path, clock, rules, rate, gap_sec):
    site.pages["/robots.txt"] = Reply(rules)
    counts, _ = fetch(tmp_path, map(site.url, site.add_pictures(6)), clock, per_host_rate=rate, per_host_concurrency=1)
    assert counts.done == 6 and len(site.requests) == 7
    assert min(gaps(site.requests)) >= gap_sec - 1e-6


def test_a_delay_that_is_too_long_stops_the_host(site, tmp_path, clock):
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 86400")
    counts, fetcher = fetch(tmp_path, map(site.url, site.add_pictures(3)), clock)
    assert counts == FetchCounts(left=3) and site.paths() == ["/robots.txt"]
    assert "86400 s between requests" in "".join(fetcher.stopped.values())


def test_retry_after_pauses_the_whole_host(site, tmp_path, clock):
    pictures = site.add_pictures(4)
    replies = iter([Reply(status=503, headers={"Retry-After": "120"}), site.pages["/pictures/0.jpg"]])
    site.pages["/pictures/0.jpg"] = lambda request: next(replies)
    counts, _ = fetch(tmp_path, map(site.url, pictures), clock, per_host_concurrency=1)
    assert counts.done == 4 and max(clock.slept) == pytest.approx(120, abs=1)
    refused_at = min(request.at for request in site.requests if request.path == "/pictures/0.jpg")
    assert all(request.at <= refused_at or request.at >= refused_at + 120 for request in site.requests)


def test_too_many_requests_without_a_time_pauses_the_host_too(site, tmp_path, clock):
    pictures = list(site.add_pictures(3))
    site.pages[pictures[0]] = Reply(status=429)
    politeness = {"per_host_concurrency": 1, "backoff_sec": 0.02, "max_backoff_sec": 0.02, "attempts": 2}
    fetch(tmp_path, map(site.url, pictures), clock, **politeness)
    refused_at = [request.at for request in site.requests if request.path == pictures[0]]
    after = min(request.at for request in site.requests if request.at > refused_at[0])
    assert len(refused_at) == 2 and after >= refused_at[0] + 0.02 - 1e-9


def test_a_very_long_retry_after_stops_the_host(site, tmp_path, clock):
    pictures = site.add_pictures(5)
    site.pages["/pictures/0.jpg"] = Reply(status=429, headers={"Retry-After": "7200"})
    counts, fetcher = fetch(tmp_path, map(site.url, pictures), clock, per_host_concurrency=1)
    assert counts == FetchCounts(left=5) and site.paths() == ["/robots.txt", "/pictures/0.jpg"]
    assert "a pause of 7200 s" in "".join(fetcher.stopped.values()) and max(clock.slept) < 1
    assert not (tmp_path / "ledger.jsonl").read_text()


def test_retry_after_in_both_spellings(clock):
    def wait_of(value: str, **others: str) -> float | None:
        return retry_after_sec(httpx2.Headers({"Retry-After": value, **others}), clock)

    assert wait_of("90") == 90 and wait_of(" 0 ") == 0
    assert wait_of(formatdate(clock.today() + 60, usegmt=True)) == pytest.approx(60, abs=1)
    assert wait_of(formatdate(clock.today() - 60, usegmt=True)) == 0
    # A server whose clock is an hour off means its own.
    late = clock.today() + 3600
    assert wait_of(formatdate(late + 60, usegmt=True), Date=formatdate(late, usegmt=True)) == pytest.approx(60, abs=1)
    for nonsense in ("", "-5", "soon", "1.5", "Wed, 99 Oct 2026", "9" * 400):
        assert wait_of(nonsense) in (None, float("9" * 12))


@pytest.mark.parametrize("per_host, total, expected", [(2, 16, 2), (16, 3, 3)])
def test_so_many_at_once_and_no_more(tmp_path, per_host, total, expected):
    """The site answers only when as many requests as allowed are there, or a moment after the last one came."""
    with Site() as site:
        pictures, lock, now_in, most = site.add_pictures(12), threading.Lock(), 0, 0
        full = threading.Semaphore(0)

        def wait_for_others(request):
            nonlocal now_in, most
            with lock:
                now_in += 1
                most = max(most, now_in)
                if now_in >= expected:
                    full.release(expected)
            full.acquire(timeout=0.2)
            with lock:
                now_in -= 1
            return Reply(make_picture(len(request.path)), content_type="image/jpeg")

        for path in pictures:
            site.pages[path] = wait_for_others
        limits = {"per_host_concurrency": per_host, "total_concurrency": total}
        with Fetcher(tmp_path, quick_politeness(silence_timeout_sec=5, **limits)) as fetcher:
            fetcher.fetch_pictures([PictureItem(site.url(path), "list") for path in pictures])
    assert most == expected


def test_a_slow_host_does_not_hold_up_another(tmp_path):
    class Patience(FakeClock):
        async def sleep(self, seconds):
            """The slow host's turn comes when the quick one has had all of its own: held up, it would never come."""
            while seconds > 50 and sum(request.host == "quick.example" for request in site.requests) < 21:
                await asyncio.sleep(0.005)
            await super().sleep(seconds)

    clock = Patience()
    with Site(clock) as site:
        network = SiteNetwork(site, {"slow.example": ["151.101.1.1"], "quick.example": ["151.101.1.2"]})
        site.pages["slow.example/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 100")
        site.pages["quick.example/robots.txt"] = Reply(b"")
        names = list(site.add_pictures(20))
        wanted = [PictureItem(f"http://{host}.example{path}", "list") for path in names for host in ("slow", "quick")]
        with Fetcher(tmp_path, quick_politeness(allow_private=False, total_concurrency=1), network, clock) as fetcher:
            assert fetcher.fetch_pictures(wanted).done == 40
    assert min(gaps([request for request in site.requests if request.host == "slow.example"])) >= 100 - 1e-6


def test_backoff_doubles_with_jitter_up_to_its_limit(tmp_path):
    waits = []
    with Site() as site:
        site.pages["/a.jpg"] = Reply(status=500)
        politeness = quick_politeness(backoff_sec=0.01, max_backoff_sec=0.04, attempts=6)
        with Fetcher(tmp_path, politeness) as fetcher:
            assert fetcher.fetch_pictures([]).total == 0  # the client is there now
            set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
            fetcher.fetch_pictures([PictureItem(site.url("/a.jpg"), "list")])
        assert site.paths().count("/a.jpg") == 6
    bounds = [(0.01, 0.02), (0.02, 0.03), (0.04, 0.04), (0.04, 0.04), (0.04, 0.04)]
    assert all(low - 1e-9 <= wait <= high + 1e-9 for wait, (low, high) in zip(waits, bounds, strict=True)), waits
    assert waits[0] > 0.01 + 1e-9  # jitter
