"""One person, or several tabs, at one set: what is in it, what was decided, and the rebuild that replays it."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.clean.manual_labels import VERDICTS, VIEWS, Decision, change_decisions, read_decisions
from datasets.clinic.index import Index
from datasets.clinic.rebuild import Rebuild
from datasets.pack.recipe import Places, read_summary
from datasets.report.counts import threshold_of
from datasets.report.thumbnails import read_thumbnail
from harness.images.decode import PictureError

DECODERS = 4  # at once: a photo of 50 megapixels takes 150 MB while it is made small


class ChoiceError(Exception):
    """A choice that cannot be taken; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


@dataclass(frozen=True)
class Built:
    """A set as a build left it. `threshold`: of ok_score. `number` counts the rebuilds of a session; `changed`: row →
    what the build before had said of it; `verdicts` and `views`: how many of them differ."""

    index: Index
    threshold: float
    number: int = 0
    changed: dict[int, dict[str, str]] = field(default_factory=dict)
    verdicts: int = 0
    views: int = 0

    @classmethod
    def read(cls, places: Places, **said: Any) -> "Built":
        threshold = threshold_of(read_summary(places.summary))
        return cls(Index(places.manifest), 0.5 if threshold is None else threshold, **said)


class Session:
    """`places`: of the set; `folder`: where the manifest's files lie; `command`: what builds it anew;
    `replayed`: the last build has seen all decisions that are there now.

    Attributes: built; rebuild (the one under way or the last one, None = none yet).
    """

    def __init__(
        self, name: str, places: Places, decisions: Path, folder: Path, command: list[str], replayed: bool
    ) -> None:
        self.name, self.places, self.decisions_path, self.folder, self.command = (
            name,
            places,
            decisions,
            folder,
            command,
        )
        self.built = Built.read(places)
        self.rebuild: Rebuild | None = None
        self._lock, self._decoders = threading.Lock(), threading.BoundedSemaphore(DECODERS)
        self._replayed = self.decisions() if replayed else {}

    # ---- choices ----

    def decisions(self) -> dict[str, Decision]:
        """As the file says now: others may write it, too."""
        return read_decisions(self.decisions_path, tell=lambda text: None)

    def waiting(self, decisions: dict[str, Decision]) -> int:
        """How many choices differ from those that the last build replayed."""
        keys = {*decisions, *self._replayed}
        return sum(_said(decisions.get(key)) != _said(self._replayed.get(key)) for key in keys)

    def choose(
        self, sha256: str, verdict: str | None, view: str | None, expect: tuple[str, str] | None = None
    ) -> tuple[tuple[str, str], tuple[str, str], dict[str, Decision]]:
        """Takes a choice down at once: (what was said before, what is said now, all decisions).

        None leaves a part as it is, "" takes it back. With `expect`, only if (verdict, view) is that now.
        """
        if verdict and verdict not in VERDICTS:
            raise ChoiceError(422, f"verdict: found {verdict[:40]!r}, allowed {', '.join(VERDICTS)} or nothing")
        if view and view not in VIEWS:
            raise ChoiceError(422, f"view: found {view[:40]!r}, allowed {', '.join(VIEWS)} or nothing")
        line = self.line(sha256)
        with self._lock:
            old = self.decisions().get(sha256)
            before = _said(old)
            if expect is not None and before != expect:
                raise ChoiceError(409, "this picture was decided elsewhere in the meantime; nothing was changed")
            now = (before[0] if verdict is None else verdict, before[1] if view is None else view)
            note = old.note if old else ""
            new = Decision(line["file"], sha256, *now, note) if any((*now, note)) else None
            return before, now, change_decisions(self.decisions_path, {sha256: new})

    def line(self, sha256: str) -> dict[str, Any]:
        """The manifest's line of a picture; of equal files the one that was kept. ChoiceError for an unknown one."""
        index = self.built.index
        for line in index.lines(index.find_sha(sha256)[:1].tolist()):
            if line["sha256"] == sha256:
                return line
        raise ChoiceError(404, "no picture of this set has this sha256")

    def mine(self, decisions: dict[str, Decision]) -> np.ndarray:
        """Rows of what was decided, in the order of the decisions."""
        found = [self.built.index.find_sha(sha256)[:1] for sha256 in decisions]
        return np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64)

    def picture(self, sha256: str, height_px: int, width_px: int) -> bytes:
        """JPEG. ChoiceError when there is no such picture, or its file has gone or changed."""
        line = self.line(sha256)
        try:
            with self._decoders:
                return read_thumbnail(self.folder, line, height_px, width_px)
        except PictureError as error:
            raise ChoiceError(404, error.reason) from error

    # ---- rebuild ----

    def start_rebuild(self) -> None:
        """Replays the decisions in a process of its own. ChoiceError while one is under way."""
        with self._lock:
            if self.rebuild is not None and self.rebuild.running:
                raise ChoiceError(409, "a rebuild is under way")
            decisions = self.decisions()
            self.rebuild = Rebuild(self.command, lambda: self._take_over(decisions))

    def _take_over(self, decisions: dict[str, Decision]) -> None:
        """The rebuild has ended well: what it left is what is shown from now on."""
        before, built = self.built.index, Built.read(self.places, number=self.built.number + 1)
        index = built.index
        rows, old_rows = _changed_rows(before, index)
        verdicts = int((index.kept[rows] != before.kept[old_rows]).sum())
        views = int((index.view[rows] != before.view[old_rows]).sum())
        was = {row: _brief(before, old) for row, old in zip(rows.tolist(), old_rows.tolist(), strict=True)}
        built = replace(built, changed=was, verdicts=verdicts, views=views)
        with self._lock:
            self.built = built
            self._replayed = decisions

    def close(self) -> None:
        if self.rebuild is not None:
            self.rebuild.stop()


def _changed_rows(before: Index, now: Index) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `now` whose verdict differs, or the view of a kept picture, and their rows in `before`.

    Files that came in the meantime have changed nothing."""
    old = np.array([before.find_name(key) for key in now.names.tolist()])
    rows = np.flatnonzero(old >= 0)
    old = old[rows]
    matters = now.kept[rows] | before.kept[old]
    differs = (now.kept[rows] != before.kept[old]) | (matters & (now.view[rows] != before.view[old]))
    return rows[differs], old[differs]


def _brief(index: Index, row: int) -> dict[str, Any]:
    return {
        "verdict": "keep" if index.kept[row] else "drop",
        "slug": index.reasons.names[index.reason[row]] if index.reason[row] >= 0 else "",
        "view": VIEWS[index.view[row]] if index.view[row] >= 0 else "",
    }


def _said(decision: Decision | None) -> tuple[str, str]:
    return (decision.verdict, decision.view) if decision else ("", "")
