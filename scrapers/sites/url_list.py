"""A file of picture addresses: one a line, or a CSV with a column `url` and others that are kept with each picture.

Empty lines and lines that begin with # are passed over. All bad lines are told at once, before anything is fetched.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import UserError
from scrapers.crawl.records import Wanted
from scrapers.sites.source import Pages

COLUMNS = ("url", "class", "license", "author", "title", "page")
SHOWN_FAULTS = 20
MAX_BYTES = 500_000_000


class AddressList:
    """`path`: the file. Read as a whole when made, so that a dry run tells its faults."""

    name = "list"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wanted = list(_read(path))

    def find(self, pages: Pages) -> Iterator[Wanted]:
        yield from self.wanted


def _read(path: Path) -> list[Wanted]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"SRC: found more than {MAX_BYTES} bytes in {path}, allowed a list of addresses")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"SRC: cannot read {path} ({error.strerror}), allowed a file of picture addresses") from error
    except UnicodeDecodeError as error:
        raise UserError(f"SRC: found bytes that are no UTF-8 text in {path}, allowed a list of addresses") from error
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise UserError(f"SRC: found no address in {path}, allowed one a line, or a CSV with a column url")
    columns = [cell.strip().lower() for cell in next(csv.reader([lines[0][1]]))]
    rows = _table_rows(lines[1:], columns, path) if "url" in columns else [(n, {"url": line}) for n, line in lines]
    faults = [f"  line {number}: {fault}" for number, row in rows if (fault := _fault(row))]
    if faults:
        more = [f"  and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        head = f"{path}: {len(faults)} bad line{'s' * (len(faults) > 1)} of {len(rows)}; mend or remove them"
        raise UserError("\n".join([head, *faults[:SHOWN_FAULTS], *more]))
    return [_wanted(row) for _, row in rows]


def _table_rows(lines: list[tuple[int, str]], columns: list[str], path: Path) -> list[tuple[int, dict[str, str]]]:
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) < len(columns):
        found = f"the columns {', '.join(unknown)}" if unknown else "a column twice"
        raise UserError(f"{path}: line 1: found {found}, allowed each of {', '.join(COLUMNS)} once")
    rows = []
    for number, line in lines:
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        fits = len(cells) == len(columns)
        rows.append((number, dict(zip(columns, cells, strict=True)) if fits else {"fault": f"{len(cells)} cells"}))
    return rows


def _fault(row: dict[str, str]) -> str | None:
    if "fault" in row:
        return f"found {row['fault']}, allowed as many as there are columns"
    url = row["url"]
    shown = url if len(url) <= 60 else url[:57] + "..."
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in url)
        parts.port  # noqa: B018  # raises on a port that is no number
    except ValueError:
        fine = False
    return None if fine else f"found {shown!r}, allowed an address that begins with https:// or http://"


def _wanted(row: dict[str, str]) -> Wanted:
    known = {column: row.get(column) or None for column in COLUMNS}
    return Wanted(
        row["url"],
        AddressList.name,
        page=known["page"],
        class_name=known["class"],
        license=known["license"],
        author=known["author"],
        title=known["title"],
    )
