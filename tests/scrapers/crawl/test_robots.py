"""robots.txt is obeyed before any request, and opt-outs in responses are, too."""

import pytest

from harness.errors import Interrupted
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.optout import header_opt_out, page_opt_out
from scrapers.crawl.records import FetchCounts, FetchError, HostStopped, PictureItem, raise_if_incomplete
from scrapers.crawl.robots import MAX_ROBOTS_BYTES, rules_of_response
from tests.scrapers.faulty_site import FakeClock, Reply, SiteNetwork, fetch, make_picture, quick_politeness
from tests.scrapers.local.local_set import lines_of

RULES = b"""\xef\xbb\xbfUser-agent: otherbot
Disallow: /open/  # a mark of UTF-8 before the first line

User-agent: *
Disallow: /closed/
Allow: /closed/but/
Disallow: /*.png$
Disallow: /*?size=
Disallow: /a%3cb
"""
ALLOWED = ["/open/1.jpg", "/closed/but/2.jpg", "/3.png.jpg", "/4.png?x=1", "/closedx.jpg"]
DISALLOWED = ["/closed/1.jpg", "/closed/", "/x/y.png", "/5.jpg?size=big", "/a%3Cb.jpg", "/closed/buT/1.jpg"]


def test_nothing_disallowed_is_fetched(site, tmp_path):
    site.pages["/robots.txt"] = Reply(RULES)
    for path in (*ALLOWED, *DISALLOWED):
        site.pages[path] = Reply(make_picture(1), content_type="image/jpeg")
    counts, _ = fetch(tmp_path, map(site.url, [*ALLOWED, *DISALLOWED]))
    assert counts == FetchCounts(done=len(ALLOWED), refused=len(DISALLOWED))
    assert site.paths()[0] == "/robots.txt" and sorted(site.paths()[1:]) == sorted(ALLOWED)
    assert {line["reason"] for line in lines_of(tmp_path) if line["status"] == "refused"} == {
        "robots: robots.txt disallows it"
    }


def test_rules_for_us_by_name_go_before_those_for_all(site, tmp_path):
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nAllow: /\n\nUser-agent: CarForge\nDisallow: /\n")
    assert fetch(tmp_path, [site.url("/a.jpg")])[0].refused == 1 and site.paths() == ["/robots.txt"]


def test_the_host_of_a_redirect_is_asked_for_its_own_rules(site, tmp_path):
    network = SiteNetwork(site, {"one.example": ["151.101.1.1"], "two.example": ["151.101.1.2"]})
    site.pages["one.example/robots.txt"] = Reply(b"")
    site.pages["two.example/robots.txt"] = Reply(b"User-agent: *\nDisallow: /closed")
    for name in ("open", "closed"):
        site.pages[f"one.example/{name}.jpg"] = Reply(
            status=302, headers={"Location": f"http://two.example/{name}.jpg"}
        )
        site.pages[f"two.example/{name}.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    with Fetcher(tmp_path, quick_politeness(allow_private=False), network) as fetcher:
        wanted = [PictureItem(f"http://one.example/{name}.jpg", "list") for name in ("open", "closed")]
        assert fetcher.fetch_pictures(wanted) == FetchCounts(done=1, refused=1)
    requested = [(request.host, request.path) for request in site.requests]
    assert requested.index(("two.example", "/robots.txt")) < requested.index(("two.example", "/open.jpg"))
    assert ("two.example", "/closed.jpg") not in requested and len(set(requested)) == len(requested) == 5


@pytest.mark.parametrize("status, expected", [(404, "done"), (410, "done"), (401, "refused"), (403, "refused")])
def test_no_rules_and_hidden_rules(site, tmp_path, status, expected):
    site.pages["/robots.txt"] = Reply(status=status)
    site.pages["/a.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    assert fetch(tmp_path, [site.url("/a.jpg")])[0] == FetchCounts(**{expected: 1})
    assert [line["status"] for line in lines_of(tmp_path)] == [expected]
    assert ("/a.jpg" in site.paths()) == (expected == "done")


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "drip", "loop"])
def test_rules_that_cannot_be_had_stop_the_host_until_another_run(site, tmp_path, fault, capsys):
    pictures = site.add_pictures(3)
    site.fault_for = lambda path, before: fault if path == "/robots.txt" else None
    with Fetcher(tmp_path, quick_politeness(attempts=2, request_timeout_sec=0.3)) as fetcher:
        counts = fetcher.fetch_pictures([PictureItem(site.url(path), "list") for path in pictures])
        with pytest.raises(HostStopped):
            fetcher.get_page(site.url("/page"))
    assert counts == FetchCounts(left=3) and "robots.txt" in capsys.readouterr().err
    assert set(site.paths()) == {"/robots.txt"} and (tmp_path / "ledger.jsonl").read_text() == ""
    with pytest.raises(Interrupted, match="the same command resumes"):
        raise_if_incomplete(counts, fetcher.stopped)
    site.fault_for = lambda path, before: None
    assert fetch(tmp_path, map(site.url, pictures))[0] == FetchCounts(done=3)


