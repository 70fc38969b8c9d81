"""The crawl of The Car Connection on small sample pages, and changed pages."""

import pytest

from harness.errors import UserError
from scrapers.crawl.page_text import READING
from scrapers.crawl.records import FetchError, HostStopped, PictureItem
from scrapers.sites.car_connection import CarConnection
from scrapers.sites.source import PageChanged
from tests.scrapers.sites.static_pages import CAR_PAGES, StaticPages, page_text

SITE, PICTURES = "https://cars.example", "https://pictures.example"
STUDIO = "2013-audi-a5-2-door-cabriolet"


def audi_pages(**changes) -> StaticPages:
    """`changes` by the page's file name, with _ for what is not a letter."""
    texts = {path: changes.get(name.replace("-", "_"), page_text(f"{name}.html")) for path, name in CAR_PAGES.items()}
    return StaticPages({SITE + path: text for path, text in texts.items()})


def walk(pages=None, **options) -> tuple[list, CarConnection]:
    source = CarConnection(site=SITE, pictures=PICTURES, **{"makes": ("audi",), **options})
    return list(source.find(pages or audi_pages())), source


def test_makes_models_years_specifications_and_photos():
    wanted, source = walk(years=frozenset({2013}))
    assert [item.url for item in wanted] == [
        f"{PICTURES}/lrg/{STUDIO}-angular-front-exterior-view_100418701_l.jpg",
        f"{PICTURES}/lrg/2013-audi-a5_100418702_l.webp",
        f"{PICTURES}/lrg/{STUDIO}-steering-wheel_100418703_l.jpg",
        f"{PICTURES}/lrg/{STUDIO}-rear-exterior-view_100418704_l.jpg",
    ]  # each once, in the page's order, none of other cars
    title = "2013 audi a5 2 door cabriolet angular front exterior view"
    specs = {
        "make": "Audi",
        "model": "A5",
        "year": 2013,
        "msrp_kusd": 43.45,
        "wheel_in": 18.0,
        "horsepower": 211,
        "displacement_l": 2.0,
        "cylinders": 4,
        "width_in": 73.0,
        "height_in": 54.5,
        "length_in": 182.1,
        "mileage_mpg": 24.0,
        "drivetrain": "FWD",
        "seats": 4,
        "doors": 2,
        "body_style": "Convertible",
    }
    page = f"{SITE}/photos/audi_a5_2013"
    assert wanted[0] == PictureItem(wanted[0].url, "car_connection", page, "Audi", specs, title=title)
    assert source.unread == []


@pytest.mark.parametrize(("size", "letter"), [("sml", "s"), ("med", "m"), ("lrg", "l")])
def test_the_pictures_size_is_chosen(size, letter):
    wanted, _ = walk(years=frozenset({2014}), picture_size=size)
    assert wanted[0].url == f"{PICTURES}/{size}/2014-audi-a5_100440001_{letter}.jpg"


def test_newest_years_first_and_only_so_many():
    pages = audi_pages()
    wanted, _ = walk(pages, years_per_model=2, pictures_per_car=1)
    assert [item.url.rpartition("/")[2] for item in wanted] == [
        "2014-audi-a5_100440001_l.jpg",
        f"{STUDIO}-angular-front-exterior-view_100418701_l.jpg",
    ]
    assert f"{SITE}/photos/audi_a5_2012" not in pages.requests
    known = [wanted[0].specs[name] for name in ("year", "make", "length_in")]
    assert known == [2014, "Audi", None]  # its specifications are not there


def test_years_are_chosen_before_any_page_of_theirs_is_asked_for():
    pages = audi_pages()
    walk(pages, years=frozenset({2014}))
    assert not [url for url in pages.requests if "2013" in url or "2012" in url]


def test_pictures_of_parts_are_left_out_by_name(capsys):
    wanted, _ = walk(years=frozenset({2013}), leave_out=("steering-wheel", "wheel"))
    assert len(wanted) == 3 and not [item for item in wanted if "steering" in item.url]
    assert "1 picture left out by name" in capsys.readouterr().err
    wanted, _ = walk(years=frozenset({2013}), leave_out=("teering", "exterior-vie"))
    assert len(wanted) == 4  # whole words alone


