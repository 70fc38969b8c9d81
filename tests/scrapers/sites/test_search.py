"""Image search needs the user's own key and sends it only to the service."""

import json

import pytest

from harness.errors import UserError
from scrapers.crawl.records import FetchError, PictureItem
from scrapers.sites.search import KEY_VARIABLE, Search
from scrapers.sites.source import PageChanged
from tests.refusals import refused
from tests.scrapers.sites.static_pages import SameAnswer

KEY = "BSA-secret"
CAR = {
    "type": "image_result",
    "title": "A show car",
    "url": "https://magazine.example/show-car",
    "source": "magazine.example",
    "thumbnail": {"src": "https://imgs.example/thumb.jpg"},
    "properties": {"url": "https://magazine.example/car.jpg", "placeholder": "https://imgs.example/tiny.jpg"},
}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def results(*found: dict) -> str:
    return json.dumps({"type": "images", "query": {"original": "x"}, "results": list(found)})


def test_what_a_service_finds():
    pages = SameAnswer(results(CAR, {"title": "no picture", "properties": {}}))
    wanted = list(Search(["concept car", "show car"], per_term=20).find(pages))
    one = PictureItem(
        "https://magazine.example/car.jpg", "search", page="https://magazine.example/show-car", title="A show car"
    )
    assert wanted == [one, one]  # the fetcher asks for an address once
    assert pages.requests[0].startswith("https://api.search.brave.com/res/v1/images/search?q=concept+car&count=20&")
    assert pages.headers[0]["X-Subscription-Token"] == KEY
    assert pages.api_calls == [True, True]
    assert not [url for url in pages.requests if KEY in url]  # addresses are written down, headers are not


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_a_key_one_line_says_how_to_get_one(monkeypatch, value):
    monkeypatch.delenv(KEY_VARIABLE)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLE, value)
    with refused("BRAVE_SEARCH_API_KEY", "PROVIDER=commons"):
        Search(["concept car"])


def test_a_key_that_is_refused():
    pages = SameAnswer(FetchError("https://api.example", "refused", "http: 403", 403))
    with pytest.raises(UserError, match="BRAVE_SEARCH_API_KEY: found a key that the service refuses") as raised:
        list(Search(["concept car"]).find(pages))
    assert KEY not in str(raised.value)


def test_other_failures_are_the_network_s():
    with pytest.raises(FetchError):
        list(Search(["concept car"]).find(SameAnswer(FetchError("https://api.example", "failed", "http: 500", 500))))


@pytest.mark.parametrize("text", ["<html>", "[]", '{"results": {}}', '{"results": [{"url": "x"}]}'])
def test_an_answer_of_another_shape_is_told(text):
    with pytest.raises(PageChanged):
        list(Search(["concept car"]).find(SameAnswer(text)))


def test_no_results_are_no_error():
    assert list(Search(["concept car"]).find(SameAnswer(results()))) == []


def test_nothing_to_search_for():
    with pytest.raises(UserError, match="TERMS"):
        Search([])
