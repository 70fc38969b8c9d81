"""Fetching from a faulty site: every good picture once, and every URL in the ledger."""

import hashlib
import threading
from unittest.mock import Mock

import pytest

from harness.errors import UserError
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.records import FetchCounts, PictureItem
from tests.scrapers.faulty_site import FAULTS, FakeClock, Reply, SiteNetwork, fetch, make_picture, quick_politeness
from tests.scrapers.local.local_set import lines_of


def test_all_good_pictures_of_a_site_with_30_percent_faults_once(site, tmp_path):
    pictures = site.add_pictures(300)
    gone = [f"/gone/{number}.jpg" for number in range(6)]
    site.fault_share = 0.3
    counts, _ = fetch(tmp_path, [site.url(path) for path in [*pictures, *gone]], total_concurrency=16)
    assert (counts.done, counts.gone, counts.total) == (300, 6, 306)
    assert site.wholes() == dict.fromkeys(pictures, 1)
    assert {request.fault for request in site.requests} == {None, *FAULTS}  # each kind was met
    lines = {line["url"]: line for line in lines_of(tmp_path)}
    assert len(lines_of(tmp_path)) == 306
    for path, content in pictures.items():
        line = lines[site.url(path)]
        recorded = (line["status"], line["bytes"], line["sha256"])
        assert recorded == ("done", len(content), hashlib.sha256(content).hexdigest())
        assert (tmp_path / line["file"]).read_bytes() == content
    assert {lines[site.url(path)]["reason"] for path in gone} == {"http: 404"}
    assert len(list((tmp_path / "files").rglob("*.*"))) == 300

    site.requests.clear()
    again, _ = fetch(tmp_path, [site.url(path) for path in [*pictures, *gone]])
    assert again == FetchCounts(skipped=306) and site.requests == []


@pytest.mark.parametrize(
    "fault, status, slug",
    [
        ("500", "failed", "http: 500"),
        ("429", "failed", "http: 429"),
        ("reset", "failed", "network: "),
        ("short", "failed", "network: "),
        ("unbounded_short", "failed", "short: "),
        ("html", "failed", "not_a_picture: html"),
        ("empty", "failed", "not_a_picture: empty"),
        ("slow", "failed", "timeout: "),
        ("drip", "failed", "slow: "),
        ("loop", "refused", "redirects: in a circle"),
        ("bomb", "refused", "too_large: "),
        ("endless", "refused", "too_large: "),
    ],
)
def test_a_fault_that_stays(site, tmp_path, fault, status, slug):
    site.add_pictures(1)
    site.fault_share, site.faults = 1.0, [fault]
    patience = {"slow": {"silence_timeout_sec": 0.4}, "drip": {"request_timeout_sec": 1}}.get(fault, {})
    counts, _ = fetch(tmp_path, [site.url("/pictures/0.jpg")], attempts=2, **patience)
    (line,) = lines_of(tmp_path)
    assert line["status"] == status and line["reason"].startswith(slug), line
    assert line["attempts"] == 2 and getattr(counts, status) == 1
    assert not list((tmp_path / "files").rglob("*.*"))


def test_a_refusal_among_other_faults_is_not_for_good(site, tmp_path):
    site.add_pictures(1)
    replies = iter([Reply(status=500), Reply(b"", 302, {"Location": "/pictures/0.jpg"})])
    site.pages["/pictures/0.jpg"] = lambda request: next(replies)
    assert fetch(tmp_path, [site.url("/pictures/0.jpg")], attempts=2)[0].failed == 1


def test_what_failed_is_tried_again_until_it_has_been_often_enough(site, tmp_path):
    site.pages["/a.jpg"] = Reply(status=500)
    for _ in range(4):
        fetch(tmp_path, [site.url("/a.jpg")], attempts=2, total_attempts=5)
    assert site.paths().count("/a.jpg") == 6  # 2, 4, 6: no fourth run
    assert [line["attempts"] for line in lines_of(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"GIF89a" + bytes(50), "format: found gif"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format: found svg"),
        (b"\0\0\0\x1cftypisom" + bytes(50), "format: found video, allowed jpg, png, webp, avif, heic"),
        (b"%PDF-1.7" + bytes(50), "format: found pdf"),
    ],
)
def test_only_three_formats_are_kept_whatever_the_server_calls_them(site, tmp_path, body, reason):
    site.pages["/a.jpg"] = Reply(body, content_type="image/jpeg")
    assert fetch(tmp_path, [site.url("/a.jpg")])[0].refused == 1
    assert lines_of(tmp_path)[0]["reason"].startswith(reason)


