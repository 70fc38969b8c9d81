"""manifest.jsonl: one line per input file, written from the scan store; the only place where files are counted.

Summary, report and clinic query a `Manifest`: the file's lines as a table of a temporary database on disk, so memory
does not grow with the set.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from datasets.clean.reasons import slug_of, step_of
from datasets.scan.store import LISTED, ScanStore, in_blocks, key_to_file
from harness.errors import UserError
from harness.files import open_file
from harness.storage.atomic import atomic_file
from harness.storage.json_files import parse_json

MAX_NAMES = 1000  # values of a column counted one by one: foreign texts may differ in every line
QUERY = f"""select l.pos, l.key, d.verdict, coalesce(d.reason, ''), d.ok_score, d.view, d.view_confidence, s.sha256,
    l.source, l.class, l.specs, d.split, d.row, s.width, s.height, (select key from listed where pos = d.duplicate_of),
    d.decided_by, l.url, l.page, l.license, l.author, d.mirrored, s.note {LISTED} join decided d on d.pos = l.pos"""
UNREADABLE = (
    OSError,
    ValueError,
    OverflowError,
    KeyError,
    TypeError,
    AttributeError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
LINE_NAMES = ("view", "class", "source", "license", "author", "width", "height", "sha256", "duplicate_of", "note")
# Further columns. `kept`, `mirrored`: 0 or 1. `step`, `slug`: where and why a file was dropped. `packed_view`: of the
# packed picture. `host`: of its page or address. `spread`: see `Manifest.examples`. `start`, `size`: of its line in the
# file. Missing values are null.
COLUMNS = (*LINE_NAMES, "pos", "start", "size", "file", "kept", "split", "step", "slug", "decided_by", "ok_score")
COLUMNS += ("packed_view", "view_confidence", "mirrored", "host", "spread")
TABLE = f"create table manifest ({', '.join(COLUMNS)}, original, primary key (pos)) without rowid"
AFTER_INSERT = (
    "create index by_file on manifest (file)",
    "create index by_sha256 on manifest (sha256)",
    """update manifest set original = (select min(m.pos) from manifest m where m.file = manifest.duplicate_of)
    where duplicate_of not null""",
)
INSERT = f"insert into manifest values ({'?, ' * len(COLUMNS)} null)"


def write_manifest(store: ScanStore, path: Path) -> str:
    """Writes it atomically; returns its sha256."""
    digest = hashlib.sha256()
    with atomic_file(path) as stream:
        for block in in_blocks(store.select(QUERY), 256):
            content = "".join(json.dumps(_line(row)) + "\n" for row in block).encode()
            digest.update(content)
            stream.write(content)
    return digest.hexdigest()


def _line(row: tuple) -> dict[str, Any]:
    (_, key, verdict, reason, score, view, confidence, sha256, source, class_name, specs, split, number, width, height,
     copy, decided_by, url, page, license_, author, mirrored, note) = row  # fmt: skip
    return {
        "file": key_to_file(key),
        "verdict": verdict,
        "reason": reason or None,
        "ok_score": float(score or 0.0),
        "view": view,
        "view_confidence": confidence,
        "sha256": sha256,
        "source": source,
        "class": None if class_name is None else key_to_file(class_name),
        "specs": None if specs is None else json.loads(specs),
        "split": split,
        "row": number,
        "width": width,
        "height": height,
        "duplicate_of": None if copy is None else key_to_file(copy),
        "decided_by": decided_by,
        "url": url,
        "page": page,
        "license": license_,
        "author": author,
        "mirrored": bool(mirrored),
        **({"note": note} if note else {}),
    }


class Manifest:
    """An open manifest. `pos` is a line's number, from 0.

    The file stays open, so it can still be read after another has replaced it. Threads may share it.
    UserError when the file is missing, damaged or empty, or there is no space for the temporary database.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect("", check_same_thread=False)
        self._base.execute(TABLE)
        try:
            self._stream = open_file(path)
            self._base.executemany(INSERT, _rows(self._stream))
            for statement in AFTER_INSERT:
                self._base.execute(statement)
        except UNREADABLE as error:
            raise UserError(f"{path}: cannot be read ({error}); build the set again with `make dataset`") from error
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{path}: cannot be counted ({error}); free space for temporary files, see TMPDIR"
            ) from error
        if not self.total():
            raise UserError(f"{path}: is empty; build the set again with `make dataset`")

    def rows(self, query: str, **values: Any) -> list[tuple]:
        """Rows of a query on the table `manifest`; `values` for its `:name`s."""
        with self._lock:
            return self._base.execute(query, {name: escaped(value) for name, value in values.items()}).fetchall()

    def total(self, where: str = "true") -> int:
        return self.rows(f"select count(*) from manifest where {where}")[0][0]

    def count(self, what: str, where: str = "true", max_names: int = MAX_NAMES) -> dict[Any, int]:
        """Number of lines by value of a column or expression, in order of appearance: the first `max_names` values one
        by one, the rest as "(others)"."""
        found = f"select {what} as name, min(pos) as first, count(*) as number from manifest where {where} group by 1"
        first = f"select *, row_number() over (order by first) as place from ({found})"
        name = f"case when place <= {max_names} then name else '(others)' end"
        return dict(self.rows(f"select {name}, sum(number) from ({first}) group by 1 order by min(first)"))

    def examples(self, where: str, limit: int, order: str = "spread", **values: Any) -> list[dict[str, Any]]:
        """The first `limit` lines in this order. `spread`, a hash, is a random order that is the same in every build of
        the same pictures."""
        found = self.rows(f"select pos from manifest where {where} order by {order}, pos limit {limit}", **values)
        return self.lines(pos for (pos,) in found)

    def lines(self, positions: Iterable[int]) -> list[dict[str, Any]]:
        """Lines read from the file."""
        query, file = "select size, start from manifest where pos = :pos", self._stream.fileno()
        return [json.loads(os.pread(file, *self.rows(query, pos=pos)[0])) for pos in positions]

    def changes_since(self, before: "Manifest") -> list[tuple]:
        """(pos, kept, view, and before: kept, view, slug) of files in both whose verdict changed, or view if kept."""
        with self._lock, before._lock:
            self._base.execute("create temp table before (file text primary key, kept integer, view text, slug text)")
            found = before._base.execute("select file, kept, view, slug from manifest")
            self._base.executemany("insert or ignore into before values (?, ?, ?, ?)", found)
            query = """select pos, m.kept, m.view, b.kept, b.view, b.slug from manifest m join before b using (file)
                where m.kept != b.kept or (m.kept and m.view is not b.view) order by pos"""
            changed = self._base.execute(query).fetchall()
            self._base.execute("drop table before")
        return changed

    def close(self) -> None:
        self._base.close()
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def packed_view(line: dict[str, Any]) -> str:
    """The view in the packed picture, which may be mirrored; "" if there is none."""
    view = line.get("view") or ""
    if not line.get("mirrored"):
        return view
    return view.replace("left", "<").replace("right", "left").replace("<", "right")


