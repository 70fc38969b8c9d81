"""Tables of text (CSV) as spreadsheets write them: commas, semicolons or tabs, UTF-8, UTF-16 or Latin-1, short rows.

And cells that a spreadsheet does not run as formulas.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator

DELIMITERS = ",;\t"
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that a spreadsheet runs, or that was quoted for this


def decode_table(content: bytes) -> str:
    """Its text; bytes that are no UTF-8 are kept as `surrogateescape` does, since names of files are such bytes.

    UnicodeDecodeError for what begins as UTF-16 and is none."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def delimiter_of(head: str) -> str:
    """What a head line separates its columns by: the most frequent of DELIMITERS."""
    return max(DELIMITERS, key=head.count)


def read_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, cells) of each row, without empty ones; the first row is the head.

    A row that is shorter than the head is filled up, and empty cells beyond it go: a spreadsheet writes both.
    csv.Error, whose row is the one after the last that came, where quotes do not close."""
    head, _, rest = text.partition("\n")
    marked = re.fullmatch(r"sep=(.)\r?", head, re.IGNORECASE)  # a line before the head that some spreadsheets want
    delimiter = marked[1] if marked else delimiter_of(head)
    reader = csv.reader(io.StringIO(rest if marked else text, newline=""), delimiter=delimiter, strict=True)
    width = 0
    for row in reader:
        while row and not row[-1].strip() and len(row) > width:
            row.pop()
        if any(cell.strip() for cell in row):
            width = width or len(row)
            yield reader.line_num + bool(marked), row + [""] * (width - len(row))


def to_cell(text: str) -> str:
    """The text as a cell, behind a quote mark where a spreadsheet would run it."""
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """What `to_cell` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
