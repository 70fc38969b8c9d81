"""CSV as spreadsheets write it: commas, semicolons or tabs; UTF-8, UTF-16 or Latin-1; short rows.

Cells are escaped so that spreadsheets do not run them as formulas.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator

DELIMITERS = ",;\t"
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the start of a formula, or of a cell that was escaped


def decode_table(content: bytes) -> str:
    """The table's text; bytes that are not UTF-8, as in file names, become surrogate escapes.

    UnicodeDecodeError for invalid UTF-16."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def delimiter_of(head: str) -> str:
    """The most frequent of DELIMITERS in a header line."""
    return max(DELIMITERS, key=head.count)


def read_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, cells) of each non-empty row; the first row is the header.

    Rows are padded to the header's width, and empty cells beyond it are dropped: spreadsheets write both.
    csv.Error for unclosed quotes, in the row after the last one yielded."""
    head, _, rest = text.partition("\n")
    marked = re.fullmatch(r"sep=(.)\r?", head, re.IGNORECASE)  # a line that some spreadsheets write before the header
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
    """The text as a cell, with a leading quote if a spreadsheet would run it."""
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The inverse of `to_cell`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