def _rows(stream: Iterable[bytes]) -> Iterator[tuple]:
    """COLUMNS of each line."""
    start = 0
    for pos, content in enumerate(stream):
        line = parse_json(content)
        spread = _spread(line)
        if b"\\ud" in content:  # file names that are not valid text are escaped, as on pages
            line = {name: escaped(value) for name, value in line.items()}
        kept, address = line["verdict"] == "keep", line.get("page") or line.get("url")
        known = {
            **{name: line.get(name) or None for name in LINE_NAMES},
            "pos": pos,
            "start": start,
            "size": len(content),
            "file": line["file"],
            "kept": kept,
            "split": ("valid" if line.get("split") == "valid" else "train") if kept else None,
            "step": step_of(line),
            "slug": slug_of(line) or None,
            "decided_by": line.get("decided_by") or "rule",
            "ok_score": line.get("ok_score"),
            "packed_view": packed_view(line) or None,
            "view_confidence": line.get("view_confidence"),
            "mirrored": bool(line.get("mirrored")),
            "host": _host(address) if address else None,
            "spread": spread,
        }
        yield tuple(known[name] for name in COLUMNS)
        start += len(content)


def _spread(line: dict[str, Any]) -> int:
    text = f"{line.get('sha256')} {line['file']}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or address.partition(":")[0][:40]
    except ValueError:
        return "(no address)"


def escaped(value: Any) -> Any:
    """A name as the table has it: what is not valid text is escaped."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
