"""The scan store, data/sets/<set>/scan-<size>.sqlite: everything known about the files of a set.

Every build writes `listed`, the files in order with their origin. `scanned`, `pictures` and `features` are expensive:
they stay valid while a file's size and modification time do, and are committed in blocks, so a killed build resumes.
`decided` has the last build's decision about each file (clean/decide.py).
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np

from datasets.scan.fingerprints import THUMB_PX, fingerprint
from datasets.scan.scan import Scanned
from harness.images.layout import Place
from harness.messages import log

T = TypeVar("T")
Split = Literal["train", "valid"]
SCHEMA_VERSION = 3
TABLES = """
create table about (key text primary key, value text);
create table listed (pos integer primary key, key blob not null unique, path blob, fault text, bytes integer,
    mtime_ns integer, expected text, class blob, source text, specs text, url text, page text, license text,
    author text, split text);
create table scanned (id integer primary key, key blob not null unique, bytes integer, mtime_ns integer, expected text,
    reason text, sha256 text, width integer, height integer, inner_width integer, inner_height integer, hash integer,
    mirrored_hash integer, luma_low integer, luma_high integer, colours blob, thumb blob, note text);
create index scanned_sha256 on scanned (sha256);
create table pictures (id integer primary key, picture blob);
create table features (id integer primary key, features blob);
create table decided (pos integer primary key, verdict text, reason text, ok_score real, view text,
    view_confidence real, duplicate_of integer, decided_by text, split_key text, split text, row integer,
    mirrored integer);
