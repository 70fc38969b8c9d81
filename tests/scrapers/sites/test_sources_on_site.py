"""The sources through the real fetcher, against a site on this machine."""

import json

import pytest
import yaml

from harness.config.data_sources import SOURCES_PATH, load_sources
from harness.errors import Interrupted, UserError
from scrapers.__main__ import run_plan
from scrapers.plan import make_plan
from scrapers.sites import car_connection, commons
from tests.scrapers.faulty_site import CONTACT, Reply, Site, make_picture, quick_manners
from tests.scrapers.local.local_set import LocalSet
from tests.scrapers.sites.static_pages import CAR_PAGES, FOLDER

API = "/w/api.php"


@pytest.fixture
def sources(site, tmp_path, monkeypatch):
    """The shipped recipes, led to this machine, with manners that may ask it and need no patience."""
    for owner, name, path in ((car_connection, "SITE", ""), (car_connection, "PICTURES", ""), (commons, "API", API)):
        monkeypatch.setattr(owner, name, site.url(path))
    content = yaml.safe_load(SOURCES_PATH.read_text())
    content["manners"] = quick_manners().model_dump() | {"contact": None}
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
    tally = run_plan(plan, sources, CONTACT)
    asked = site.paths()
    again = run_plan(plan, sources, CONTACT)
    assert (tally.done, tally.gone, again.skipped, again.done) == (3, 2, 5, 0)
    assert "/photos/audi_a5_2012" not in asked
    assert set(site.paths()[len(asked) :]) <= {"/robots.txt"}  # pages are kept for a week, pictures for good
    done = [line for line in LocalSet(tmp_path / plan.folder).lines if line["status"] == "done"]
    assert {line["class"] for line in done} == {"Audi"} and {line["specs"]["year"] for line in done} == {2013, 2014}
    assert all(line["page"].startswith(site.url("/photos/")) for line in done)


def test_pages_that_cannot_be_had_now_end_with_exit_75(site, sources):
    serve_cars(site)
    site.pages["/photos/audi_a5_2014"] = Reply(status=503)
    with pytest.raises(Interrupted, match="1 page could not be had"):
        run_plan(make_plan("car_connection", sources, makes="audi"), sources, CONTACT)


def test_a_first_page_that_cannot_be_had(site, sources):
    plan = make_plan("car_connection", sources)
    site.pages["/new-cars"] = Reply(status=503)
    with pytest.raises(Interrupted, match="new-cars: http: 503"):  # not now
        run_plan(plan, sources, CONTACT)
    site.pages["/robots.txt"] = Reply(b"User-agent: carforge\nDisallow: /\n", content_type="text/plain")
    with pytest.raises(UserError, match="new-cars: robots"):  # not at all
        run_plan(plan, sources, CONTACT)
    assert site.paths().count("/new-cars") == sources.manners["attempts"]


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
    answer = json.dumps({"batchcomplete": True, "query": {"pages": files}}).encode()
    site.pages[API] = Reply(answer, 200, {"X-Robots-Tag": "noindex"}, "application/json")
    for number, path in enumerate(("/one.jpg", "/private/two.jpg")):
        site.pages[path] = Reply(make_picture(number), content_type="image/jpeg")
    plan = make_plan("concept", sources, categories="Concept automobiles")
    tally = run_plan(plan, sources, CONTACT)
    assert (tally.done, tally.refused) == (1, 1)
    assert "/private/two.jpg" not in site.paths()
    assert {asked.headers["User-Agent"] for asked in site.asked} == {f"carforge/0.1.0 (+{CONTACT})"}
    (line,) = [line for line in LocalSet(tmp_path / plan.folder).lines if line["status"] == "done"]
    assert (line["license"], line["author"], line["title"], line["source"]) == ("CC0", "Jo", "One", "commons")
    assert line["url"] == site.url("/one.jpg") and line["page"] == site.url("/wiki/File:One.jpg")


def test_a_list_where_nothing_can_be_had_now_ends_with_exit_75(site, tmp_path, sources):
    site.pages["/a.jpg"] = Reply(status=500)
    (tmp_path / "list.txt").write_text(site.url("/a.jpg") + "\n")
    plan = make_plan("concept", sources, provider="list", src="list.txt")
    with pytest.raises(Interrupted, match="1 failed.*none could be had"):
        run_plan(plan, sources, CONTACT)
    site.pages["/a.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    assert run_plan(plan, sources, CONTACT).done == 1
