"""`make scrape SOURCE= CHECK=1`: whether a source's pages still have the expected shape. Nothing is kept."""

from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import Interrupted, UserError
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.ledger import read_lines
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import PictureItem, raise_if_incomplete
from scrapers.sites.source import PageChanged, Source


def check_source(name: str, source: Source, politeness: Politeness) -> str:
    """Fetches the first picture as a crawl would, without cached pages; returns one line about it.

    UserError when a page has changed or the picture cannot be fetched, Interrupted when that may be temporary.
    """
    with TemporaryDirectory() as folder, Fetcher(Path(folder), politeness) as fetcher:
        try:
            item = next(iter(source.find(fetcher)), None)
            if item is None:
                raise UserError(f"{name}: found no picture, allowed 1 or more, try without other options")
            source.check(item)
        except PageChanged as error:
            raise UserError(
                f"{name}: the shape has changed: found {error.url} without {error.expected}; "
                "a crawl would find little or nothing; report it, or fix the source"
            ) from error
        counts = fetcher.fetch_pictures([item], 1)
        raise_if_incomplete(counts, fetcher.stopped)
        (line,) = [line for line in read_lines(Path(folder) / "ledger.jsonl") if line]
    if counts.failed:
        raise Interrupted(f"{name}: the pages are as expected; {item.url}: {line['reason']}; try later")
    if not counts.done:
        raise UserError(
            f"{name}: the pages are as expected, but the picture cannot be fetched: {item.url}: {line['reason']}"
        )
    return f"{name}: as expected; {_facts(item)}, {line['bytes']} bytes from {item.url}"


def _facts(item: PictureItem) -> str:
    """The picture's metadata from the pages."""
    specs = sum(value is not None for value in (item.specs or {}).values())
    known = {"class": item.class_name, "licence": item.license, "author": item.author, "title": item.title}
    facts = [f"{key} {value}" for key, value in known.items() if value] + ([f"{specs} facts"] if specs else [])
    return ", ".join(["a picture", *facts])
