"""What a person decided about single pictures: `decisions.csv`, small, readable, and made to be committed.

One line a picture, known by the sha256 of its bytes, so that a decision survives moving and renaming. Every build
replays it. A line that goes takes the decision back.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from harness.config.schema import ViewName
from harness.errors import UserError
from harness.files import read_file
from harness.messages import say
from harness.storage.atomic import atomic_write
from harness.storage.lock import folder_lock

COLUMNS = ("file", "sha256", "verdict", "view", "note")
VERDICTS = ("keep", "drop")
VIEWS: tuple[str, ...] = get_args(ViewName)
SHA256 = re.compile(r"[0-9a-f]{64}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # in the names of strangers; a decision stays one line
# Names of files are bytes: those that are not UTF-8 come and go unharmed.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class Decision:
    """`verdict`: keep, drop or "" (not said). `view`: one of VIEWS or "". `file` and `note` are for people."""

    file: str
    sha256: str
    verdict: str = ""
    view: str = ""
    note: str = ""


def read_decisions(path: Path, tell: Callable[[str], None] = say) -> dict[str, Decision]:
    """sha256 → decision; none where there is no file. UserError with every bad line and what is allowed in it.

    Of several lines about one picture the last one counts, and that is told.
    """
    try:
        text = read_file(path).decode(**TEXT)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    decisions: dict[str, Decision] = {}
    faults = []
    for number, row in _rows(path, text):
        decision, fault = _decision(row)
        if fault:
            faults.append(f"  line {number}: {fault}")
            continue
        if decision.sha256 in decisions:
            tell(f"{path}: line {number}: {decision.file or decision.sha256} was decided above; this line counts")
        decisions[decision.sha256] = decision
    if faults:
        raise UserError("\n".join([f"{path}: {len(faults)} bad line{'s' * (len(faults) > 1)}", *faults]))
    return decisions


def change_decisions(path: Path, changes: dict[str, Decision | None]) -> dict[str, Decision]:
    """Writes some decisions and takes others (None) back; those of other pictures stay as the file has them now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):
        decisions = read_decisions(path, tell=lambda text: None)
        for sha256, decision in changes.items():
            if decision is None:
                decisions.pop(sha256, None)
            else:
                decisions[sha256] = decision
        write_decisions(path, decisions.values())
    return decisions


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """The whole file anew, sorted by file: equal decisions are equal bytes."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(COLUMNS)
    for decision in sorted(decisions, key=lambda one: (one.file, one.sha256)):
        checked, fault = _decision({column: getattr(decision, column) for column in COLUMNS})
        if fault:
            raise UserError(f"decision on {decision.file or decision.sha256}: {fault}")
        rows.writerow([CONTROL.sub("?", getattr(checked, column)) for column in COLUMNS])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, stream.getvalue().encode(**TEXT))


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(number of its last line, columns or what is wrong) of each row; empty lines are passed over."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    allowed = f"allowed {','.join(COLUMNS)}"
    try:
        head = next(reader, None)
        if head is None:
            return
        names = [name.strip() for name in head]
        if sorted(names) != sorted(COLUMNS):
            raise UserError(f"{path}: line 1: found {','.join(head)[:80]!r}, {allowed}")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            number = reader.line_num
            if len(row) != len(names):
                yield number, f"found {len(row)} columns, {allowed}"
            else:
                yield number, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; {allowed}, texts with a comma in quotes") from error


def _decision(row: dict[str, str] | str) -> tuple[Decision, str]:
    """(decision, "") or (an empty one, what is wrong)."""
    empty = Decision("", "")
    if isinstance(row, str):
        return empty, row
    sha256, verdict, view = (row[key].strip().lower() for key in ("sha256", "verdict", "view"))
    if not SHA256.fullmatch(sha256):
        return empty, f"sha256: found {sha256[:70]!r}, allowed 64 hex digits"
    for key, found, allowed in (("verdict", verdict, VERDICTS), ("view", view, VIEWS)):
        if found and found not in allowed:
            return empty, f"{key}: found {found[:40]!r}, allowed {', '.join(allowed)} or nothing"
    return Decision(row["file"], sha256, verdict, view, row["note"]), ""
