"""Finds pictures in a manifest by what was said of them: some sixty bytes a line in memory, the rest when shown."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.clean.manual_labels import VIEWS
from datasets.clean.reasons import slug_of
from harness.errors import UserError

JUDGES = ("rule", "model", "person")
NO_KEY = 0


class Keys:
    """Rows by a 64-bit key of what they hold."""

    def __init__(self, keys: Sequence[int]) -> None:
        values = np.array(keys, np.uint64)
        self._rows = np.argsort(values, kind="stable")
        self._ordered = values[self._rows]

    def rows_of(self, key: int) -> np.ndarray:
        wanted = np.uint64(key)
        first, end = (int(np.searchsorted(self._ordered, wanted, side)) for side in ("left", "right"))
        return self._rows[first:end]


class Codes:
    """Numbers for names, in the order in which they appear."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def of(self, name: str | None) -> int:
        """-1 for no name."""
        if not name:
            return -1
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def find(self, name: str) -> int:
        """-2, which no row has, for a name that never appeared."""
        return self._numbers.get(name, -2)


class Index:
    """A manifest, opened. Rows are the numbers of its lines, from 0.

    Attributes, each (N,): kept bool; reason, view, class_, source int (codes, -1 = none); score, confidence float
    (nan = none); judge (index into JUDGES); shown bool (its bytes are known); original (row of the copy that counts,
    -1 = no copy); names list of keys that tell files apart.
    """

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self.reasons, self.classes, self.sources = Codes(), Codes(), Codes()
        columns: list[tuple] = []
        ends, copies = [0], {}
        try:
            # Kept open: when a rebuild puts another in its place, this index still reads the one that it knows.
            self._stream = open(manifest, "rb")
            for row, text in enumerate(self._stream):
                line = json.loads(text)
                columns.append(self._numbers(line))
                ends.append(ends[-1] + len(text))
                if line.get("duplicate_of"):
                    copies[row] = line["duplicate_of"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{manifest}: cannot be read ({error}); build the set again with `make dataset`") from error
        if not columns:
            raise UserError(f"{manifest}: is empty; build the set again with `make dataset`")
        self.count, self._ends = len(columns), np.array(ends)
        kept, reason, view, class_, source, judge, score, confidence, sha, name = zip(*columns, strict=True)
        self.kept, self.judge, self.shown = np.array(kept, bool), np.array(judge, np.int8), np.array(sha) != NO_KEY
        self.reason, self.view = np.array(reason, np.int16), np.array(view, np.int8)
        self.class_, self.source = np.array(class_, np.int32), np.array(source, np.int32)
        self.score, self.confidence = np.array(score, np.float32), np.array(confidence, np.float32)
        self._by_sha, self._by_name, self.names = Keys(sha), Keys(name), np.array(name, np.uint64)
        self.original = np.full(self.count, -1)
        for row, file in copies.items():
            self.original[row] = self.find_name(name_key(file))

    def _numbers(self, line: dict[str, Any]) -> tuple:
        view = VIEWS.index(line["view"]) if line.get("view") in VIEWS else -1
        return (
            line["verdict"] == "keep",
            self.reasons.of(slug_of(line)),
            view,
            self.classes.of(line.get("class")),
            self.sources.of(line.get("source")),
            JUDGES.index(line["decided_by"]) if line.get("decided_by") in JUDGES else 0,
            _number(line.get("ok_score")),
            _number(line.get("view_confidence")),
            _sha_key(line["sha256"]) if line.get("sha256") else NO_KEY,
            name_key(line["file"]),
        )

    def lines(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The manifest's lines of these rows, read anew."""
        file, ends = self._stream.fileno(), self._ends
        return [json.loads(os.pread(file, int(ends[row + 1] - ends[row]), int(ends[row]))) for row in rows]

    def find_sha(self, sha256: str) -> np.ndarray:
        """All rows of a picture, the kept one first: several files may be equal."""
        rows = self._by_sha.rows_of(_sha_key(sha256))
        return rows[np.argsort(~self.kept[rows], kind="stable")]

    def find_name(self, key: int) -> int:
        """The row of the file with this key, -1 for none."""
        rows = self._by_name.rows_of(key)
        return int(rows[0]) if len(rows) else -1


def name_key(file: str) -> int:
    return int.from_bytes(hashlib.blake2b(file.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _sha_key(sha256: str) -> int:
    return int(sha256[:16], 16)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
