"""A hostile robots.txt costs linear time and memory, and does not delay other hosts."""

import asyncio
import sys
import threading
import tracemalloc
from collections.abc import Callable

import pytest
from protego import Protego

from scrapers.crawl import client, hosts
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.hosts import Clock, Hosts
from scrapers.crawl.records import PictureItem
from scrapers.crawl.robots import AGENT, MAX_PARSED_HOSTS, RobotsRules, rules_for_us, rules_of_response
from tests.scrapers.faulty_site import Reply, SiteNetwork, make_picture, quick_politeness

KIB = 1024
URLS = [f"http://x.example/{path}" for path in ("", "7", "a" * 3000, "*a" * 100, "a/index.html")]


def filled(line: str, size: int) -> str:
    """So many bytes of lines, in which # is another number each time."""
    lines, length = [], 0
    while length < size:
        lines.append(line.replace("#", str(len(lines))))
        length += len(lines[-1]) + 1
    return "\n".join(lines)


SHAPES: dict[str, Callable[[int], str]] = {
    "agents x rules": lambda size: filled("User-agent: a#", size // 2) + "\n" + filled("Disallow: /#", size // 2),
    "our names x rules": lambda size: (
        "".join(f"User-agent: {AGENT[:k]}\n" for k in range(9)) + "User-agent: *\n" + filled("Allow: /#", size)
    ),
    "groups": lambda size: filled("User-agent: *\nUser-agent: a#\nDisallow: /#", size),
    "rules": lambda size: "User-agent: *\n" + filled("Disallow: /#", size),
    "wildcards": lambda size: "User-agent: *\n" + filled("Disallow: /*#*a*b", size),
    "wildcards in a line": lambda size: "User-agent: *\nDisallow: /" + "a*" * (size // 2),
    "dollars": lambda size: "User-agent: *\n" + filled("Allow: $#/index.html\nAllow: /#$", size),
    "a long line": lambda size: "User-agent: *\nDisallow: /" + "%41" * (size // 3),
    "spaces": lambda size: "User-agent: *\nDisallow" + " " * size + "x",
    "delays": lambda size: "User-agent: *\n" + filled("Crawl-delay: #\nRequest-rate: 1/#", size),
}


def calls_made(text: str) -> int:
    """Python's and C's functions that are called to read the rules and to check a few addresses."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        rules = rules_of_response(200, text.encode())
        for url in URLS:
            rules.refusal(url)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", SHAPES)
def test_work_grows_with_the_length_and_no_faster(shape):
    small, large = calls_made(SHAPES[shape](10 * KIB)), calls_made(SHAPES[shape](40 * KIB))
    assert large < 5 * small  # it would be 16 times as much where it is quadratic
    assert large < 6 * 40 * KIB


@pytest.mark.parametrize("shape", SHAPES)
def test_memory_stays_within_50_mb(shape):
    content = SHAPES[shape](500 * KIB).encode()
    tracemalloc.start()
    try:
        rules_of_response(200, content).refusal(URLS[1])
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


AGENTS_AND_RULES = """
User-agent: other
User-agent: CARforge/2.0 # us
Sitemap: https://x.example/map
unknown: directive
User-agent: another
Disallow /a
Allow : /a/b$

User-agent: *
Disallow: /

Useragent: carforge
Dissallow: /c
"""


def test_the_rules_of_our_groups_are_put_together():
    rules = rules_of_response(200, AGENTS_AND_RULES.encode())
    paths = ["/", "/a", "/a/b", "/a/bc", "/c", "/d"]
    allowed = [path for path in paths if rules.refusal(f"http://x.example{path}") is None]
    assert allowed == ["/", "/a/b", "/d"]
    assert rules_for_us(AGENTS_AND_RULES).count("\n") == 3


def test_the_same_rules_as_protego_finds_for_us():
    groups = ["*", "carforge", "car", "c*", "carforger", "forge", "bot"]
    rules = ["Disallow: /", "Allow: /a", "Disallow: /*b$", "Allow: /$a", "Disallow:", "Crawl-delay: 7", "Sitemap: /x"]
    for k in range(7**4):
        first, second, third, fourth = k % 7, k // 7 % 7, k // 49 % 7, k // 343
        lines = [f"User-agent: {groups[first]}", rules[second], f"user agent {groups[third]}", rules[fourth]]
        text = "\n".join(lines)
        expected, found = Protego.parse(text), rules_of_response(200, text.encode())
        for path in ("/", "/a", "/b", "/a/b", "/$a"):
            url = f"http://x.example{path}"
            assert expected.can_fetch(url, AGENT) == (found.refusal(url) is None), (text, path)
        assert (expected.crawl_delay(AGENT) or 0) == found.gap_sec, text


def test_a_rate_of_any_length_is_a_number():
    rules = b"User-agent: *\nRequest-rate: 1/" + b"9" * 4000
    assert rules_of_response(200, rules).gap_sec == 1e9


@pytest.mark.parametrize("what", ["rules", "address"])
def test_other_hosts_are_asked_while_one_s_rules_are_at_work(site, tmp_path, monkeypatch, what):
    """The slow host's work waits for the other host's answers, and those for its begin: in the loop, for ever."""
    network = SiteNetwork(site, {"slow.example": ["151.101.1.1"], "quick.example": ["151.101.1.2"]})
    begun, others_done, in_time = threading.Event(), threading.Event(), []
    site.pages["slow.example/robots.txt"] = Reply(b"User-agent: *\nDisallow: /slow")

    def response(request):
        begun.wait(60)
        return Reply(make_picture(1), content_type="image/jpeg")

    def slow(function, is_slow):
        def wait_first(*arguments):
            if is_slow(*arguments):
                begun.set()
                in_time.append(others_done.wait(60))
            return function(*arguments)

        return wait_first

    site.pages |= {"quick.example/1.jpg": response, "slow.example/1.jpg": Reply(make_picture(2), 200, {}, "image/jpeg")}
    site.after_reply = lambda request: others_done.set() if request.path == "/1.jpg" else None
    if what == "rules":
        monkeypatch.setattr(client, "rules_of_response", slow(rules_of_response, lambda status, body: b"slow" in body))
    else:
        refusal = slow(RobotsRules.refusal, lambda rules, url: "slow" in url)
        monkeypatch.setattr(RobotsRules, "refusal", lambda rules, url: refusal(rules, url))
    wanted = [PictureItem(f"http://{host}.example/1.jpg", "list") for host in ("slow", "quick")]
    with Fetcher(tmp_path, quick_politeness(allow_private=False, request_timeout_sec=90), network) as fetcher:
        assert fetcher.fetch_pictures(wanted).done == 2
    assert in_time == [True]


def test_few_rules_stay_parsed_and_many_long_ones_are_forgotten(monkeypatch):
    monkeypatch.setattr(hosts, "MAX_RULES_CHARS", 10_000)

    async def meet() -> int:
        known = Hosts(quick_politeness(), Clock(), lambda host, reason: None)
        for number in range(50):
            async with known.use(f"http://{number}.example") as host:
                host.set_rules(RobotsRules("x" * 1000), 60)
        return len(known.known)

    assert asyncio.run(meet()) <= 10 and MAX_PARSED_HOSTS <= 8
