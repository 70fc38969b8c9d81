"""All sources through the real fetcher, against a local site."""

import json
import re

import pytest
import yaml

from harness.config.data_sources import SOURCES_PATH, Sources, load_sources
from harness.errors import Interrupted, UserError
from scrapers.__main__ import run_check, run_plan
from scrapers.plan import make_plan
from scrapers.sites import car_connection, commons
from tests.scrapers.faulty_site import CONTACT, Reply, Site, make_picture, quick_politeness
from tests.scrapers.local.local_set import LocalSet, tree_of
from tests.scrapers.sites.static_pages import CAR_PAGES, FOLDER

API = "/w/api.php"


@pytest.fixture
def sources(site, tmp_path, monkeypatch):
    """The shipped recipes, led to this machine, with politeness that may ask it and need no patience."""
    for owner, name, path in ((car_connection, "SITE", ""), (car_connection, "PICTURES", ""), (commons, "API", API)):
        monkeypatch.setattr(owner, name, site.url(path))
    content = yaml.safe_load(SOURCES_PATH.read_text())
    content["politeness"] = quick_politeness().model_dump() | {"contact": None}
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_sources(path)


def serve_cars(site: Site) -> None:
    for path, name in CAR_PAGES.items():
        site.pages[path] = Reply((FOLDER / f"{name}.html").read_bytes())
    names = (
        "2014-audi-a5_100440001",
        "2014-audi-a5-side-exterior-view_100440002",
        "2013-audi-a5-2-door-cabriolet-angular-front-exterior-view_100418701",
    )
    for number, name in enumerate(names):
        site.pages[f"/lrg/{name}_l.jpg"] = Reply(make_picture(number), content_type="image/jpeg")


def test_the_car_connection_from_its_first_page_to_the_ledger(site, tmp_path, sources):
    serve_cars(site)
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /photos/audi_a5_2012\n", content_type="text/plain")
    plan = make_plan("car_connection", sources, makes="audi")
    counts = run_plan(plan, sources, CONTACT)
    requested = site.paths()
    again = run_plan(plan, sources, CONTACT)
    assert (counts.done, counts.gone, again.skipped, again.done) == (3, 2, 5, 0)
    assert "/photos/audi_a5_2012" not in requested
    assert set(site.paths()[len(requested) :]) <= {"/robots.txt"}  # pages are kept for a week, pictures for good
    done = [line for line in LocalSet(tmp_path / plan.folder).lines if line["status"] == "done"]
    assert {line["class"] for line in done} == {"Audi"} and {line["specs"]["year"] for line in done} == {2013, 2014}
    assert all(line["page"].startswith(site.url("/photos/")) for line in done)


def test_pages_that_cannot_be_had_now_end_with_exit_75(site, sources):
    serve_cars(site)
    site.pages["/photos/audi_a5_2014"] = Reply(status=503)
    with pytest.raises(Interrupted, match="1 page could not be fetched"):
        run_plan(make_plan("car_connection", sources, makes="audi"), sources, CONTACT)


def test_a_first_page_that_cannot_be_had(site, sources):
    plan = make_plan("car_connection", sources)
    site.pages["/new-cars"] = Reply(status=503)
    with pytest.raises(Interrupted, match="new-cars: http: 503"):  # not now
        run_plan(plan, sources, CONTACT)
    site.pages["/robots.txt"] = Reply(b"User-agent: carforge\nDisallow: /\n", content_type="text/plain")
    with pytest.raises(UserError, match="new-cars: robots"):  # not at all
        run_plan(plan, sources, CONTACT)
    assert site.paths().count("/new-cars") == sources.politeness["attempts"]


def test_commons_through_the_real_fetcher(site, tmp_path, sources):
    """Its robots.txt closes /w/, where the interface lies; what is under it but the interface stays closed."""
    robots = b"User-agent: *\nDisallow: /w/\nDisallow: /private/\n"
    site.pages["/robots.txt"] = Reply(robots, content_type="text/plain")
    info = {
        "descriptionurl": site.url("/wiki/File:One.jpg"),
        "mime": "image/jpeg",
        "width": 500,
        "extmetadata": {"LicenseShortName": {"value": "CC0"}, "Artist": {"value": "<b>Jo</b>"}},
    }
    files = [
        {"pageid": 1, "ns": 6, "title": f"File:{title}.jpg", "imageinfo": [info | {"url": site.url(path)}]}
        for title, path in (("One", "/one.jpg?utm_source=x"), ("Two", "/private/two.jpg"))
    ]
    response = json.dumps({"batchcomplete": True, "query": {"pages": files}}).encode()
    site.pages[API] = Reply(response, 200, {"X-Robots-Tag": "noindex"}, "application/json")
    for number, path in enumerate(("/one.jpg", "/private/two.jpg")):
        site.pages[path] = Reply(make_picture(number), content_type="image/jpeg")
    plan = make_plan("concept", sources, categories="Concept automobiles")
    counts = run_plan(plan, sources, CONTACT)
    assert (counts.done, counts.refused) == (1, 1)
    assert "/private/two.jpg" not in site.paths()
    assert {request.headers["User-Agent"] for request in site.requests} == {f"carforge/0.1.0 (+{CONTACT})"}
    (line,) = [line for line in LocalSet(tmp_path / plan.folder).lines if line["status"] == "done"]
    assert (line["license"], line["author"], line["title"], line["source"]) == ("CC0", "Jo", "One", "commons")
    assert line["url"] == site.url("/one.jpg") and line["page"] == site.url("/wiki/File:One.jpg")


def check(sources: Sources, source: str, **options) -> str:
    return run_check(make_plan(source, sources, **options), sources, CONTACT)


