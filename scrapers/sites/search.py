"""Web image search, only through a service that allows it and with the user's own key. No result page is ever read."""

import os
from collections.abc import Iterator, Sequence
from typing import Protocol
from urllib.parse import urlencode

from harness.errors import UserError
from scrapers.crawl.records import FetchError, Wanted
from scrapers.sites.source import PageChanged, Pages, read_json


class ImageSearch(Protocol):
    """A service. `key_variable`: the environment variable that holds the user's key."""

    name: str
    key_variable: str
    key_page: str

    def results(self, pages: Pages, term: str, count: int, key: str) -> Iterator[Wanted]: ...


class Brave:
    """Brave Search's image interface: one request a term, at most 200 results, no further pages.

    https://api-dashboard.search.brave.com/api-reference/images/image_search: `properties.url` is the picture,
    `url` the page that shows it.
    """

    name = "brave"
    key_variable = "BRAVE_SEARCH_API_KEY"
    key_page = "https://api-dashboard.search.brave.com"
    endpoint = "https://api.search.brave.com/res/v1/images/search"

    def results(self, pages: Pages, term: str, count: int, key: str) -> Iterator[Wanted]:
        query = {"q": term, "count": str(count), "safesearch": "strict", "spellcheck": "false"}
        url = f"{self.endpoint}?{urlencode(query)}"
        page = pages.get_page(url, headers={"X-Subscription-Token": key, "Accept": "application/json"}, api=True)
        answer = read_json(page, "the service's JSON")
        if not isinstance(answer.get("results"), list):
            raise PageChanged(self.endpoint, "a list of results")
        found = [result for result in answer["results"] if (result.get("properties") or {}).get("url")]
        if answer["results"] and not found:
            raise PageChanged(self.endpoint, "results with properties.url (the picture)")
        for result in found:
            yield Wanted(
                result["properties"]["url"], Search.name, page=result.get("url"), title=result.get("title") or None
            )


SERVICES: dict[str, ImageSearch] = {"brave": Brave()}


class Search:
    """Pictures for each of some terms, from one service."""

    name = "search"

    def __init__(self, terms: Sequence[str], per_term: int = 100, service: str = "brave") -> None:
        self.terms, self.per_term, self.service = tuple(terms), per_term, SERVICES[service]
        self.key = os.environ.get(self.service.key_variable, "").strip()
        if not self.terms:
            raise UserError("TERMS: found none, allowed what to search for, try TERMS='concept car, show car'")
        if not self.key:
            raise UserError(
                f"provider search: found no {self.service.key_variable} in the environment, allowed your own key of "
                f"{self.service.name} ({self.service.key_page}), try PROVIDER=commons, which needs none"
            )

    def find(self, pages: Pages) -> Iterator[Wanted]:
        for term in self.terms:
            try:
                yield from self.service.results(pages, term, self.per_term, self.key)
            except FetchError as error:
                if error.http in (401, 403, 422):
                    hint = f"allowed a key of {self.service.name} that is valid, see {self.service.key_page}"
                    raise UserError(f"{self.service.key_variable}: found one that is refused, {hint}") from error
                raise
