"""Filling a scan store: the listing, what scans found, in blocks; by the one process that holds the set's lock."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from datasets.scan.fingerprints import THUMB_PX, fingerprint
from datasets.scan.scan import Scanned
from datasets.scan.store import LISTED, Store, file_to_key
from harness.cli import say

SCHEMA_VERSION = 2
TABLES = """
create table about (key text primary key, value text);
create table listed (pos integer primary key, key blob not null unique, path blob, fault text, bytes integer,
    mtime_ns integer, expected text, class blob, source text, specs text, url text, page text, license text,
    author text, split text);
create table scanned (id integer primary key, key blob not null unique, bytes integer, mtime_ns integer, expected text,
    reason text, sha256 text, width integer, height integer, inner_width integer, inner_height integer, hash integer,
    mirrored_hash integer, luma_low integer, luma_high integer, colours blob, thumb blob);
create index scanned_sha256 on scanned (sha256);
create table pictures (id integer primary key, picture blob);
create table features (id integer primary key, features blob);
create table decided (pos integer primary key, verdict text, reason text, ok_score real, view text,
    view_confidence real, duplicate_of integer, decided_by text, split_key text, split text, row integer,
    mirrored integer);
"""
PASSING = ("unreadable", "timeout")  # reasons that another try may not find
# What a scan of today's file would not find otherwise.
CURRENT = "s.bytes = l.bytes and s.mtime_ns = l.mtime_ns and s.expected is l.expected"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a ledger says of a picture. `specs`: JSON."""

    file: str
    sha256: str | None
    class_name: str | None
    source: str | None
    specs: str | None
    url: str | None
    page: str | None
    license: str | None
    author: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that has to be scanned. `expected`: the sha256 it should have. `known`: what is to be forgotten of it."""

    pos: int
    path: str
    expected: str | None
    key: bytes
    bytes: int
    mtime_ns: int
    known: int | None


class StoreWriter(Store):
    """A store to write: one process at a time."""

    @classmethod
    def open(cls, path: Path, settings: dict[str, Any]) -> Self:
        """The store of these settings. One of other settings, or a damaged one, is begun anew, and told.

        `settings`: all that decides what a scan finds, with `img_size`."""
        wanted = json.dumps({"schema_version": SCHEMA_VERSION, **settings}, sort_keys=True)
        if path.exists():
            try:
                base = _connect(path)
                found = base.execute("select value from about where key = 'settings'").fetchone()
                if found is not None and found[0] == wanted:
                    return cls(path, base, settings["img_size"])
                base.close()
                say(f"{path}: was made with other settings; every file is read again")
            except sqlite3.DatabaseError as error:
                say(f"{path}: cannot be used ({error}); every file is read again")
            remove_store(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        base = _connect(path)
        base.executescript(f"begin; {TABLES}")
        base.execute("insert into about values ('settings', ?)", (wanted,))
        base.commit()
        return cls(path, base, settings["img_size"])

    # ---- the listing ----

    def list_files(self, found: Iterable[Any], source: str) -> None:
        """Takes down every `listing.Found`, whatever their order, in place of the old listing."""
        self.base.execute(
            """create temp table if not exists found (key blob primary key, path blob, fault text, bytes integer,
            mtime_ns integer, class blob) without rowid"""
        )
        self.base.execute("delete from temp.found")
        statement = "insert or replace into temp.found values (?, ?, ?, ?, ?, ?)"
        self.base.executemany(statement, map(_found_columns, found))
        self.base.execute("delete from listed")
        self.base.execute("delete from decided")
        self.base.execute(
            """insert into listed (pos, key, path, fault, bytes, mtime_ns, class, source)
            select row_number() over (order by key) - 1, key, path, fault, bytes, mtime_ns, class, ? from temp.found""",
            (source,),
        )
        self.base.execute("delete from temp.found")
        self.base.commit()

    def join_origins(self, lines: Iterable[tuple[str, Origin | None]], folder: Path) -> None:
        """Adds what a ledger says, (address, origin) in its order; the last line of an address counts."""
        self.base.execute(
            """create temp table if not exists origins (address text primary key, key blob, expected text, class text,
            source text, specs text, url text, page text, license text, author text)"""
        )
        self.base.execute("delete from temp.origins")
        rows = ((address, *_origin_columns(origin)) for address, origin in lines)
        self.base.executemany(f"insert or replace into temp.origins values (?{', ?' * 9})", rows)
        self.base.execute("create index if not exists temp.origins_key on origins (key, class is null, address)")
        self.base.execute(
            """insert into listed (pos, key, path, fault) select (select count(*) from listed) - 1 +
            row_number() over (order by key), key, null, 'unreadable: the ledger has it, the folder has not'
            from (select distinct key from temp.origins where key not null and key not in (select key from listed))"""
        )
        self.base.execute(
            """update listed set (expected, class, source, specs, url, page, license, author) =
            (select expected, cast(class as blob), coalesce(o.source, listed.source), specs, url, page, license, author
            from temp.origins o where o.key = listed.key order by class is null, address limit 1)
            where key in (select key from temp.origins)"""
        )
        self.base.execute("drop table temp.origins")
        self._sort_positions()
        self.base.commit()

    def _sort_positions(self) -> None:
        """In the order of the keys again, by way of numbers that nobody has."""
        self.base.execute(
            """create temp table places as select pos, row_number() over (order by key) - 1 as place from listed"""
        )
        self.base.execute("create index temp.places_pos on places (pos)")
        self.base.execute("update listed set pos = -1 - (select place from temp.places p where p.pos = listed.pos)")
        self.base.execute("update listed set pos = -1 - pos")
        self.base.execute("drop table temp.places")

    def settle_classes(self, only_class: str, others: str | None, fault: str | None) -> list[str]:
        """The names of the classes that have a file, in order; `only_class` where there are none.

        Files without a class become those of the class `others`, or get this fault."""
        query = "select distinct class from listed where fault is null and class not null order by class"
        names = [name for (name,) in self.base.execute(query)]
        if not names:
            self.base.execute("update listed set class = ?", (os.fsencode(only_class),))
            names = [os.fsencode(only_class)]
        elif others is not None:
            lacking = self.base.execute("update listed set class = ? where class is null", (os.fsencode(others),))
            names = sorted({*names, os.fsencode(others)}) if lacking.rowcount else names
        else:
            self.base.execute("update listed set fault = coalesce(fault, ?) where class is null", (fault,))
            self.base.execute("update listed set class = null where class not in (select distinct class from listed "
                              "where fault is null)")  # fmt: skip
        self.base.commit()
        return [os.fsdecode(name) for name in names]

    def forget_gone(self) -> None:
        """What is not listed any more goes, and what is not needed (a scan of a file that has changed) as well."""
        gone = f"select s.id from scanned s left join listed l on s.key = l.key where l.key is null or not ({CURRENT})"
        self.base.execute("create temp table gone as " + gone)
        for table in ("pictures", "features", "scanned"):
            self.base.execute(f"delete from {table} where id in (select id from temp.gone)")
        self.base.execute("drop table temp.gone")
        self.base.commit()

    def take_ready(self, rows: Iterable[tuple[Any, Scanned, str | None]], source: str) -> None:
        """(`listing.Found`, what it is, its split or None) of a set that comes decoded, in its own order."""
        for table in ("listed", "decided", "scanned", "pictures", "features"):
            self.base.execute(f"delete from {table}")
        block = []
        for pos, (found, scanned, split) in enumerate(rows):
            key, path, _, _, _, class_name = _found_columns(found)
            statement = "insert into listed (pos, key, path, class, source, split) values (?, ?, ?, ?, ?, ?)"
            self.base.execute(statement, (pos, key, path, class_name, source, split))
            block.append((Pending(pos, "", None, key, 0, 0, None), scanned))
            if len(block) == 64:
                self.keep(block, None)
                block = []
        self.keep(block, None)

    # ---- the scan ----

    def use_features(self, name: str) -> None:
        """Features of another kind go; pictures that have none are pending again."""
        if self.about("features") != name:
            self.base.execute("delete from features")
            self.base.execute("insert or replace into about values ('features', ?)", (name,))
            self.base.commit()

    def pending(self, with_features: bool) -> Iterator[Pending]:
        """Every file that is new, has changed, or lacks the features that are asked for."""
        columns = "l.pos, l.path, l.expected, l.key, l.bytes, l.mtime_ns, s.id"
        query = f"select {columns} {LISTED} left join features f on f.id = s.id"
        for pos, path, *rest in self.select(query, self._pending(with_features)):
            yield Pending(pos, os.fsdecode(path), *rest)

    def pending_count(self, with_features: bool) -> int:
        query = f"select count(*) {LISTED} left join features f on f.id = s.id where {self._pending(with_features)}"
        return self.base.execute(query).fetchone()[0]

    def _pending(self, with_features: bool) -> str:
        lacking = "(s.reason is null and f.id is null)" if with_features else "false"
        return f"l.fault is null and (s.id is null or s.mtime_ns is null or not ({CURRENT}) or {lacking})"

    def keep(self, block: Sequence[tuple[Pending, Scanned]], features: np.ndarray | None) -> None:
        """One block: files and what they are; `features` (N, dim) of those that have a look. All or nothing."""
        known = [(one.known,) for one, _ in block if one.known is not None]
        for table in ("pictures", "features", "scanned"):
            self.base.executemany(f"delete from {table} where id = ?", known)
        after = self.base.execute("select coalesce(max(id), 0) + 1 from scanned").fetchone()[0]
        numbered = [(number, *pair) for number, pair in enumerate(block, after)]
        described = _described([found for _, found in block])
        columns = [(*_scanned_columns(*entry), *rest) for entry, rest in zip(numbered, described, strict=True)]
        self.base.executemany(f"insert into scanned values (?{', ?' * 16})", columns)
        pictures = ((number, found.picture.data) for number, _, found in numbered if found.picture is not None)
        self.base.executemany("insert into pictures values (?, ?)", pictures)
        if features is not None:
            looked = (number for number, _, found in numbered if found.look is not None)
            contents = (row.data for row in features.astype(np.float16))
            self.base.executemany("insert into features values (?, ?)", zip(looked, contents, strict=True))
        self.base.commit()


def _scanned_columns(number: int, one: Pending, found: Scanned) -> tuple:
    # What may be otherwise next time is tried again by the next build.
    passing = found.reason is not None and found.reason.partition(":")[0] in PASSING
    sizes = (*(found.size_px or (None, None)), *(found.inner_px or (None, None)))
    mtime_ns = None if passing else one.mtime_ns
    return number, one.key, one.bytes, mtime_ns, one.expected, found.reason, found.sha256, *sizes


def _described(block: Sequence[Scanned]) -> Iterator[tuple]:
    """Hash, mirrored hash, luma_low, luma_high, colours and thumb of each."""
    thumbs = [found.thumb for found in block if found.thumb is not None]
    said = fingerprint(np.array(thumbs, np.uint8).reshape(-1, THUMB_PX, THUMB_PX, 3))
    rows = zip(said.hashes.tolist(), said.mirrored.tolist(), said.luma.tolist(), said.colours, thumbs, strict=True)
    for found in block:
        if found.thumb is None:
            yield (None,) * 6
        else:
            value, mirrored, luma, colours, thumb = next(rows)
            yield value, mirrored, *luma, colours.data, thumb.data


def remove_store(path: Path) -> None:
    for suffix in ("", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _found_columns(found: Any) -> tuple:
    class_name = None if found.class_name is None else os.fsencode(found.class_name)
    return file_to_key(found.name), os.fsencode(found.path), found.fault, found.bytes, found.mtime_ns, class_name


def _origin_columns(origin: Origin | None) -> tuple:
    if origin is None:
        return (None,) * 9
    texts = (origin.source, origin.specs, origin.url, origin.page, origin.license, origin.author)
    return file_to_key(origin.file), origin.sha256, origin.class_name, *texts


def _connect(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=60)
    base.execute("pragma page_size = 16384")  # pictures are written 1.5 times as fast as into pages of 4 kB
    base.execute("pragma journal_mode = delete")
    base.execute("pragma synchronous = normal")
    return base
