"""Wikimedia Commons' API: categories and continuations are followed, licence and author kept."""

import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from harness.errors import UserError
from scrapers.crawl.records import PictureItem
from scrapers.sites.commons import API, Commons
from scrapers.sites.source import PageChanged, html_to_text
from tests.scrapers.sites.static_pages import SameAnswer, StaticPages

CONCEPTS = "Concept automobiles"


def a_file(name: str, width: int = 4000, mime: str = "image/jpeg", **about: str) -> dict:
    """A file as the interface gives it."""
    place = name.replace(" ", "_")
    info = {
        "url": f"https://upload.example/{place}?utm_source=commons&utm_content=original",
        "thumburl": f"https://upload.example/thumb/960px-{place}?utm_source=commons",
        "descriptionurl": f"https://commons.example/wiki/File:{place}",
        "mime": mime,
        "width": width,
        "height": width // 2,
        "extmetadata": {key: {"value": value, "source": "commons-desc-page"} for key, value in about.items()},
    }
    return {"pageid": hash(name) % 10**8, "ns": 6, "title": f"File:{name}", "imageinfo": [info]}


def a_category(name: str) -> dict:
    return {"pageid": hash(name) % 10**8, "ns": 14, "title": f"Category:{name}"}


def without_info(member: dict) -> dict:
    return {key: value for key, value in member.items() if key != "imageinfo"}


class FakeApi(StaticPages):
    """Answers about CONCEPTS in turn, and about other categories; each continues with the next. One may be an error."""

    def __init__(self, *answers: dict, **others: list[dict]) -> None:
        super().__init__({})
        self.answers = {CONCEPTS: list(answers), **others}

    @property
    def queries(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(urlsplit(url).query)) for url in self.requests]

    def response(self, url: str) -> str:
        assert url.startswith(API + "?") and self.api_calls[-1] and not self.headers[-1]
        waiting = self.answers.get(self.queries[-1]["gcmtitle"].removeprefix("Category:"), [])
        return json.dumps(waiting.pop(0) if waiting else {"batchcomplete": True})


def response(*members: dict, more: dict | None = None) -> dict:
    found: dict = {"query": {"pages": list(members)}}
    return found | ({"continue": more} if more else {"batchcomplete": True})


def find(api: StaticPages, *categories: str, **options) -> list:
    return list(Commons(categories or (CONCEPTS,), **options).find(api))


def test_licence_author_title_and_page_are_kept():
    about = {
        "LicenseShortName": "CC BY-SA 4.0",
        "LicenseUrl": "https://creativecommons.org/licenses/by-sa/4.0",
        "Artist": '<a href="//commons.example/wiki/User:Jane" title="User:Jane">Jane  <b>Doe</b></a>\n',
    }
    assert find(FakeApi(response(a_file("Audi e-tron GT (2018) v1.2.jpg", 4000, "image/jpeg", **about)))) == [
        PictureItem(
            "https://upload.example/thumb/960px-Audi_e-tron_GT_(2018)_v1.2.jpg",  # without utm_source
            "commons",
            page="https://commons.example/wiki/File:Audi_e-tron_GT_(2018)_v1.2.jpg",
            license="CC BY-SA 4.0 <https://creativecommons.org/licenses/by-sa/4.0>",
            author="Jane Doe",
            title="Audi e-tron GT (2018) v1.2",
        )
    ]


def test_what_is_not_stated_stays_unknown():
    api = FakeApi(response(a_file("a.jpg"), a_file("b.jpg", LicenseShortName="Public domain")))
    assert [(item.license, item.author) for item in find(api)] == [(None, None), ("Public domain", None)]


def test_answers_are_continued_until_nothing_is_left():
    """Two kinds of continuation: more members, and more imageinfo for members that stood in the answer before."""
    late = a_file("late.jpg", LicenseShortName="CC0")
    api = FakeApi(
        response(a_file("1.jpg"), without_info(late), more={"iicontinue": "x|1", "continue": "||"}),
        response(without_info(a_file("1.jpg")), late, more={"gcmcontinue": "page|2", "continue": "gcmcontinue||"}),
        response(a_file("2.jpg")),
    )
    assert [(item.title, item.license) for item in find(api)] == [("1", None), ("late", "CC0"), ("2", None)]
    assert [(query.get("gcmcontinue"), query.get("iicontinue")) for query in api.queries] == [
        (None, None),
        (None, "x|1"),
        ("page|2", None),
    ]


def tree_of_categories() -> FakeApi:
    others = {
        "By brand": [response(a_file("top.jpg"), a_file("brand.jpg"), a_category("Audi"), a_category("By brand"))],
        "Loop": [response(a_category(CONCEPTS))],
        "Audi": [response(a_file("audi.jpg"))],
    }
    return FakeApi(response(a_file("top.jpg"), a_category("By brand"), a_category("Loop")), **others)


