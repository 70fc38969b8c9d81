"""What was found out about every file of a set, kept so that it is found out once: data/sets/<set>/scan-<size>.sqlite.

`listed` is the order of the files and where they come from, made anew by every build. `scanned`, `pictures` and
`features` are the dear part: they stay valid while a file's size and time of change do, and are committed in blocks,
so a killed build goes on where it was. `decided` is what the last build made of each file (decide.py).
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np

from harness.errors import UserError

Split = Literal["train", "valid"]
READ_ROWS = 512  # of a long answer at a time
LISTED = "from listed l left join scanned s on s.key = l.key"


def file_to_key(file: str) -> bytes:
    """Sorts as a walk does that takes each folder's entries by the bytes of their names."""
    return os.fsencode(file).replace(b"/", b"\0")


def key_to_file(key: bytes) -> str:
    return os.fsdecode(key.replace(b"\0", b"/"))


class Store:
    """One set at one size, to look at: `with Store.read(places.scan) as store`. store_writer.py fills it."""

    def __init__(self, path: Path, base: sqlite3.Connection, img_size: Sequence[int]) -> None:
        self.path, self.base = path, base
        self.picture_shape = (*img_size, 3)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The store that a build has left, to look at. UserError when there is none."""
        if not path.is_file():
            raise UserError(f"{path}: not there, allowed a set that was built, try `make dataset`")
        try:
            base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60, check_same_thread=False)
            settings = json.loads(base.execute("select value from about where key = 'settings'").fetchone()[0])
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); make it anew with --rescan (make: RESCAN=1)") from error
        return cls(path, base, settings["img_size"])

    def count(self) -> int:
        """Files of the set."""
        return self.base.execute("select count(*) from listed").fetchone()[0]

    def readable_count(self) -> int:
        """Those that are no link, pipe or the like, and have a class."""
        return self.base.execute("select count(*) from listed where fault is null").fetchone()[0]

    def picture(self, file: str) -> np.ndarray | None:
        """uint8 (H, W, 3) at the set's size; None where the file could not be used."""
        query = "select picture from pictures join scanned using (id) where key = ?"
        found = self.base.execute(query, (file_to_key(file),)).fetchone()
        return None if found is None else self.to_picture(found[0])

    def features(self, files: Sequence[str]) -> np.ndarray:
        """float32 (N, dim) of these files; zeros for one that has none."""
        found = np.zeros((len(files), self.feature_dim()), np.float32)
        query = "select features from features join scanned using (id) where key = ?"
        for number, file in enumerate(files):
            answer = self.base.execute(query, (file_to_key(file),)).fetchone()
            if answer is not None:
                found[number] = to_features(answer[0])
        return found

    def feature_blocks(self, rows: int = 1024) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions in the listing (N,), float32 (N, dim)), for all that have features, in order."""
        query = f"select l.pos, f.features {LISTED} join features f on f.id = s.id"
        after = -1
        while block := self.base.execute(f"{query} where l.pos > ? order by l.pos limit {rows}", (after,)).fetchall():
            after = block[-1][0]
            yield np.array([pos for pos, _ in block]), np.stack([to_features(content) for _, content in block])

    def feature_dim(self) -> int:
        found = self.base.execute("select features from features limit 1").fetchone()
        return 0 if found is None else len(found[0]) // 2

    # ---- what the last build decided ----

    def kept(self) -> Iterator[tuple[Split, str, np.ndarray, bool]]:
        """(split, class name, uint8 (H, W, 3), whether it is mirrored in the set) of every kept file, in order."""
        query = f"select l.pos, d.split, l.class, d.mirrored, p.picture {LISTED} join decided d on d.pos = l.pos"
        for _, split, class_name, mirrored, content in self.select(
            f"{query} join pictures p on p.id = s.id", "d.verdict = 'keep'", rows=64
        ):
            yield split, os.fsdecode(class_name), self.to_picture(content), bool(mirrored)

    def kept_count(self) -> int:
        return self.base.execute("select count(*) from decided where verdict = 'keep'").fetchone()[0]

    def splits(self) -> list[Split]:
        """Those that have a picture: train, valid."""
        return [
            split
            for (split,) in self.base.execute("select distinct split from decided where split not null order by 1")
        ]

    def dropped(self) -> dict[str, int]:
        """Slug → files."""
        query = """select substr(reason, 1, instr(reason || ':', ':') - 1) as slug, count(*) from decided
            where verdict = 'drop' group by slug order by slug"""
        return dict(self.base.execute(query).fetchall())

    def about(self, key: str) -> str | None:
        found = self.base.execute("select value from about where key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def to_picture(self, content: bytes) -> np.ndarray:
        return np.frombuffer(content, np.uint8).reshape(self.picture_shape)

    def select(self, query: str, condition: str = "true", rows: int = READ_ROWS) -> Iterator[tuple]:
        """A long answer in parts, by position: no cursor stays open while rows are written.

        The query's first column is `l.pos`."""
        after, rest = -1, f"where l.pos > ? and {condition} order by l.pos limit {rows}"
        while block := self.base.execute(f"{query} {rest}", (after,)).fetchall():
            yield from block
            after = block[-1][0]

    def close(self) -> None:
        self.base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def to_features(content: bytes) -> np.ndarray:
    """As kept, in half precision, to float32 (dim,)."""
    return np.frombuffer(content, np.float16).astype(np.float32)
