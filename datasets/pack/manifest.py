"""manifest.jsonl: one line for every input file, written as it is counted; never all of it in memory."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.scan.store import LISTED, Store, key_to_file
from harness.storage.atomic import atomic_file

COUNTED_NAMES = 1000  # of sources and licences are counted by name; strangers may have written more
COLUMNS = """l.pos, l.key, d.verdict, coalesce(d.reason, ''), d.ok_score, d.view, d.view_confidence, s.sha256, l.source,
    l.class, l.specs, d.split, d.row, s.width, s.height, (select key from listed where pos = d.duplicate_of),
    d.decided_by, l.url, l.page, l.license, l.author, d.mirrored"""


@dataclass
class Counts:
    """What a manifest's lines come to."""

    files: int = 0
    splits: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    classes: Counter = field(default_factory=Counter)
    views: Counter = field(default_factory=Counter)
    decided_by: Counter = field(default_factory=Counter)
    sources: Counter = field(default_factory=Counter)
    licenses: Counter = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        self.files += 1
        self.decided_by[line["decided_by"]] += 1
        if line["verdict"] == "drop":
            self.dropped[line["reason"].partition(":")[0]] += 1  # without what is particular to one file
            return
        self.splits[line["split"]] += 1
        self.classes[line["class"]] += 1
        if line["view"] is not None:
            self.views[line["view"]] += 1
        for names, name in ((self.sources, line["source"]), (self.licenses, line["license"])):
            if name is not None:
                names[name if name in names or len(names) < COUNTED_NAMES else "(others)"] += 1


def write_manifest(store: Store, path: Path) -> tuple[str, Counts]:
    """Writes it, whole or not at all; returns its sha256 and its counts."""
    digest, counts = hashlib.sha256(), Counts()
    with atomic_file(path) as stream:
        for block in _blocks(_lines(store)):
            for line in block:
                counts.add(line)
            content = "".join(json.dumps(line) + "\n" for line in block).encode()
            digest.update(content)
            stream.write(content)
    return digest.hexdigest(), counts


def _lines(store: Store) -> Iterator[dict[str, Any]]:
    for row in store.select(f"select {COLUMNS} {LISTED} join decided d on d.pos = l.pos"):
        yield _line(row)


def _line(row: tuple) -> dict[str, Any]:
    (_, key, verdict, reason, score, view, confidence, sha256, source, class_name, specs, split, number, width, height,
     copy, decided_by, url, page, license_, author, mirrored) = row  # fmt: skip
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
    }


def _blocks(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    block = []
    for line in lines:
        block.append(line)
        if len(block) == 256:
            yield block
            block = []
    yield block
