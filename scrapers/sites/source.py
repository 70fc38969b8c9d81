"""What a source of pictures is, what it needs of the fetcher, and how it says that a page is not what it was."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from harness.errors import UserError
from harness.messages import log
from scrapers.crawl.records import Page, PictureItem

CHANGED_PATIENCE = 3  # pages of one kind in a row without what is looked for, before a single good one

MAX_TEXT_CHARS = 8192  # of a field: parsed within milliseconds, whatever is in it


class Pages(Protocol):
    """The part of the fetcher that a source uses while it looks for pictures."""

    def get_page(
        self, url: str, *, fresh_days: float = 7, headers: Mapping[str, str] | None = None, api: bool = False
    ) -> Page: ...

    def pause(self, seconds: float) -> None: ...


class Source(Protocol):
    """Where pictures are found. Everything else about it is in its own fields."""

    name: str

    def find(self, pages: Pages) -> Iterator[PictureItem]:
        """Pictures one after the other, read as they are wanted; PageChanged when a page is not what it was."""
        ...

    def check(self, item: PictureItem) -> None:
        """PageChanged when the pages that led to this picture lack what goes with it."""
        ...


class PageChanged(UserError):
    """A page was there, but what a source looks for on it was not."""

    def __init__(self, url: str, expected: str) -> None:
        self.url, self.expected = url, expected
        super().__init__(
            f"{url}: found a page without {expected}; its shape has probably changed. What is fetched is kept. "
            "Look at the page; a source reads pages as they were when it was written, so report it, or mend the source"
        )


class PageShapeCheck:
    """For each kind of page: how many had what was looked for, and which had not.

    One odd page is told and passed over; a kind that never has what is looked for is an error, never an empty set.
    """

    def __init__(self) -> None:
        self.good: Counter[str] = Counter()
        self.odd: dict[str, list[tuple[str, str]]] = {}

    def saw(self, kind: str, url: str, found: bool, expected: str) -> None:
        """Notes a page. PageChanged when the first pages of its kind are all without."""
        if found:
            self.good[kind] += 1
            return
        odd = self.odd.setdefault(kind, [])
        odd.append((url, expected))
        if not self.good[kind] and len(odd) >= CHANGED_PATIENCE:
            raise PageChanged(*odd[0])

    def close(self) -> None:
        """At the end: PageChanged for a kind without one good page, a line for each kind with odd ones."""
        for kind, odd in self.odd.items():
            if not self.good[kind]:
                raise PageChanged(*odd[0])
            url, expected = odd[0]
            log(f"{len(odd)} of {len(odd) + self.good[kind]} {kind} pages have no {expected}, the first: {url}")


def read_json(page: Page, expected: str) -> dict[str, Any]:
    """An interface's answer; PageChanged when it is no JSON object."""
    try:
        content = json.loads(page.text)
    except (ValueError, RecursionError) as error:
        raise PageChanged(page.url, expected) from error
    if not isinstance(content, dict):
        raise PageChanged(page.url, expected)
    return content


def parse_html(text: str) -> Any:
    """A page's tree (selectolax), for `css` and `css_first`. A small page can be made to take minutes, so whole pages
    are parsed through `read_page` alone."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise UserError("scrape extra: found no selectolax, try pip install -r requirements.txt") from error
    return LexborHTMLParser(text)


def html_to_text(text: str) -> str | None:
    """`<a href="...">Jane  Doe</a>` → `Jane Doe`; None when nothing is left. Of a long text, the beginning."""
    text = text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS].rpartition("<")[0]  # no half tag
    body = parse_html(text).body
    return (" ".join(body.text(separator=" ").split()) or None) if body is not None else None
