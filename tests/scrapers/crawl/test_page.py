"""Pages are cached, requested conditionally, and decoded by their charset."""

import codecs
import gzip
import json
import sys

import pytest

from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.page import MAX_PAGE_BYTES
from scrapers.crawl.page_text import CHARSETS, READING, decode, to_charset
from scrapers.crawl.records import FetchError
from tests.scrapers.faulty_site import FakeClock, Reply, SiteNetwork, quick_politeness

DAY = 86400


def conditional(request):
    if "If-None-Match" in request.headers or "If-Modified-Since" in request.headers:
        return Reply(status=304)
    return Reply(b"<p>an A5", headers={"ETag": '"1"', "Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"})


def test_a_page_is_asked_for_again_only_when_it_is_old_and_only_if_it_has_changed(site, tmp_path):
    site.pages["/a"], clock = conditional, FakeClock()
    for _ in range(2):  # in two runs
        with Fetcher(tmp_path, quick_politeness(), clock=clock) as fetcher:
            for _ in range(3):
                page = fetcher.get_page(site.url("/a#part"))
                assert (page.text, page.url) == ("<p>an A5", site.url("/a"))
    assert site.paths().count("/a") == 1
    with Fetcher(tmp_path, quick_politeness(), clock=clock) as fetcher:
        clock.seconds += 8 * DAY
        assert fetcher.get_page(site.url("/a")).text == "<p>an A5"
        again = site.requests[-1]
        assert again.headers["If-None-Match"] == '"1"' and again.headers["If-Modified-Since"].startswith("Mon, 02 Nov")
        assert again.status == 304
        fetcher.get_page(site.url("/a"))  # fresh again
        assert site.paths().count("/a") == 2
        fetcher.get_page(site.url("/a"), fresh_days=0)
        assert site.paths().count("/a") == 3
        site.pages["/a"] = Reply(b"<p>an A6")
        assert fetcher.get_page(site.url("/a"), fresh_days=0).text == "<p>an A6"
        clock.seconds -= 30 * DAY  # a clock that was wrong: not fresh
        fetcher.get_page(site.url("/a"))
        assert site.paths().count("/a") == 5


def test_a_page_that_is_gone_is_not_asked_for_again_soon(site, tmp_path):
    clock = FakeClock()
    with Fetcher(tmp_path, quick_politeness(), clock=clock) as fetcher:
        for _ in range(2):
            with pytest.raises(FetchError) as lost:
                fetcher.get_page(site.url("/none"))
            assert (lost.value.status, lost.value.reason, lost.value.http) == ("gone", "http: 404", 404)
        assert site.paths().count("/none") == 1
        clock.seconds += 8 * DAY
        site.pages["/none"] = Reply(b"here")
        assert fetcher.get_page(site.url("/none")).text == "here"


def test_a_page_that_failed_is_asked_for_again(site, tmp_path):
    with Fetcher(tmp_path, quick_politeness(attempts=2)) as fetcher:
        site.pages["/a"] = Reply(status=500)
        with pytest.raises(FetchError) as lost:
            fetcher.get_page(site.url("/a"))
        assert (lost.value.status, lost.value.attempts) == ("failed", 2)
        site.pages["/a"] = Reply(b"here")
        assert fetcher.get_page(site.url("/a")).text == "here"


def test_a_spoiled_cache_is_asked_for_again(site, tmp_path):
    site.pages["/a"] = Reply(b"good")
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.get_page(site.url("/a"))
        (cached,) = (tmp_path / "pages").rglob("*.json")
        whole = cached.read_text()
        other = json.dumps({**json.loads(whole), "url": site.url("/b")})
        for spoiled in (whole[:-5], "", "[]", "{}", whole.replace('"good"', "5"), other):
            cached.write_text(spoiled)
            assert fetcher.get_page(site.url("/a")).text == "good"
    assert site.paths().count("/a") == 7


def test_a_key_goes_to_the_first_host_alone_and_is_written_nowhere(site, tmp_path):
    network = SiteNetwork(site, {"api.example": ["151.101.1.1"], "other.example": ["151.101.1.2"]})
    for path, target in (("q", "/r"), ("r", "http://other.example/s")):
        site.pages[f"api.example/{path}"] = Reply(status=302, headers={"Location": target})
    site.pages["other.example/s"] = Reply(b'{"a": 1}', content_type="application/json")
    with Fetcher(tmp_path, quick_politeness(allow_private=False), network) as fetcher:
        page = fetcher.get_page("http://api.example/q", headers={"X-Key": "secret-7"})
    assert page.url == "http://other.example/s" and json.loads(page.text) == {"a": 1}
    sent = {request.path: "X-Key" in request.headers for request in site.requests if request.path != "/robots.txt"}
    assert sent == {"/q": True, "/r": True, "/s": False}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret-7" not in written


def test_an_interface_for_programs_keeps_the_pace_but_not_the_rules_for_crawlers(site, tmp_path):
    clock = FakeClock()
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /w/\nCrawl-delay: 9")
    site.pages["/w/api"] = Reply(b"{}", headers={"X-Robots-Tag": "noindex"}, content_type="application/json")
    with Fetcher(tmp_path, quick_politeness(), clock=clock) as fetcher:
        with pytest.raises(FetchError, match="disallows"):
            fetcher.get_page(site.url("/w/api"))
        assert fetcher.get_page(site.url("/w/api"), api=True).text == "{}"
    assert site.paths() == ["/robots.txt", "/w/api"] and sum(clock.slept) >= 9