def test_the_type_is_taken_from_the_bytes(site, tmp_path):
    site.pages["/a.php?x=../../b.exe"] = Reply(make_picture(1, "webp"), content_type="text/html")
    assert fetch(tmp_path, [site.url("/a.php?x=../../b.exe")])[0].done == 1
    (line,) = lines_of(tmp_path)
    assert line["content_type"] == "image/webp" and line["file"] == f"files/{line['sha256'][:2]}/{line['sha256']}.webp"


def test_a_declared_size_over_the_cap_is_refused_without_its_body(site, tmp_path):
    site.pages["/a.jpg"] = Reply(b"\xff\xd8\xff", headers={"Content-Length": "999999999"})
    assert fetch(tmp_path, [site.url("/a.jpg")])[0].refused == 1
    assert lines_of(tmp_path)[0]["reason"].startswith("too_large: 999999999 bytes")
    assert site.paths().count("/a.jpg") == 1


def test_five_redirects_are_followed_and_a_sixth_is_not(site, tmp_path):
    site.pages["/0.jpg"] = Reply(make_picture(0), content_type="image/jpeg")
    for number in range(1, 7):
        site.pages[f"/{number}.jpg"] = Reply(status=301, headers={"Location": f"/{number - 1}.jpg"})
    counts, _ = fetch(tmp_path, [site.url("/5.jpg"), site.url("/6.jpg")], attempts=1)
    assert (counts.done, counts.refused) == (1, 1)
    assert "more than 5" in "".join(line["reason"] or "" for line in lines_of(tmp_path))


