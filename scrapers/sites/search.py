"""Web image search through an official API with the user's own key. No result page is ever read.

Brave Search's image API: one request per term, at most 200 results, no further pages.
https://api-dashboard.search.brave.com/api-reference/images/image_search: `properties.url` is the picture, `url` its
page.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from harness.errors import UserError
from scrapers.crawl.records import FetchError, PictureItem
from scrapers.sites.source import PageChanged, Pages, read_json

KEY_VARIABLE = "BRAVE_SEARCH_API_KEY"  # the environment variable that holds the user's key
KEY_PAGE = "https://api-dashboard.search.brave.com"
ENDPOINT = "https://api.search.brave.com/res/v1/images/search"


class Search:
    """Search results for each of `terms`."""

    name = "search"

    def __init__(self, terms: Sequence[str], per_term: int = 100) -> None:
        self.terms, self.per_term = tuple(terms), per_term
        self.key = os.environ.get(KEY_VARIABLE, "").strip()
        if not self.terms:
            raise UserError("TERMS: found none, allowed search terms, try TERMS='concept car, show car'")
        if not self.key:
            raise UserError(
                f"provider search: found no {KEY_VARIABLE} in the environment, allowed your own key of brave "
                f"({KEY_PAGE}), try PROVIDER=commons, which needs none"
            )

    def find(self, pages: Pages) -> Iterator[PictureItem]:
        for term in self.terms:
            try:
                yield from self._results(pages, term)
            except FetchError as error:
                if error.http in (401, 403, 422):
                    hint = f"allowed a key of brave that is valid, see {KEY_PAGE}"
                    raise UserError(f"{KEY_VARIABLE}: found a key that the service refuses, {hint}") from error
                raise

    def check(self, item: PictureItem) -> None:
        if not item.page:
            raise PageChanged(ENDPOINT, "url (the page that shows the picture)")

    def _results(self, pages: Pages, term: str) -> Iterator[PictureItem]:
        query = {"q": term, "count": str(self.per_term), "safesearch": "strict", "spellcheck": "false"}
        headers = {"X-Subscription-Token": self.key, "Accept": "application/json"}
        response = read_json(
            pages.get_page(f"{ENDPOINT}?{urlencode(query)}", headers=headers, api=True), "the API's JSON"
        )
        if not isinstance(response.get("results"), list):
            raise PageChanged(ENDPOINT, "a list of results")
        if not all(isinstance(result, dict) for result in response["results"]):
            raise PageChanged(ENDPOINT, "a list of objects")
        found = [result for result in response["results"] if _picture_url(result)]
        if response["results"] and not found:
            raise PageChanged(ENDPOINT, "results with properties.url (the picture)")
        for result in found:
            url, title = _picture_url(result), result.get("title") or None
            yield PictureItem(url, self.name, page=result.get("url"), title=title)


def _picture_url(result: dict[str, Any]) -> str:
    properties = result.get("properties")
    url = properties.get("url") if isinstance(properties, dict) else None
    return url if isinstance(url, str) else ""
