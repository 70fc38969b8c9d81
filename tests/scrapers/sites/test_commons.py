"""Wikimedia Commons through its interface: categories walked, answers continued, licence and author kept."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.errors import UserError
from scrapers.crawl.records import Page
from scrapers.sites.commons import API, Commons
from scrapers.sites.source import PageChanged


def a_file(name: str, width: int = 4000, mime: str = "image/jpeg", **about: str) -> dict:
    """A file as the interface gives it."""
    address = f"https://upload.example/{name.replace(' ', '_')}"
    info = {
        "url": f"{address}?utm_source=commons&utm_content=original",
        "thumburl": f"https://upload.example/thumb/960px-{name.replace(' ', '_')}?utm_source=commons",
        "descriptionurl": f"https://commons.example/wiki/File:{name.replace(' ', '_')}",
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


class FakeApi:
    """`answers`: category → its answers in turn; each continues with the next. An answer may be an error."""

    def __init__(self, answers: dict[str, list[dict]]) -> None:
        self.answers = answers
        self.queries: list[dict[str, str]] = []
        self.fresh_days: list[float] = []

    def get_page(self, url: str, *, fresh_days: float = 7, headers=None, api: bool = False) -> Page:
        assert url.startswith(API + "?") and api and not headers
        query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        self.queries.append(query)
        self.fresh_days.append(fresh_days)
        waiting = self.answers.get(query["gcmtitle"].removeprefix("Category:"), [])
        answer = waiting.pop(0) if waiting else {"batchcomplete": True}
        return Page(url, json.dumps(answer))


def answer(*members: dict, more: dict | None = None) -> dict:
    found: dict = {"query": {"pages": list(members)}}
    return found | ({"continue": more} if more else {"batchcomplete": True})


def find(api: FakeApi, *categories: str, **options) -> list:
    return list(Commons(categories or ("Concept automobiles",), pause=lambda _: None, **options).find(api))


def test_licence_author_title_and_page_are_kept():
    about = {
        "LicenseShortName": "CC BY-SA 4.0",
        "LicenseUrl": "https://creativecommons.org/licenses/by-sa/4.0",
        "Artist": '<a href="//commons.example/wiki/User:Jane" title="User:Jane">Jane  <b>Doe</b></a>\n',
    }
    api = FakeApi(
        {"Concept automobiles": [answer(a_file("Audi e-tron GT (2018) v1.2.jpg", 4000, "image/jpeg", **about))]}
    )
    (wanted,) = find(api)
    assert wanted.url == "https://upload.example/thumb/960px-Audi_e-tron_GT_(2018)_v1.2.jpg"  # without utm_source
    assert wanted.page == "https://commons.example/wiki/File:Audi_e-tron_GT_(2018)_v1.2.jpg"
    assert wanted.license == "CC BY-SA 4.0 <https://creativecommons.org/licenses/by-sa/4.0>"
    assert (wanted.author, wanted.title, wanted.source) == ("Jane Doe", "Audi e-tron GT (2018) v1.2", "commons")
    assert wanted.class_name is None


def test_what_is_not_stated_stays_unknown():
    api = FakeApi({"Concept automobiles": [answer(a_file("a.jpg"), a_file("b.jpg", LicenseShortName="Public domain"))]})
    first, second = find(api)
    assert (first.license, first.author) == (None, None)
    assert second.license == "Public domain"


def test_answers_are_continued_until_nothing_is_left():
    """Two kinds of continuation: more members, and more imageinfo for members that stood in the answer before."""
    late = a_file("late.jpg", LicenseShortName="CC0")
    api = FakeApi(
        {
            "Concept automobiles": [
                answer(a_file("1.jpg"), without_info(late), more={"iicontinue": "x|1", "continue": "||"}),
                answer(
                    without_info(a_file("1.jpg")), late, more={"gcmcontinue": "page|2", "continue": "gcmcontinue||"}
                ),
                answer(a_file("2.jpg")),
            ]
        }
    )
    wanted = find(api)
    assert [item.title for item in wanted] == ["1", "late", "2"]
    assert wanted[1].license == "CC0"
    assert [(query.get("gcmcontinue"), query.get("iicontinue")) for query in api.queries] == [
        (None, None),
        (None, "x|1"),
        ("page|2", None),
    ]


def tree_of_categories() -> dict[str, list[dict]]:
    return {
        "Concept automobiles": [answer(a_file("top.jpg"), a_category("By brand"), a_category("Loop"))],
        "By brand": [answer(a_file("top.jpg"), a_file("brand.jpg"), a_category("Audi"), a_category("By brand"))],
        "Loop": [answer(a_category("Concept automobiles"))],
        "Audi": [answer(a_file("audi.jpg"))],
    }


def test_sub_categories_to_a_depth_and_no_file_twice():
    assert [item.title for item in find(FakeApi(tree_of_categories()), depth=2)] == ["top", "brand", "audi"]
    assert [item.title for item in find(FakeApi(tree_of_categories()), depth=0)] == ["top"]
    api = FakeApi(tree_of_categories())
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
    api = FakeApi({"Concept automobiles": [answer(*files)]})
    assert [item.url for item in find(api, width_px=960)] == [
        "https://upload.example/thumb/960px-c.png",
        "https://upload.example/small.jpg",  # never enlarged
    ]
    assert api.queries[0]["iiurlwidth"] == "960"
    assert "2 files are no jpeg, png or webp" in capsys.readouterr().err
    api = FakeApi({"Concept automobiles": [answer(a_file("c.jpg"))]})
    assert [item.url for item in find(api, width_px=None)] == ["https://upload.example/c.jpg"]
    assert "iiurlwidth" not in api.queries[0]


def test_the_interface_is_asked_as_its_etiquette_wants():
    api = FakeApi({"Concept automobiles": [answer(a_file("a.jpg"))]})
    find(api)
    query = api.queries[0]
    assert (query["action"], query["generator"], query["prop"]) == ("query", "categorymembers", "imageinfo")
    assert (query["maxlag"], query["gcmlimit"], query["formatversion"]) == ("5", "50", "2")
    assert set(query["iiprop"].split("|")) == {"url", "mime", "size", "extmetadata"}


def test_servers_that_are_behind_are_given_time():
    lagging = {"error": {"code": "maxlag", "info": "Waiting for 10.0.0.1: 7 seconds lagged", "lag": 7.5}}
    api = FakeApi({"Concept automobiles": [lagging, lagging, answer(a_file("a.jpg"))]})
    waits: list[float] = []
    found = list(Commons(["Concept automobiles"], pause=waits.append).find(api))
    assert len(found) == 1
    assert waits == [7.5, 15.0]
    assert api.fresh_days == [7, 0, 0]  # else the cached excuse would be read again
    api = FakeApi({"Concept automobiles": [lagging] * 50})
    with pytest.raises(UserError, match="the servers are behind"):
        list(Commons(["Concept automobiles"], pause=lambda _: None).find(api))
    assert len(api.queries) == 6


def test_an_error_and_an_answer_of_another_shape_are_told():
    refused = {"error": {"code": "invalidcategory", "info": "The category name you entered is not valid."}}
    with pytest.raises(UserError, match="invalidcategory: The category name"):
        find(FakeApi({"Concept automobiles": [refused]}))
    with pytest.raises(PageChanged, match="batchcomplete"):
        find(FakeApi({"Concept automobiles": [{"warnings": {}}]}))
    with pytest.raises(PageChanged, match="continuation"):
        stuck = answer(a_file("a.jpg"), more={"gcmcontinue": "same", "continue": "-||"})
        find(FakeApi({"Concept automobiles": [stuck, stuck, stuck]}))
    page_of_html = FakeApi({})
    page_of_html.get_page = lambda url, **_: Page(url, "<html>")
    with pytest.raises(PageChanged, match="JSON"):
        find(page_of_html)


def test_an_empty_category_is_told_and_nothing_at_all_is_an_error(capsys):
    api = FakeApi({"Concept automobiles": [answer(a_file("a.jpg"))]})
    assert len(find(api, "Category:Concept_automobiles", "No such")) == 1
    assert "Category:No such is empty or not there" in capsys.readouterr().err
    with pytest.raises(UserError, match="found no picture in No such"):
        find(FakeApi({}), "No such")


def test_files_are_found_while_they_are_wanted():
    api = FakeApi({"Concept automobiles": [answer(a_file("a.jpg"), more={"gcmcontinue": "2", "continue": "x"})]})
    next(Commons(["Concept automobiles"]).find(api))
    assert len(api.queries) == 1