def test_sub_categories_to_a_depth_and_no_file_twice():
    assert [item.title for item in find(tree_of_categories(), depth=2)] == ["top", "brand", "audi"]
    assert [item.title for item in find(tree_of_categories(), depth=0)] == ["top"]
    api = tree_of_categories()
    find(api, depth=1)
    assert [(query["gcmtitle"], query["gcmtype"]) for query in api.queries] == [
        ("Category:Concept automobiles", "file|subcat"),
        ("Category:By brand", "file"),
        ("Category:Loop", "file"),
    ]


def test_only_pictures_of_our_kinds_at_the_width_asked_for(capsys):
    files = [
        a_file("a.svg", mime="image/svg+xml"),
        a_file("b.webm", mime="video/webm"),
        a_file("c.png", mime="image/png"),
        a_file("small.jpg", width=800),
    ]
    api = FakeApi(response(*files))
    assert [item.url for item in find(api, width_px=960)] == [
        "https://upload.example/thumb/960px-c.png",
        "https://upload.example/small.jpg",  # never enlarged
    ]
    assert api.queries[0]["iiurlwidth"] == "960"
    assert "2 files are not jpeg, png or webp" in capsys.readouterr().err
    api = FakeApi(response(a_file("c.jpg")))
    assert [item.url for item in find(api, width_px=None)] == ["https://upload.example/c.jpg"]
    assert "iiurlwidth" not in api.queries[0]


def test_the_interface_is_asked_as_its_etiquette_wants():
    api = FakeApi(response(a_file("a.jpg")))
    find(api)
    query = api.queries[0]
    assert (query["action"], query["generator"], query["prop"]) == ("query", "categorymembers", "imageinfo")
    assert (query["maxlag"], query["gcmlimit"], query["formatversion"]) == ("5", "50", "2")
    assert set(query["iiprop"].split("|")) == {"url", "mime", "size", "extmetadata"}


def test_servers_that_are_behind_are_given_time():
    lagging = {"error": {"code": "maxlag", "info": "Waiting for 10.0.0.1: 7 seconds lagged", "lag": 7.5}}
    api = FakeApi(lagging, lagging, response(a_file("a.jpg")))
    assert len(find(api)) == 1 and api.pauses == [7.5, 15.0]
    assert api.fresh_days == [7, 0, 0]  # else the cached excuse would be read again
    api = FakeApi(*[lagging] * 50)
    with pytest.raises(UserError, match="the servers lag"):
        find(api)
    assert len(api.queries) == 6


@pytest.mark.parametrize(("lag", "pause_sec"), [(1e12, 60), (-3, 5), (float("nan"), 5), ("soon", 5), (None, 5)])
def test_a_pause_is_the_fetcher_s_and_has_bounds(lag, pause_sec):
    api = FakeApi({"error": {"code": "maxlag", "lag": lag}}, response(a_file("a.jpg")))
    assert len(find(api)) == 1 and api.pauses == [pause_sec]


def test_an_author_that_is_made_to_be_slow_is_read_in_part():
    author = "<b>Jane</b>" + "<ul><li>" * 200_000  # minutes in the parser
    assert html_to_text(author) == "Jane"


def test_an_error_and_an_answer_of_another_shape_are_told():
    refused = {"error": {"code": "invalidcategory", "info": "The category name you entered is not valid."}}
    stuck = response(a_file("a.jpg"), more={"gcmcontinue": "same", "continue": "-||"})
    with pytest.raises(UserError, match="invalidcategory: The category name"):
        find(FakeApi(refused))
    other_shapes = {"batchcomplete": FakeApi({"warnings": {}}), "continuation": FakeApi(*[stuck] * 3)}
    for text, api in {**other_shapes, "JSON": SameAnswer("<html>")}.items():
        with pytest.raises(PageChanged, match=text):
            find(api)


def test_an_empty_category_is_told_and_nothing_at_all_is_an_error(capsys):
    assert len(find(FakeApi(response(a_file("a.jpg"))), "Category:Concept_automobiles", "No such")) == 1
    assert "Category:No such is empty or missing" in capsys.readouterr().err
    with pytest.raises(UserError, match="found no picture in No such"):
        find(FakeApi(), "No such")


def test_files_are_found_while_they_are_wanted():
    api = FakeApi(response(a_file("a.jpg"), more={"gcmcontinue": "2", "continue": "x"}))
    next(Commons([CONCEPTS]).find(api))
    assert len(api.queries) == 1