def test_makes_are_found_however_they_are_written_and_unknown_ones_are_told():
    source = CarConnection(site=SITE, makes=("land rover", "TESLA"))
    chosen = source._chosen_makes(audi_pages())
    assert chosen == [("Land Rover", f"{SITE}/make/new,land-rover"), ("Tesla", f"{SITE}/make/new,tesla")]
    with pytest.raises(UserError, match="MAKES: found trabant, allowed Audi, Land Rover, Tesla$"):
        walk(makes=("trabant", "audi"))


def test_pictures_are_found_while_they_are_wanted():
    pages = audi_pages()
    next(CarConnection(site=SITE, pictures=PICTURES, makes=("audi",)).find(pages))
    assert f"{SITE}/cars/audi_e-tron" not in pages.requests  # a limit cuts the walk short


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("new_cars", "a.add-zip"),
        ("make_new_audi", "div.name a"),
        ("cars_audi_a5", "a.btn"),
        ("photos_audi_a5_2013", "sml/<name>"),
        ("specifications_audi_a5_2013", "specs-set-item"),
    ],
)
def test_a_page_of_another_shape_is_named_with_what_was_looked_for(page, expected):
    pages = audi_pages(**{page: "<html><body><h1>All new!</h1><a href='/make/new,audi'>Audi</a></body></html>"})
    del pages.table[f"{SITE}/photos/audi_a5_2014"]
    (path,) = (path for path, name in CAR_PAGES.items() if name.replace("-", "_") == page)
    with pytest.raises(PageChanged, match=f"^{SITE}{path}.*shape has probably changed") as raised:
        walk(pages)
    assert expected in str(raised.value)


def test_one_odd_page_among_good_ones_is_told_and_passed_over(capsys):
    wanted, _ = walk(audi_pages(photos_audi_a5_2014="<html><body>no pictures yet</body></html>"))
    assert len(wanted) == 4
    assert "1 of 2 photos pages have no pictures" in capsys.readouterr().err


def test_three_odd_pages_before_a_good_one_stop_the_walk():
    pages = audi_pages()
    pages.table |= {f"{SITE}/photos/audi_a5_{year}": "<p>moved</p>" for year in (2012, 2013, 2014)}
    pages.table[f"{SITE}/cars/audi_e-tron"] = page_text("cars_audi_a5.html")
    with pytest.raises(PageChanged, match="photos/audi_a5_2014"):
        walk(pages)
    assert f"{SITE}/cars/audi_e-tron" not in pages.requests


def test_a_page_that_cannot_be_had_now_is_remembered_and_one_that_is_gone_is_not(capsys):
    wanted, source = walk(audi_pages(photos_audi_a5_2014=FetchError("x", "failed", "http: 503")))
    assert (len(wanted), source.unread) == (4, [f"{SITE}/photos/audi_a5_2014"])
    message = capsys.readouterr().err
    assert "photos/audi_a5_2014: http: 503" in message and "cars/audi_e-tron: http: 404" in message


def test_a_page_that_is_costly_to_read_is_told_and_passed_over(capsys, monkeypatch):
    monkeypatch.setattr(READING, "cpu_sec", 0.3)
    READING.stop()
    wanted, source = walk(audi_pages(photos_audi_a5_2014="<ul><li>" * 60_000))  # minutes in the parser
    READING.stop()  # the next ones have their time again
    assert (len(wanted), source.unread) == (4, [])
    assert "photos/audi_a5_2014: page: reading it takes more than 0.3 s" in capsys.readouterr().err


def test_without_the_first_page_there_is_nothing():
    with pytest.raises(FetchError, match="robots: disallowed"):
        walk(audi_pages(new_cars=FetchError("x", "refused", "robots: disallowed")))


def test_a_host_that_stops_us_ends_the_walk():
    with pytest.raises(HostStopped):
        walk(audi_pages(cars_audi_a5=HostStopped("x", "asks for a pause")))
