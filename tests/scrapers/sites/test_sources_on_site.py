"""The sources through the real fetcher, against a site on this machine."""

import json

import pytest
import yaml

from harness.config.data_sources import SOURCES_PATH, load_sources
from harness.errors import Interrupted, UserError
from scrapers.__main__ import run_plan
from scrapers.plan import make_plan
from scrapers.sites import car_connection, commons
from tests.scrapers.faulty_site import Reply, Site, make_picture, quick_manners
from tests.scrapers.local.local_set import LocalSet
from tests.scrapers.sites.static_pages import FOLDER

CONTACT = "tests@carforge.example"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.delenv("CARFORGE_CONTACT", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sources(tmp_path):
    """The shipped recipes, with manners that may ask this machine and need no patience."""
    content = yaml.safe_load(SOURCES_PATH.read_text())
    content["manners"] = quick_manners().model_dump() | {"contact": None}
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_sources(path)


def serve_cars(site: Site) -> None:
    paths = {
        "/new-cars": "new-cars",
        "/make/new,audi": "make_new_audi",
        "/cars/audi_a5": "cars_audi_a5",
        "/specifications/audi_a5_2013": "specifications_audi_a5_2013",
        "/photos/audi_a5_2013": "photos_audi_a5_2013",
        "/photos/audi_a5_2014": "photos_audi_a5_2014",
    }
    for path, name in paths.items():
        site.pages[path] = Reply((FOLDER / f"{name}.html").read_bytes())
    names = ["2014-audi-a5_100440001_l.jpg", "2014-audi-a5-side-exterior-view_100440002_l.jpg"]
    names += ["2013-audi-a5-2-door-cabriolet-angular-front-exterior-view_100418701_l.jpg"]
    for number, name in enumerate(names):
        site.pages[f"/lrg/{name}"] = Reply(make_picture(number), content_type="image/jpeg")


def point_at(site: Site, monkeypatch) -> None:
    monkeypatch.setattr(car_connection, "SITE", site.url(""))
    monkeypatch.setattr(car_connection, "PICTURES", site.url(""))
    monkeypatch.setattr(commons, "API", site.url("/w/api.php"))


def test_the_car_connection_from_its_first_page_to_the_ledger(site, tmp_path, sources, monkeypatch):
    serve_cars(site)
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /photos/audi_a5_2012\n", content_type="text/plain")
    point_at(site, monkeypatch)
    plan = make_plan("car_connection", sources, makes="audi")
    tally = run_plan(plan, sources, CONTACT)
    asked = site.paths()
    again = run_plan(plan, sources, CONTACT)
    assert (tally.done, tally.gone, again.skipped, again.done) == (3, 2, 5, 0)
    assert "/photos/audi_a5_2012" not in asked
    pages_again = [path for path in site.paths()[len(asked) :] if path != "/robots.txt"]
    assert pages_again == []  # pages are kept for a week, pictures for good
    local = LocalSet(tmp_path / "data" / "raw" / "car_connection")
    done = [line for line in local.lines if line["status"] == "done"]
    assert {line["class"] for line in done} == {"Audi"} and {line["specs"]["year"] for line in done} == {2013, 2014}
    assert all(line["page"].startswith(site.url("/photos/")) for line in done)


def test_pages_that_cannot_be_had_now_end_with_exit_75(site, sources, monkeypatch, capsys):
    serve_cars(site)
    site.pages["/photos/audi_a5_2014"] = Reply(status=503)
    point_at(site, monkeypatch)
    with pytest.raises(Interrupted, match="1 page could not be had"):
        run_plan(make_plan("car_connection", sources, makes="audi"), sources, CONTACT)


def test_a_first_page_that_cannot_be_had(site, sources, monkeypatch):
    point_at(site, monkeypatch)
    plan = make_plan("car_connection", sources)
    site.pages["/new-cars"] = Reply(status=503)
    with pytest.raises(Interrupted, match="new-cars: http: 503"):  # not now
        run_plan(plan, sources, CONTACT)
    site.pages["/robots.txt"] = Reply(b"User-agent: carforge\nDisallow: /\n", content_type="text/plain")
    with pytest.raises(UserError, match="new-cars: robots"):  # not at all
        run_plan(plan, sources, CONTACT)
    assert site.paths().count("/new-cars") == sources.manners["attempts"]


def test_commons_through_the_real_fetcher(site, tmp_path, sources, monkeypatch):
    """Its robots.txt closes /w/, where the interface lies; what is under it but the interface stays closed."""
    robots = b"User-agent: *\nDisallow: /w/\nDisallow: /private/\n"
    site.pages["/robots.txt"] = Reply(robots, content_type="text/plain")
    page = {
        "pageid": 1,
        "ns": 6,
        "title": "File:One.jpg",
        "imageinfo": [
            {
                "url": site.url("/one.jpg?utm_source=x"),
                "descriptionurl": site.url("/wiki/File:One.jpg"),
                "mime": "image/jpeg",
                "width": 500,
                "extmetadata": {"LicenseShortName": {"value": "CC0"}, "Artist": {"value": "<b>Jo</b>"}},
            }
        ],
    }
    closed_info = {**page["imageinfo"][0], "url": site.url("/private/two.jpg")}
    closed = {**page, "title": "File:Two.jpg", "imageinfo": [closed_info]}
    answer = json.dumps({"batchcomplete": True, "query": {"pages": [page, closed]}}).encode()
    site.pages["/w/api.php"] = Reply(answer, 200, {"X-Robots-Tag": "noindex"}, "application/json")
    site.pages["/one.jpg"] = Reply(make_picture(1), content_type="image/jpeg")
    site.pages["/private/two.jpg"] = Reply(make_picture(2), content_type="image/jpeg")
    point_at(site, monkeypatch)
    plan = make_plan("concept", sources, categories="Concept automobiles")
    tally = run_plan(plan, sources, CONTACT)
    assert (tally.done, tally.refused) == (1, 1)
    assert "/private/two.jpg" not in site.paths()
    agents = {asked.headers["User-Agent"] for asked in site.asked}
    assert agents == {f"carforge/0.1.0 (+{CONTACT})"}
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
