"""A person's decisions about single pictures: `decisions.csv`, small, readable, made to be committed.

One row per picture, keyed by the sha256 of its bytes, so that a decision survives moving and renaming. Every build
applies the table. Deleting a row takes the decision back.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from harness.config.class_choice import to_valid_text
from harness.config.schema import ViewName
from harness.errors import UserError
from harness.files import read_file
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.lock import folder_lock
from harness.storage.tables import decode_table, from_cell, read_rows, to_cell

COLUMNS = ("file", "sha256", "verdict", "view", "note")
VERDICTS = ("keep", "drop")
VIEWS: tuple[str, ...] = get_args(ViewName)
SHA256 = re.compile(r"[0-9a-f]{64}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # foreign file names may contain these
CONTROL_IN_NOTE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # a note may have several lines
# File names are bytes: those that are not UTF-8 survive reading and writing.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class Decision:
    """`verdict`: keep, drop or "" (none). `view`: one of VIEWS or "". `file` and `note` are for people."""

    file: str
    sha256: str
    verdict: str = ""
    view: str = ""
    note: str = ""


def read_decisions(path: Path, warn: Callable[[str], None] = log) -> dict[str, Decision]:
    """sha256 → decision; empty without a file. UserError lists every bad line and what is allowed there.

    The last of several lines about a picture counts, with a warning.
    """
    try:
        text = decode_table(read_file(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found bytes that are no text, allowed a table of UTF-8") from error
    decisions: dict[str, Decision] = {}
    problems = []
    for number, row in _rows(path, text):
        decision, problem = _decision(row)
        if problem:
            problems.append(f"  line {number}: {problem}")
            continue
        if decision.sha256 in decisions:
            warn(f"{path}: line {number}: {decision.file or decision.sha256} has an earlier line; this one counts")
        decisions[decision.sha256] = decision
    if problems:
        raise UserError("\n".join([f"{path}: {len(problems)} bad line{'s' * (len(problems) > 1)}", *problems]))
    return decisions


def change_decisions(path: Path, changes: dict[str, Decision | None]) -> dict[str, Decision]:
    """Writes decisions, or takes them back (None). Those of other pictures stay as the file has them now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):
        decisions = read_decisions(path, warn=lambda text: None)
        for sha256, decision in changes.items():
            if decision is None:
                decisions.pop(sha256, None)
            else:
                decisions[sha256] = decision
        write_decisions(path, decisions.values())
    return decisions


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Rewrites the file, sorted by file name: equal decisions give equal bytes."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(COLUMNS)
    for decision in sorted(decisions, key=lambda one: (one.file, one.sha256)):
        checked, problem = _decision({column: getattr(decision, column) for column in COLUMNS})
        if problem:
            raise UserError(f"decision on {decision.file or decision.sha256}: {problem}")
        shown = replace(checked, file=CONTROL.sub("?", checked.file), note=CONTROL_IN_NOTE.sub("?", checked.note))
        rows.writerow([to_cell(getattr(shown, column)) for column in COLUMNS])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, stream.getvalue().encode(**TEXT))


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(number of its last line, columns or the problem) of each row."""
    allowed, number, names = f"allowed {','.join(COLUMNS)}", 1, []
    try:
        for number, row in read_rows(text):
            if not names:
                names = [name.strip() for name in row]
                if sorted(names) != sorted(COLUMNS):
                    raise UserError(f"{path}: line {number}: found {','.join(row)[:80]!r}, {allowed}")
            elif len(row) != len(names):
                yield number, f"found {len(row)} columns, {allowed}"
            else:
                yield number, dict(zip(names, map(from_cell, row), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: after line {number}: {error}; {allowed}, texts with a comma in quotes") from error


def _decision(row: dict[str, str] | str) -> tuple[Decision, str]:
    """(decision, "") or (an empty one, the problem)."""
    empty = Decision("", "")
    if isinstance(row, str):
        return empty, row
    sha256, verdict, view = (row[key].strip().lower() for key in ("sha256", "verdict", "view"))
    if not SHA256.fullmatch(sha256):
        return empty, f"sha256: found {sha256[:70]!r}, allowed 64 hex digits"
    for key, found, allowed in (("verdict", verdict, VERDICTS), ("view", view, VIEWS)):
        if found and found not in allowed:
            return empty, f"{key}: found {found[:40]!r}, allowed {', '.join(allowed)} or nothing"
    note = to_valid_text(row["note"]).replace("\r\n", "\n").replace("\r", "\n")
    return Decision(row["file"], sha256, verdict, view, note), ""
