"""The interface of a source of pictures, and checks that its pages still have the expected shape."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from harness.errors import UserError
from harness.messages import log
from scrapers.crawl.records import Page, PictureItem

BAD_FIRST_PAGES = 3  # of one kind, before any good one, are an error
MAX_TEXT_CHARS = 8192  # of a field: keeps parsing within milliseconds


class Pages(Protocol):
    """The part of the fetcher that a source uses."""

    def get_page(
        self, url: str, *, fresh_days: float = 7, headers: Mapping[str, str] | None = None, api: bool = False
    ) -> Page: ...

    def pause(self, seconds: float) -> None: ...


class Source(Protocol):
    """A place where pictures are found."""

    name: str

    def find(self, pages: Pages) -> Iterator[PictureItem]:
        """Yields pictures lazily; PageChanged when a page no longer has the expected shape."""
        ...

    def check(self, item: PictureItem) -> None:
        """PageChanged when the pages that led to this picture lack its metadata."""
        ...


class PageChanged(UserError):
    """A page lacks what a source looks for on it."""

    def __init__(self, url: str, expected: str) -> None:
        self.url, self.expected = url, expected
        super().__init__(
            f"{url}: found a page without {expected}; its shape has probably changed. What is fetched is kept. "
            "Look at the page, then report it, or fix the source"
        )


class PageShapeCheck:
    """Counts, for each kind of page, which had the expected content.

    An odd page is logged and skipped; a kind without a single good page is an error.
    """

    def __init__(self) -> None:
        self.good: Counter[str] = Counter()
        self.odd: dict[str, list[tuple[str, str]]] = {}

    def add(self, kind: str, url: str, found: bool, expected: str) -> None:
        """Counts a page. PageChanged when the first BAD_FIRST_PAGES of its kind are all bad."""
        if found:
            self.good[kind] += 1
            return
        odd = self.odd.setdefault(kind, [])
        odd.append((url, expected))
        if not self.good[kind] and len(odd) >= BAD_FIRST_PAGES:
            raise PageChanged(*odd[0])

    def close(self) -> None:
        """At the end: PageChanged for a kind without good pages, a log line for each kind with odd ones."""
        for kind, odd in self.odd.items():
            if not self.good[kind]:
                raise PageChanged(*odd[0])
            url, expected = odd[0]
            log(f"{len(odd)} of {len(odd) + self.good[kind]} {kind} pages have no {expected}, the first: {url}")


def read_json(page: Page, expected: str) -> dict[str, Any]:
    """A JSON object from an API; PageChanged for anything else."""
    try:
        content = json.loads(page.text)
    except (ValueError, RecursionError) as error:
        raise PageChanged(page.url, expected) from error
    if not isinstance(content, dict):
        raise PageChanged(page.url, expected)
    return content


def parse_html(text: str) -> Any:
    """A page's tree (selectolax), for `css` and `css_first`. A small hostile page can take minutes, so pass whole pages
    through `read_page`."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise UserError("scrape extra: found no selectolax, try pip install -r requirements.txt") from error
    return LexborHTMLParser(text)


def html_to_text(text: str) -> str | None:
    """`<a href="...">Jane  Doe</a>` → `Jane Doe`; None if empty. Long text is truncated."""
    text = text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS].rpartition("<")[0]  # drop a partial tag
    body = parse_html(text).body
    return (" ".join(body.text(separator=" ").split()) or None) if body is not None else None
