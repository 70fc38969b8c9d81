"""Pages from a table instead of the network, for tests of what looks for pictures on them."""

from collections.abc import Mapping
from pathlib import Path

from scrapers.crawl.records import FetchError, Page

FOLDER = Path(__file__).parent / "pages"
CAR_PAGES = {  # path on The Car Connection → file
    "/new-cars": "new-cars",
    "/make/new,audi": "make_new_audi",
    "/cars/audi_a5": "cars_audi_a5",
    "/specifications/audi_a5_2013": "specifications_audi_a5_2013",
    "/photos/audi_a5_2013": "photos_audi_a5_2013",
    "/photos/audi_a5_2014": "photos_audi_a5_2014",
}


class StaticPages:
    """`table`: address → text, or the error that asking for it raises; a list is answered one after the other."""

    def __init__(self, table: Mapping[str, "str | Exception | list[str]"]) -> None:
        self.table = dict(table)
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.api_calls: list[bool] = []
        self.fresh_days: list[float] = []
        self.pauses: list[float] = []

    def get_page(
        self, url: str, *, fresh_days: float = 7, headers: Mapping[str, str] | None = None, api: bool = False
    ) -> Page:
        self.requests.append(url)
        self.headers.append(dict(headers or {}))
        self.api_calls.append(api)
        self.fresh_days.append(fresh_days)
        found = self.response(url)
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, Exception):
            raise found
        return Page(url, found)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def response(self, url: str) -> "str | Exception | list[str]":
        return self.table.get(url, FetchError(url, "gone", "http: 404", 404))


class SameAnswer(StaticPages):
    """The same to everything."""

    def __init__(self, found: str | Exception) -> None:
        super().__init__({})
        self.found = found

    def response(self, url: str) -> str | Exception:
        return self.found


def page_text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