def test_what_is_no_page_is_refused(site, tmp_path):
    site.pages["/a"] = Reply(b"\xff\xd8\xff\0\0\0", content_type="text/html")
    with Fetcher(tmp_path, quick_politeness()) as fetcher, pytest.raises(FetchError, match="not_a_page"):
        fetcher.get_page(site.url("/a"))


def test_a_packed_page_is_unpacked_and_a_bomb_is_not(site, tmp_path):
    packed = {"Content-Encoding": "gzip"}
    site.pages["/a"] = Reply(gzip.compress("süß".encode()), headers=packed)
    site.pages["/bomb"] = Reply(gzip.compress(bytes(8 << 20)), headers=packed)
    site.pages["/twice"] = Reply(gzip.compress(gzip.compress(b"x")), headers={"Content-Encoding": "gzip, gzip"})
    site.pages["/br"] = Reply(b"?", headers={"Content-Encoding": "br"})
    with Fetcher(tmp_path, quick_politeness(attempts=1)) as fetcher:
        assert fetcher.get_page(site.url("/a")).text == "süß"
        for path, reason in {"/bomb": "too_large", "/twice": "encoding", "/br": "encoding"}.items():
            with pytest.raises(FetchError, match=reason):
                fetcher.get_page(site.url(path))


@pytest.mark.parametrize(
    "body, content_type, text",
    [
        ("süß".encode(), "text/html", "süß"),
        ("süß".encode("latin-1"), "text/html; charset=iso-8859-1", "süß"),
        (b'<meta charset="iso-8859-1">' + "ü".encode("latin-1"), "text/html", '<meta charset="iso-8859-1">ü'),
        ("süß".encode("latin-1"), "text/html", "s\ufffd\ufffd"),
        ("ü".encode(), "text/html; charset=nonsense", "ü"),
        ("ü".encode("utf-8-sig"), "text/html; charset=latin-1", "ü"),
        ("ж".encode("windows-1251"), 'text/html; charset="Windows-1251"', "ж"),
        ("車".encode("shift_jis"), "text/html; charset=Shift_JIS", "車"),
        ("車".encode("gb18030"), "text/html; charset=GB18030", "車"),
        ("차".encode("euc-kr"), "text/html; charset=ks_c_5601-1987", "차"),
        ("ü".encode("utf-16-le"), "text/html; charset=utf-16le", "ü"),
    ],
)
def test_text_by_what_the_page_says(body, content_type, text):
    assert decode(body, content_type) == text


# All that Python calls a codec and that is no charset of the web.
NO_CHARSETS = [
    *("punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "charmap", "undefined", "palmos", "mbcs"),
    *("uu", "bz2", "zip", "hex", "base64", "quopri", "rot13", "utf_32", "utf-8-sig", "hz", "cp037", "aliases"),
]


@pytest.mark.parametrize("name", NO_CHARSETS)
def test_no_other_codec_can_be_named(name, monkeypatch):
    monkeypatch.setattr(codecs, "lookup", lambda name: pytest.fail(f"looked up {name}"))
    body = b"M-8 \\u0041 +AEE-"
    assert decode(body, f"text/html; charset={name}") == body.decode()
    assert to_charset(name) is None and to_charset(name.upper()) is None
    in_page = f'<meta charset="{name}">'.encode() + b"\xff"
    assert decode(in_page, "text/html") == in_page.decode("utf-8", "replace")


def test_every_charset_is_one_that_python_has():
    assert {name for name in CHARSETS if b"car".decode(name, "replace")} == CHARSETS
    assert all(to_charset(name) == name for name in CHARSETS)


NESTED = b"<ul><li>" * 60_000  # 470 KiB: minutes in the parser


def test_a_page_that_is_costly_to_read_is_refused_and_remembered(site, tmp_path, monkeypatch):
    monkeypatch.setattr(READING, "cpu_sec", 0.3)
    READING.stop()
    site.pages["/a"], site.pages["/b"] = Reply(NESTED), Reply(b"<p>an A5")
    with Fetcher(tmp_path, quick_politeness(max_bytes=1 << 20)) as fetcher:
        for _ in range(2):
            with pytest.raises(FetchError, match="page: reading it takes more than 0.3 s of CPU time") as refusal:
                fetcher.get_page(site.url("/a"))
            assert refusal.value.status == "refused"
        assert fetcher.get_page(site.url("/b")).text == "<p>an A5"
    assert site.paths().count("/a") == 1
    READING.stop()  # the next ones have their time again


def test_pages_are_read_neither_here_nor_in_the_loop(site, tmp_path, monkeypatch):
    """Selectolax in this process would fail."""
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    site.pages["/a"] = Reply(b'<meta name="robots" content="noai">')
    with Fetcher(tmp_path, quick_politeness()) as fetcher, pytest.raises(FetchError, match="optout: <meta"):
        fetcher.get_page(site.url("/a"))


def test_a_page_has_a_bound_of_its_own(site, tmp_path):
    site.pages["/a"] = Reply(b"a" * (MAX_PAGE_BYTES + 1))
    site.pages["/b"] = Reply(b"b" * MAX_PAGE_BYTES)
    with Fetcher(tmp_path, quick_politeness(max_bytes=32 << 20)) as fetcher:
        with pytest.raises(FetchError, match=f"too_large: {MAX_PAGE_BYTES + 1} bytes, allowed {MAX_PAGE_BYTES}"):
            fetcher.get_page(site.url("/a"))
        assert len(fetcher.get_page(site.url("/b")).text) == MAX_PAGE_BYTES