"""
LISTED = "from listed l left join scanned s on s.key = l.key"
SCANS = ("pictures", "features", "scanned")  # tables with the id of a scan
ORIGIN = ("key", "expected", "class", "source", "specs", "url", "page", "license", "author")  # what a ledger says
ORIGIN += ("split",)
READ_ROWS = 512  # read at a time
READY_FILES = 64  # of a set that comes decoded, committed at once
TRANSIENT = ("unreadable", "timeout")  # reasons that may be gone at the next build
# The scan is of the file as it is now.
CURRENT = "s.bytes = l.bytes and s.mtime_ns = l.mtime_ns and s.expected is l.expected"


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file. `name`: its path below the folder, with `/`. `class_name`: None if it is assigned later.

    `reason`: why it cannot be used (column `fault`). `mtime_ns`: its modification time."""

    path: str
    name: str
    class_name: str | None
    reason: str | None = None
    bytes: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A file to be scanned. `expected`: the sha256 it should have. `known`: id of the outdated scan to delete."""

    pos: int
    path: str
    expected: str | None
    key: bytes
    bytes: int
    mtime_ns: int
    known: int | None


class ScanStore:
    """The store of one set at one size, for one process at a time."""

    def __init__(self, path: Path, base: sqlite3.Connection, img_size: Sequence[int]) -> None:
        self.path, self.base = path, base
        self.picture_shape = (*img_size, 3)

    @classmethod
    def open(cls, path: Path, settings: dict[str, Any]) -> Self:
        """The store with these settings. One with other settings, or a damaged one, is replaced, with a message.

        `settings`: everything that scans depend on, including `img_size`."""
        wanted = json.dumps({"schema_version": SCHEMA_VERSION, **settings}, sort_keys=True)
        if path.exists():
            try:
                base = _connect(path)
                found = base.execute("select value from about where key = 'settings'").fetchone()
                if found is not None and found[0] == wanted:
                    return cls(path, base, settings["img_size"])
                base.close()
                log(f"{path}: was made with other settings; every file is read again")
            except sqlite3.DatabaseError as error:
                log(f"{path}: cannot be used ({error}); every file is read again")
            remove_store(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        base = _connect(path)
        base.executescript(f"begin; {TABLES}")
        base.execute("insert into about values ('settings', ?)", (wanted,))
        base.commit()
        return cls(path, base, settings["img_size"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.base.close()

    # ---- reading ----

    def number(self, query: str) -> int:
        """The first value of the first row."""
        return self.base.execute(query).fetchone()[0]

    def select(self, query: str, condition: str = "true", rows: int = READ_ROWS) -> Iterator[tuple]:
        """Rows in order of position, read in parts: no cursor stays open while rows are written.

        The query's first column must be `l.pos`."""
        after, rest = -1, f"where l.pos > ? and {condition} order by l.pos limit {rows}"
        while block := self.base.execute(f"{query} {rest}", (after,)).fetchall():
            yield from block
            after = block[-1][0]

    def count(self) -> int:
        """Files of the set."""
        return self.number("select count(*) from listed")

    def feature_blocks(self, rows: int = 1024) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions in the listing (N,), float32 (N, dim)) of all files with features, in order."""
        found = self.select(f"select l.pos, f.features {LISTED} join features f on f.id = s.id", rows=rows)
        for block in in_blocks(found, rows):
            yield np.array([pos for pos, _ in block]), np.stack([to_features(content) for _, content in block])

    def kept(self) -> Iterator[tuple[Split, str, np.ndarray, bool]]:
        """(split, class name, uint8 (H, W, 3), whether to mirror it) of every kept file, in order."""
        query = f"select l.pos, d.split, l.class, d.mirrored, p.picture {LISTED} join decided d on d.pos = l.pos"
        for _, split, class_name, mirrored, content in self.select(
            f"{query} join pictures p on p.id = s.id", "d.verdict = 'keep'", rows=64
        ):
            picture = np.frombuffer(content, np.uint8).reshape(self.picture_shape)
            yield split, os.fsdecode(class_name), picture, bool(mirrored)

    def splits(self) -> list[Split]:
        """The splits with a picture."""
        query = "select distinct split from decided where split not null order by 1"
        return [split for (split,) in self.base.execute(query)]

    def trained_classes(self) -> set[str]:
        """The classes with a training picture."""
        query = "select distinct l.class from listed l join decided d using (pos) where d.split = 'train'"
        return {os.fsdecode(name) for (name,) in self.base.execute(query)}

    def dropped(self) -> dict[str, int]:
        """Slug → number of dropped files."""
        query = """select substr(reason, 1, instr(reason || ':', ':') - 1) as slug, count(*) from decided
            where verdict = 'drop' group by slug order by slug"""
        return dict(self.base.execute(query).fetchall())

    # ---- the listing ----

    def list_files(self, found: Iterable[ListedFile], source: str) -> None:
        """Replaces the listing; `found` may have any order."""
        self.base.execute(
            """create temp table found (key blob primary key, path blob, fault text, bytes integer, mtime_ns integer,
            class blob) without rowid"""
        )
        statement = "insert or replace into temp.found values (?, ?, ?, ?, ?, ?)"
        self.base.executemany(statement, map(_listed_columns, found))
        self._clear("listed", "decided")
        self.base.execute(
            """insert into listed (pos, key, path, fault, bytes, mtime_ns, class, source)
            select row_number() over (order by key) - 1, key, path, fault, bytes, mtime_ns, class, ? from temp.found""",
            (source,),
        )
        self.base.execute("drop table temp.found")
        self.base.commit()

    def assign_places(self, place: Callable[[str], Place], with_splits: bool) -> None:
        """Sets class, split (only `with_splits`) and reason of every listed file by its name."""
        statement = "update listed set class = ?, split = ?, fault = coalesce(fault, ?) where pos = ?"
        for block in in_blocks(self.select("select l.pos, l.key from listed l"), READ_ROWS):
            found = [(pos, place(key_to_file(key))) for pos, key in block]
            rows = [
                (_class_bytes(one.class_name), one.split if with_splits else None, one.problem, pos)
                for pos, one in found
            ]
            self.base.executemany(statement, rows)
        self.base.commit()

    def join_ledger(self, lines: Iterable[dict[str, Any]], with_splits: bool = False) -> None:
        """Adds a ledger's lines: `address` and ORIGIN, in its order; the last of an address counts."""
        columns = ", ".join(ORIGIN)
        self.base.execute(f"create temp table origins (address text primary key, {columns})")
        values = ", ".join(f":{name}" for name in ("address", *ORIGIN))
        self.base.executemany(f"insert or replace into temp.origins values ({values})", lines)
        self.base.execute("create index temp.origins_key on origins (key, class is null, address)")
        self.base.execute(
            """insert into listed (pos, key, path, fault) select (select count(*) from listed) - 1 +
            row_number() over (order by key), key, null, 'unreadable: the ledger has it, the folder has not'
            from (select distinct key from temp.origins where key not null and key not in (select key from listed))"""
        )
        self.base.execute(
            f"""update listed set (expected, class, source, specs, url, page, license, author, split) =
            (select expected, cast(class as blob), coalesce(o.source, listed.source), specs, url, page, license, author,
            {"o.split" if with_splits else "null"}
            from temp.origins o where o.key = listed.key order by class is null, address limit 1)
            where key in (select key from temp.origins)"""
        )
        self.base.execute("drop table temp.origins")
        self._sort_positions()
        self.base.commit()

    def _sort_positions(self) -> None:
        """Numbers the files by key again, through negative positions, since positions are unique."""
        self.base.execute(
            """create temp table places as select pos, row_number() over (order by key) - 1 as place from listed"""
        )
        self.base.execute("create index temp.places_pos on places (pos)")
        self.base.execute("update listed set pos = -1 - (select place from temp.places p where p.pos = listed.pos)")
        self.base.execute("update listed set pos = -1 - pos")
        self.base.execute("drop table temp.places")

    def assign_classes(self, only_class: str, others: str | None, reason: str | None) -> list[str]:
        """The names of the classes with a file, in order; `only_class` if there are none.

        Files without a class get the class `others`, or this reason against them."""
        query = "select distinct class from listed where fault is null and class not null order by class"
        names = [name for (name,) in self.base.execute(query)]
        if not names:
            self.base.execute("update listed set class = ?", (os.fsencode(only_class),))
            names = [os.fsencode(only_class)]
        elif others is not None:
            lacking = self.base.execute("update listed set class = ? where class is null", (os.fsencode(others),))
            names = sorted({*names, os.fsencode(others)}) if lacking.rowcount else names
        else:
            self.base.execute("update listed set fault = coalesce(fault, ?) where class is null", (reason,))
            self.base.execute("update listed set class = null where class not in (select distinct class from listed "
                              "where fault is null)")  # fmt: skip
        self.base.commit()
        return [os.fsdecode(name) for name in names]

    def delete_stale(self) -> None:
        """Deletes scans of files that are no longer listed or have changed."""
        gone = f"select s.id from scanned s left join listed l on s.key = l.key where l.key is null or not ({CURRENT})"
        self.base.execute("create temp table gone as " + gone)
        for table in SCANS:
            self.base.execute(f"delete from {table} where id in (select id from temp.gone)")
        self.base.execute("drop table temp.gone")
        self.base.commit()

    def add_decoded(self, rows: Iterable[tuple[ListedFile, Scanned, Split | None]], source: str) -> None:
        """Stores a set that comes decoded: (file, scan, split or None), in its own order."""
        self._clear("listed", "decided", *SCANS)
        statement = "insert into listed (pos, key, path, class, source, split) values (?, ?, ?, ?, ?, ?)"
        for block in in_blocks(enumerate(rows), READY_FILES):
            ready = []
            for pos, (file, scanned, split) in block:
                key, path, _, _, _, class_name = _listed_columns(file)
                self.base.execute(statement, (pos, key, path, class_name, source, split))
                ready.append((Pending(pos, "", None, key, 0, 0, None), scanned))
            self.keep(ready, None)

    def _clear(self, *tables: str) -> None:
        for table in tables:
            self.base.execute(f"delete from {table}")

    # ---- the scan ----

    def use_features(self, name: str) -> None:
        """Deletes features of another kind; their pictures are pending again."""
        found = self.base.execute("select value from about where key = 'features'").fetchone()
        if found != (name,):
            self._clear("features")
            self.base.execute("insert or replace into about values ('features', ?)", (name,))
            self.base.commit()

    def pending_counts(self, with_features: bool) -> tuple[int, int]:
        """Numbers of files to scan, and of all that can be opened and have a class."""
        pending = f"select count(*) {LISTED} left join features f on f.id = s.id where {_pending(with_features)}"
        return self.number(pending), self.number("select count(*) from listed where fault is null")

    def pending(self, with_features: bool) -> Iterator[Pending]:
        """Every file that is new, has changed, or lacks features."""
        columns = "l.pos, l.path, l.expected, l.key, l.bytes, l.mtime_ns, s.id"
        query = f"select {columns} {LISTED} left join features f on f.id = s.id"
        for pos, path, *rest in self.select(query, _pending(with_features)):
            yield Pending(pos, os.fsdecode(path), *rest)

    def keep(self, block: Sequence[tuple[Pending, Scanned]], features: np.ndarray | None) -> None:
        """Stores a block of files and scans, all or nothing. `features`: (N, dim) of those with a classifier input."""
        known = [(one.known,) for one, _ in block if one.known is not None]
        for table in SCANS:
            self.base.executemany(f"delete from {table} where id = ?", known)
        after = self.number("select coalesce(max(id), 0) + 1 from scanned")
        numbered = [(number, *pair) for number, pair in enumerate(block, after)]
        described = _fingerprint_columns([found for _, found in block])
        columns = [
            (*_scanned_columns(*entry), *rest, entry[2].note) for entry, rest in zip(numbered, described, strict=True)
        ]
        self.base.executemany(f"insert into scanned values (?{', ?' * 17})", columns)
        pictures = ((number, found.picture.data) for number, _, found in numbered if found.picture is not None)
        self.base.executemany("insert into pictures values (?, ?)", pictures)
        if features is not None:
            numbers = (number for number, _, found in numbered if found.classifier_input is not None)
            contents = (row.data for row in features.astype(np.float16))
            self.base.executemany("insert into features values (?, ?)", zip(numbers, contents, strict=True))
        self.base.commit()