def test_rules_are_asked_for_once_a_day(site, tmp_path):
    clock = FakeClock()
    pictures = [site.url(path) for path in site.add_pictures(9)]
    with Fetcher(tmp_path, quick_politeness(), clock=clock) as fetcher:
        fetcher.fetch_pictures([PictureItem(url, "list") for url in pictures[:8]])
        clock.seconds += 23 * 3600
        fetcher.fetch_pictures([PictureItem(pictures[8], "list")])
        assert site.paths().count("/robots.txt") == 1
        clock.seconds += 2 * 3600
        site.pages["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /")
        with pytest.raises(FetchError, match="disallows"):
            fetcher.get_page(site.url("/page"))
    assert site.paths().count("/robots.txt") == 2


def test_only_the_beginning_of_huge_rules_is_read(site, tmp_path):
    filler = b"#" * 99 + b"\n"
    rules = b"User-agent: *\nDisallow: /a\n" + filler * (MAX_ROBOTS_BYTES // 100 + 10) + b"Disallow: /b\n"
    site.pages["/robots.txt"] = Reply(rules)
    site.pages["/b.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    assert fetch(tmp_path, [site.url("/a.jpg"), site.url("/b.jpg")])[0] == FetchCounts(done=1, refused=1)


def test_rules_without_an_end_are_read_up_to_there(site, tmp_path):
    site.add_pictures(1)
    site.fault_for = lambda path, before: "endless" if path == "/robots.txt" else None
    assert fetch(tmp_path, [site.url("/pictures/0.jpg")], request_timeout_sec=5)[0] == FetchCounts(done=1)


def test_half_a_rule_at_the_cut_is_no_rule():
    rules = b"User-agent: *\n" + b"#" * (MAX_ROBOTS_BYTES - 27) + b"\nDisallow: /abc"
    assert rules_of_response(200, rules).refusal("http://x.example/ab.jpg") is None


@pytest.mark.parametrize(
    "rules, gap_sec",
    [
        (b"User-agent: *\nCrawl-delay: 7", 7),
        (b"User-agent: *\nRequest-rate: 1/20", 20),
        (b"User-agent: *\nRequest-rate: 1/20\nCrawl-delay: 30", 30),
        (b"User-agent: otherbot\nCrawl-delay: 90", 0),
        (b"User-agent: *\nCrawl-delay: -5", 0),
        (b"User-agent: *\nCrawl-delay: nan", 0),
        (b"", 0),
    ],
)
def test_the_pace_that_rules_ask_for(rules, gap_sec):
    assert rules_of_response(200, rules).gap_sec == gap_sec


@pytest.mark.parametrize(
    "lines, wish",
    [
        (["noai"], "noai"),
        (["NoAI, NoImageAI"], "noai"),
        (["nofollow, noimageai"], "noimageai"),
        (["noindex"], "noindex"),
        (["none"], "none"),
        (["noml"], "noml"),
        (["all"], None),
        (["otherbot: noindex"], None),
        (["otherbot: noindex, noai"], None),
        (["otherbot: noindex", "noai"], "noai"),
        (["carforge: noindex"], "noindex"),
        (["otherbot: nofollow, carforge: noindex"], "noindex"),
        (["max-snippet: 5, noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
        (["noarchive, nosnippet, nofollow"], None),
        (["max-image-preview: none"], None),
    ],
)
def test_wishes_in_headers(lines, wish):
    assert header_opt_out(lines) == (f"X-Robots-Tag: {wish}" if wish else None)


def test_reserved_text_and_data_mining():
    assert header_opt_out([], "1") and not header_opt_out([], "0")


@pytest.mark.parametrize(
    "html, refused",
    [
        ('<meta name="robots" content="noindex, noai">', True),
        ("<META CONTENT=noimageai NAME=Robots>", True),
        ('<meta name="carforge" content="none">', True),
        ('<meta name="otherbot" content="noai">', False),
        ('<meta name="robots" content="index, follow, max-image-preview:large">', False),
        ('<meta name="description" content="noai">', False),
        ('<!-- <meta name="robots" content="noai"> -->', False),
        ("<meta name=robots><meta content=noai>", False),
    ],
)
def test_wishes_in_pages(html, refused):
    assert bool(page_opt_out(f"<html><head>{html}</head><body>a car</body></html>")) == refused


def test_pictures_and_pages_with_wishes_are_refused_with_the_reason(site, tmp_path):
    for name, tags in {"a": "noai", "b": "otherbot: noindex\nnoimageai", "c": "otherbot: noai"}.items():
        site.pages[f"/{name}.jpg"] = Reply(make_picture(1), 200, {"X-Robots-Tag": tags}, "image/jpeg")
    site.pages["/d.jpg"] = Reply(status=404, headers={"X-Robots-Tag": "noindex"})
    site.pages["/page"] = Reply(b'<meta name="robots" content="noai">')
    fetch(tmp_path / "1", [site.url(f"/{name}.jpg") for name in "abcd"])
    reasons = {line["url"][-5]: line["reason"] for line in lines_of(tmp_path / "1")}
    wish = "optout: X-Robots-Tag: "
    assert reasons == {"a": f"{wish}noai", "b": f"{wish}noimageai", "c": None, "d": "http: 404"}
    with Fetcher(tmp_path / "1", quick_politeness()) as fetcher:
        with pytest.raises(FetchError, match="optout: <meta") as refusal:
            fetcher.get_page(site.url("/page"))
        assert refusal.value.status == "refused"
    assert fetch(tmp_path / "2", [site.url("/a.jpg"), site.url("/b.jpg")], obey_optout=False)[0].done == 2