def test_a_check_fetches_one_picture_and_keeps_nothing(site, tmp_path, sources):
    serve_cars(site)
    site.pages["/specifications/audi_a5_2014"] = site.pages["/specifications/audi_a5_2013"]
    before = tree_of(tmp_path)
    found = check(sources, "car_connection")
    assert found.startswith("car_connection: as expected; a picture, class Audi") and "16 facts" in found
    assert sum(path.startswith("/lrg/") for path in site.paths()) == 1 and len(set(site.paths())) == len(site.paths())
    assert site.paths()[0] == "/robots.txt" and tree_of(tmp_path) == before
    again = len(site.requests)
    assert check(sources, "car_connection") == found  # pages are asked for anew
    assert site.paths()[again:] == site.paths()[:again]


CHANGED = {
    "/new-cars": "without a.add-zip",
    "/make/new,audi": "without div.name a",
    "/cars/audi_a5": "without a.btn",
    "/photos/audi_a5_2014": "without pictures",
    "/specifications/audi_a5_2014": "without #a_bc_1 and div.specs-set-item",
}


@pytest.mark.parametrize("path", CHANGED)
def test_a_check_says_which_page_has_changed(site, sources, path):
    serve_cars(site)
    other = b"<html><body><h1>All new!</h1><a href='/make/new,audi'>Audi</a></body></html>"
    site.pages[path] = Reply(other)
    del site.pages["/photos/audi_a5_2013"]
    with pytest.raises(UserError, match=f"^car_connection: the shape has changed: found .*{CHANGED[path]}") as refusal:
        check(sources, "car_connection", makes="audi")
    assert site.url(path) in str(refusal.value)


def test_a_check_says_that_pictures_are_not_where_the_pages_lead(site, sources):
    serve_cars(site)
    for path in [path for path in site.pages if path.startswith("/lrg/")]:
        site.pages[path] = Reply(status=404)
    with pytest.raises(UserError, match="pages are as expected, but the picture cannot be fetched: .*http: 404"):
        check(sources, "car_connection")
    for path in [path for path in site.pages if path.startswith("/lrg/")]:
        site.pages[path] = Reply(status=503)
    with pytest.raises(Interrupted, match="pages are as expected; .*http: 503; try later"):
        check(sources, "car_connection")


def test_a_check_is_as_polite_as_a_crawl(site, sources):
    serve_cars(site)
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /lrg/")
    with pytest.raises(UserError, match="cannot be fetched: .*robots.txt disallows it"):
        check(sources, "car_connection")
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /")
    with pytest.raises(UserError, match="robots.txt disallows it; nothing was kept"):
        check(sources, "car_connection")
    with pytest.raises(UserError, match="contact: found none"):
        run_check(make_plan("car_connection", sources), sources, None)


COMMONS_FILE = {
    "url": "/one.jpg",
    "descriptionurl": "/wiki/File:One.jpg",
    "mime": "image/jpeg",
    "width": 500,
    "extmetadata": {"LicenseShortName": {"value": "CC0"}, "Artist": {"value": "<b>Jo</b>"}},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "as expected; a picture, licence CC0, author Jo, title One"),
        ({"extmetadata": {}}, "without LicenseShortName, Artist"),
        ({"extmetadata": []}, "without LicenseShortName, Artist"),
        ({"extmetadata": "text"}, "without LicenseShortName, Artist"),
        ({"descriptionurl": None}, "without descriptionurl"),
        ({"url": None}, "without imageinfo with url"),
        ({"url": ["/one.jpg"]}, "without imageinfo with url"),
        ({"width": "wide"}, "without imageinfo with url (text) and width"),
    ],
)
def test_a_check_of_commons(site, sources, change, said):
    info = COMMONS_FILE | change
    info = {k: site.url(v) if isinstance(v, str) and v.startswith("/") else v for k, v in info.items()}
    pages = [{"pageid": 1, "ns": 6, "title": "File:One.jpg", "imageinfo": [info]}]
    site.pages[API] = Reply(json.dumps({"batchcomplete": True, "query": {"pages": pages}}).encode())
    site.pages["/one.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    if change:
        with pytest.raises(UserError, match=f"^concept: the shape has changed: found .*{re.escape(said)}"):
            check(sources, "concept")
    else:
        assert said in check(sources, "concept")


@pytest.mark.parametrize(
    "response",
    [{"query": []}, {"query": {"pages": {}}}, {"query": {"pages": ["x"]}}, {"continue": 7}, {"error": "no"}]
    + [{"query": {"pages": [{"ns": 6, "title": "File:A.jpg", "imageinfo": what}]}} for what in ("x", ["x"], {})],
)
def test_answers_of_other_types_are_a_changed_shape_and_no_traceback(site, sources, response):
    site.pages[API] = Reply(json.dumps(response).encode())
    with pytest.raises(UserError, match="the shape has changed"):
        check(sources, "concept")


def test_a_check_is_of_sources_that_read_pages(sources, tmp_path):
    (tmp_path / "cars").mkdir()
    with pytest.raises(UserError, match="CHECK: found SOURCE=folder, which reads no page, allowed car_connection"):
        check(sources, "folder", src="cars", set_name="x")


def test_a_list_where_nothing_can_be_had_now_ends_with_exit_75(site, tmp_path, sources):
    site.pages["/a.jpg"] = Reply(status=500)
    (tmp_path / "list.txt").write_text(site.url("/a.jpg") + "\n")
    plan = make_plan("concept", sources, provider="list", src="list.txt")
    with pytest.raises(Interrupted, match="1 failed.*none could be fetched"):
        run_plan(plan, sources, CONTACT)
    site.pages["/a.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    assert run_plan(plan, sources, CONTACT).done == 1