def in_blocks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block


def file_to_key(file: str) -> bytes:
    """Keys sort as a walk that visits each folder's entries by the bytes of their names."""
    return os.fsencode(file).replace(b"/", b"\0")


def key_to_file(key: bytes) -> str:
    return os.fsdecode(key.replace(b"\0", b"/"))


def to_features(content: bytes) -> np.ndarray:
    """Stored half precision to float32 (dim,)."""
    return np.frombuffer(content, np.float16).astype(np.float32)


def remove_store(path: Path) -> None:
    for suffix in ("", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _pending(with_features: bool) -> str:
    """SQL condition on listed l, scanned s and features f."""
    lacking = "(s.reason is null and f.id is null)" if with_features else "false"
    return f"l.fault is null and (s.id is null or s.mtime_ns is null or not ({CURRENT}) or {lacking})"


def _listed_columns(file: ListedFile) -> tuple:
    path, class_name = os.fsencode(file.path), _class_bytes(file.class_name)
    return file_to_key(file.name), path, file.reason, file.bytes, file.mtime_ns, class_name


def _class_bytes(class_name: str | None) -> bytes | None:
    return None if class_name is None else os.fsencode(class_name)


def _scanned_columns(number: int, one: Pending, found: Scanned) -> tuple:
    transient = found.reason is not None and found.reason.partition(":")[0] in TRANSIENT
    sizes = (*(found.size_px or (None, None)), *(found.inner_px or (None, None)))
    mtime_ns = None if transient else one.mtime_ns  # without it the next build scans the file again
    return number, one.key, one.bytes, mtime_ns, one.expected, found.reason, found.sha256, *sizes


def _fingerprint_columns(block: Sequence[Scanned]) -> Iterator[tuple]:
    """Hash, mirrored hash, luma_low, luma_high, colours and thumb of each."""
    thumbs = [found.thumb for found in block if found.thumb is not None]
    prints = fingerprint(np.array(thumbs, np.uint8).reshape(-1, THUMB_PX, THUMB_PX, 3))
    lists = (prints.hashes.tolist(), prints.mirrored.tolist(), prints.luma.tolist())
    rows = zip(*lists, prints.colours, thumbs, strict=True)
    for found in block:
        if found.thumb is None:
            yield (None,) * 6
        else:
            value, mirrored, luma, colours, thumb = next(rows)
            yield value, mirrored, *luma, colours.data, thumb.data


def _connect(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=60)
    # Pictures are written 1.5 times as fast as into pages of 4 kB.
    base.executescript("pragma page_size = 16384; pragma journal_mode = delete; pragma synchronous = normal")
    return base
