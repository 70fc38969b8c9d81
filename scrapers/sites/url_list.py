"""A file of picture URLs: one per line, or a CSV with a column `url` and columns of metadata.

Empty lines and lines that begin with # are skipped. All bad lines are reported at once, before any request.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.config.class_choice import to_valid_text
from harness.errors import UserError
from harness.files import open_file
from harness.storage.tables import decode_table, delimiter_of, from_cell
from scrapers.crawl.records import PictureItem
from scrapers.sites.source import Pages

COLUMNS = ("url", "class", "license", "author", "title", "page")
MAX_SHOWN_PROBLEMS = 20
MAX_BYTES = 500_000_000


class UrlList:
    """`path`: the file, read at once, so that a dry run reports its errors."""

    name = "list"

    def __init__(self, path: Path) -> None:
        self.items = _read(path)

    def find(self, pages: Pages) -> Iterator[PictureItem]:
        yield from self.items

    def check(self, item: PictureItem) -> None:
        """Nothing to check: no page is read."""


def _read(path: Path) -> list[PictureItem]:
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"SRC: found more than {MAX_BYTES} bytes in {path}, allowed a list of picture URLs")
        text = to_valid_text(decode_table(content))
    except OSError as error:
        raise UserError(f"SRC: cannot read {path} ({error.strerror}), allowed a file of picture URLs") from error
    except UnicodeDecodeError as error:
        raise UserError(f"SRC: found a file that is not text, {path}, allowed a list of picture URLs") from error
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise UserError(f"SRC: found no URL in {path}, allowed one per line, or a CSV with a column url")
    delimiter = delimiter_of(lines[0][1])
    columns = [cell.lower() for cell in _cells(lines[0][1], delimiter)]
    if "url" in columns:
        _check_columns(columns, path)
        rows = [(number, _cells(line, delimiter, len(columns))) for number, line in lines[1:]]
    else:
        columns, rows = ["url"], [(number, [line]) for number, line in lines]
    problems = [f"  line {number}: {problem}" for number, cells in rows if (problem := _row_problem(cells, columns))]
    if problems:
        more = [f"  and {len(problems) - MAX_SHOWN_PROBLEMS} more"] if len(problems) > MAX_SHOWN_PROBLEMS else []
        head = f"{path}: {len(problems)} bad line{'s' * (len(problems) > 1)} of {len(rows)}; fix or remove them"
        raise UserError("\n".join([head, *problems[:MAX_SHOWN_PROBLEMS], *more]))
    return [_to_item(dict(zip(columns, cells, strict=True))) for _, cells in rows]


def _cells(line: str, delimiter: str, count: int = 0) -> list[str]:
    """At least `count` cells: a spreadsheet leaves out empty ones at the end of a row."""
    cells = [from_cell(cell.strip()) for cell in next(csv.reader([line], delimiter=delimiter))]
    return cells + [""] * (count - len(cells))


def _check_columns(columns: list[str], path: Path) -> None:
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) < len(columns):
        found = f"the columns {', '.join(unknown)}" if unknown else "a column twice"
        raise UserError(f"{path}: line 1: found {found}, allowed each of {', '.join(COLUMNS)} once")


def _row_problem(cells: list[str], columns: list[str]) -> str | None:
    if len(cells) != len(columns):
        return f"found {len(cells)} cells, allowed {len(columns)} as in the header"
    url = cells[columns.index("url")]
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in url)
        parts.port  # noqa: B018  # raises on an invalid port
    except ValueError:
        fine = False
    shown = url if len(url) <= 60 else url[:57] + "..."
    return None if fine else f"found {shown!r}, allowed a URL that begins with https:// or http://"


def _to_item(row: dict[str, str]) -> PictureItem:
    known: dict[str, Any] = {column: row.get(column) or None for column in ("page", "license", "author", "title")}
    return PictureItem(row["url"], UrlList.name, class_name=row.get("class") or None, **known)