def test_the_same_address_and_the_same_picture_twice(site, tmp_path):
    site.pages["/a.jpg"] = site.pages["/b.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    counts, _ = fetch(tmp_path, [site.url(path) for path in ("/a.jpg", "/a.jpg", "/a.jpg#part", "/b.jpg")])
    assert (counts.done, counts.skipped) == (2, 2) and site.wholes() == {"/a.jpg": 1, "/b.jpg": 1}
    assert len(list((tmp_path / "files").rglob("*.jpg"))) == 1 and len(lines_of(tmp_path)) == 2


def test_who_we_are_is_said_in_every_request_and_no_cookie_is_kept(site, tmp_path):
    site.pages["/a.jpg"] = Reply(make_picture(1), headers={"Set-Cookie": "id=1; Path=/"}, content_type="image/jpeg")
    site.pages["/b.jpg"] = Reply(make_picture(2), content_type="image/jpeg")
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.fetch_pictures([PictureItem(site.url("/a.jpg"), "list")])
        fetcher.fetch_pictures([PictureItem(site.url("/b.jpg"), "list")])
    assert site.paths() == ["/robots.txt", "/a.jpg", "/b.jpg"]
    for request in site.requests:
        assert (
            request.headers["User-Agent"] == quick_politeness().user_agent == "carforge/0.1.0 (+tests@carforge.example)"
        )
        assert "Cookie" not in request.headers
    assert site.requests[1].headers["Accept-Encoding"] == "identity"


def test_what_the_source_knows_is_in_the_ledger(site, tmp_path):
    site.pages["/a.jpg"] = Reply(make_picture(1), headers={"ETag": '"x"'}, content_type="image/jpeg")
    wanted = PictureItem(
        site.url("/a.jpg"), "commons", "http://p.example", "Audi", {"MSRP": 1}, "CC0", "Ann", "A\udcff"
    )
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.fetch_pictures(iter([wanted]))
    (line,) = lines_of(tmp_path)
    fields = "url status reason http sha256 bytes content_type when file source page class specs license author title"
    assert list(line) == [*fields.split(), "split", "etag", "last_modified", "attempts"]
    assert (line["source"], line["page"], line["class"]) == ("commons", "http://p.example", "Audi")
    assert (line["specs"], line["license"], line["author"], line["title"]) == ({"MSRP": 1}, "CC0", "Ann", "A\udcff")
    assert (line["etag"], line["http"], line["attempts"]) == ('"x"', 200, 1) and line["when"].endswith("Z")


def test_local_pictures_share_store_and_ledger(tmp_path):
    given = [
        (make_picture(1), "archive:x.zip#a.jpg"),
        (make_picture(1), "archive:x.zip#b#c.jpg"),
        (b"GIF89a", "archive:x.zip#b#d.gif"),
        (bytes(100_000), "folder:big"),
        (make_picture(2), "archive:x.zip#a.jpg"),  # it is there
    ]
    with PictureSet(tmp_path, quick_politeness()) as pictures:
        said = [pictures.add_local(content, PictureItem(url, url.partition(":")[0])) for content, url in given]
    assert said == ["done", "done", "refused", "refused", "done"]
    assert [line["status"] for line in lines_of(tmp_path)] == said[:-1]
    assert len(list((tmp_path / "files").rglob("*.*"))) == 1


def test_a_second_crawl_on_the_same_folder_is_refused(tmp_path):
    with Fetcher(tmp_path, quick_politeness()), pytest.raises(UserError, match="is working here"):
        Fetcher(tmp_path, quick_politeness()).__enter__()
    with Fetcher(tmp_path, quick_politeness()):
        pass


def test_wanted_is_read_as_it_goes_and_may_read_pages_meanwhile(site, tmp_path, monkeypatch):
    monkeypatch.setattr("scrapers.crawl.fetch.MAX_PENDING", 4)
    pictures = site.add_pictures(40)
    site.pages["/list"] = Reply(b"a list")
    taken, max_ahead = 0, 0

    def source(fetcher: Fetcher):
        nonlocal taken, max_ahead
        for path in pictures:
            assert fetcher.get_page(site.url("/list")).text == "a list"
            taken += 1
            max_ahead = max(max_ahead, taken - len(fetcher.ledger.settled))
            yield PictureItem(site.url(path), "list")

    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        assert fetcher.fetch_pictures(source(fetcher)).done == 40
    assert max_ahead <= 6 and site.paths().count("/list") == 1


def test_a_source_that_fails_does_not_lose_what_was_fetched(site, tmp_path):
    pictures = list(site.add_pictures(3))
    seen = threading.Event()
    site.after_reply = lambda request: seen.set() if request.path == pictures[2] else None

    def source():
        yield from (PictureItem(site.url(path), "list") for path in pictures)
        seen.wait(10)
        raise UserError("the page's shape has changed")

    with Fetcher(tmp_path, quick_politeness(total_concurrency=1)) as fetcher:
        with pytest.raises(UserError, match="shape has changed"):
            fetcher.fetch_pictures(source())
        assert fetcher.fetch_pictures([PictureItem(site.url(path), "list") for path in pictures]).total == 3
    assert site.wholes() == dict.fromkeys(pictures, 1)


def test_a_source_that_fails_does_not_wait_for_a_host_that_wants_pauses(site, tmp_path):
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 290")
    requested = threading.Event()
    site.after_reply = lambda _: requested.set()

    def source():
        yield from (PictureItem(site.url(path), "list") for path in site.add_pictures(3))
        requested.wait(10)
        raise UserError("the page's shape has changed")

    with Fetcher(tmp_path, quick_politeness()) as fetcher, pytest.raises(UserError, match="shape has changed"):
        fetcher.fetch_pictures(source())  # soon, not after 290 s
    assert site.paths() == ["/robots.txt"]


def test_a_full_disk_ends_the_crawl_and_keeps_the_ledger_whole(site, tmp_path, monkeypatch):
    pictures = site.add_pictures(6)
    full = Mock(side_effect=OSError(28, "No space left on device", "files"))
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.fetch_pictures([PictureItem(site.url("/pictures/0.jpg"), "list")])
        monkeypatch.setattr("scrapers.crawl.store.atomic_write", full)
        with pytest.raises(OSError, match="No space"):
            fetcher.fetch_pictures([PictureItem(site.url(path), "list") for path in pictures])
    assert [line["status"] for line in lines_of(tmp_path)] == ["done"]


def test_a_host_that_is_down_is_left_alone(site, tmp_path):
    network = SiteNetwork(site, {"down.example": ["151.101.9.9"], "up.example": ["151.101.1.1"]})
    site.pages["up.example/robots.txt"] = Reply(b"")
    site.pages["/x.jpg"] = Reply(status=500)
    politeness = quick_politeness(allow_private=False, attempts=2, stop_after_failures=3, per_host_concurrency=1)
    with Fetcher(tmp_path, politeness, network, FakeClock()) as fetcher:
        down = fetcher.fetch_pictures([PictureItem(f"http://down.example/{n}.jpg", "list") for n in range(9)])
        up = fetcher.fetch_pictures([PictureItem(f"http://up.example/x.jpg?{n}", "list") for n in range(9)])
    assert down == FetchCounts(left=9) and network.connected.count("151.101.9.9") == 2
    assert up.failed == 3 and up.left == 6
    assert "robots.txt" in fetcher.stopped["http://down.example"]
    assert "3 URLs in a row failed" in fetcher.stopped["http://up.example"]
