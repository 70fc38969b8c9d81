"""What the report knows: one pass over the manifest, counting and choosing examples; memory does not grow with it.

Examples are those whose hash is smallest, so they are spread evenly, the same in every build of the same pictures, and
chosen by nobody.
"""

import hashlib
import heapq
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datasets.clean.reasons import slug_of, step_of

PER_REASON, PER_VIEW, PER_DUPLICATE, PER_BORDER = 12, 16, 8, 12
MOST_NAMES = 1000  # of classes, licences or hosts that are counted one by one
SIDE_EDGES_PX = (0, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ASPECT_EDGES = (0, 0.5, 0.67, 0.8, 0.95, 1.05, 1.2, 1.4, 1.6, 1.85, 2.2, 3.0)
SCORE_BINS = 20
UNSURE_VIEW = 0.6  # a view less likely than this is called unsure


class Examples:
    """The `count` lines with the smallest rank of all that were offered."""

    def __init__(self, count: int) -> None:
        self.count, self.seen = count, 0
        self._heap: list[tuple[Any, int, dict[str, Any]]] = []

    def offer(self, line: dict[str, Any], rank: float) -> None:
        self.seen += 1
        entry = (-rank, -self.seen, line)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [line for _, _, line in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]


class Names(Counter):
    """Counts names, the first MOST_NAMES one by one: what strangers wrote may be different in every line."""

    def add(self, name: str) -> None:
        self[name if name in self or len(self) < MOST_NAMES else "(others)"] += 1


@dataclass
class Tally:
    """Counts of a whole manifest, and examples of everything."""

    threshold: float | None
    files: int = 0
    train: int = 0
    valid: int = 0
    dropped: Counter = field(default_factory=Counter)  # (step, slug) → files
    views: Counter = field(default_factory=Counter)
    unsure_views: int = 0
    mirrored: int = 0
    decided_by: Counter = field(default_factory=Counter)
    classes: Names = field(default_factory=Names)
    sources: Names = field(default_factory=Names)
    licences: Names = field(default_factory=Names)
    hosts: Names = field(default_factory=Names)
    authors_known: int = 0
    sides: Counter = field(default_factory=Counter)
    aspects: Counter = field(default_factory=Counter)
    scores: Counter = field(default_factory=Counter)
    examples: dict[tuple[str, str], Examples] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return self.train + self.valid

    def add(self, line: dict[str, Any]) -> None:
        self.files += 1
        self.decided_by[line.get("decided_by") or "rule"] += 1
        if line.get("width") and line.get("height"):
            self.sides[_bin(min(line["width"], line["height"]), SIDE_EDGES_PX)] += 1
            self.aspects[_bin(line["width"] / line["height"], ASPECT_EDGES)] += 1
        step = step_of(line)
        if step is None:
            self._add_kept(line)
        else:
            slug = slug_of(line)
            self.dropped[step, slug] += 1
            kind = "duplicate" if line.get("duplicate_of") else "reason"
            self._offer((kind, slug), line, _spread(line), PER_DUPLICATE if kind == "duplicate" else PER_REASON)
        if line.get("decided_by") == "model" and line.get("ok_score") is not None:
            self._add_judged(line, line["ok_score"])

    def _add_kept(self, line: dict[str, Any]) -> None:
        if line.get("split") == "valid":
            self.valid += 1
        else:
            self.train += 1
        view = packed_view(line) or "not judged"
        self.mirrored += bool(line.get("mirrored"))
        self.views[view] += 1
        confidence = line.get("view_confidence")
        if confidence is not None and line.get("view"):
            self.unsure_views += confidence < UNSURE_VIEW
            self._offer(("border", "view"), line, confidence, PER_BORDER)
        self._offer(("view", view), line, _spread(line), PER_VIEW)
        self.classes.add(line.get("class") or "(none)")
        self.sources.add(line.get("source") or "(not recorded)")
        self.licences.add(line.get("license") or "(not recorded)")
        self.authors_known += bool(line.get("author"))
        address = line.get("page") or line.get("url")
        if address:
            self.hosts.add(_host(address))

    def _add_judged(self, line: dict[str, Any], score: float) -> None:
        self.scores[min(int(score * SCORE_BINS), SCORE_BINS - 1)] += 1
        if self.threshold is not None and (line["verdict"] == "keep") == (score >= self.threshold):
            self._offer(("border", line["verdict"]), line, abs(score - self.threshold), PER_BORDER)

    def _offer(self, group: tuple[str, str], line: dict[str, Any], rank: float, count: int) -> None:
        self.examples.setdefault(group, Examples(count)).offer(line, rank)

    def lines_of(self, kind: str, name: str) -> list[dict[str, Any]]:
        found = self.examples.get((kind, name))
        return found.lines if found else []


def packed_view(line: dict[str, Any]) -> str:
    """The view in the packed picture, which may have been mirrored; "" where nobody judged it."""
    view = line.get("view") or ""
    if not line.get("mirrored"):
        return view
    return view.replace("left", "<").replace("right", "left").replace("<", "right")


def threshold_of(summary: dict[str, Any]) -> float | None:
    """Of ok_score; None where nothing was judged."""
    return (summary.get("sorter") or {}).get("threshold")


def read_tally(manifest: Path, threshold: float | None) -> Tally:
    tally = Tally(threshold)
    for line in read_lines(manifest):
        tally.add(line)
    return tally


def read_lines(manifest: Path) -> Iterator[dict[str, Any]]:
    with open(manifest, encoding="utf-8") as stream:
        for text in stream:
            yield json.loads(text)


def find_lines(manifest: Path, names: set[str]) -> dict[str, dict[str, Any]]:
    """The lines of these files."""
    return {line["file"]: line for line in read_lines(manifest) if line["file"] in names}


def _spread(line: dict[str, Any]) -> float:
    text = f"{line.get('sha256')} {line['file']}".encode("utf-8", "surrogatepass")
    return float(int.from_bytes(hashlib.sha256(text).digest()[:6], "big"))


def _bin(value: float, edges: tuple[float, ...]) -> int:
    """Index of the last edge that is not above the value."""
    return max(k for k, edge in enumerate(edges) if value >= edge) if math.isfinite(value) else 0


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or address.partition(":")[0][:40]
    except ValueError:
        return "(no address)"
