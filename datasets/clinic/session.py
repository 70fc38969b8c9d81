"""State of the clinic: the built set, a person's choices from any number of tabs, and the rebuild that applies them."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.exceptions import HTTPException

from datasets.clean.manual_labels import VERDICTS, VIEWS, Decision, change_decisions, read_decisions
from datasets.clean.reasons import heading_of
from datasets.clinic.rebuild import Rebuild
from datasets.clinic.sheets import view_name
from datasets.pack.manifest import Manifest
from datasets.pack.recipe import SetPlan, read_summary, threshold_of
from datasets.report.thumbnails import read_thumbnail
from harness.images.decode import PictureError

DECODERS = 4  # at once: a photo of 50 megapixels needs 150 MB


class ChoiceError(HTTPException):
    """A refused request, with its HTTP status and reason."""


@dataclass(frozen=True)
class Built:
    """A set as built. `threshold`: of ok_score. `number`: of the rebuild, 0 = none. `changed`: position in the manifest
    → label before the rebuild. `verdicts`, `views`: how many changed."""

    manifest: Manifest
    threshold: float
    number: int = 0
    changed: dict[int, str] = field(default_factory=dict)
    verdicts: int = 0
    views: int = 0

    @classmethod
    def read(cls, plan: SetPlan) -> "Built":
        threshold = threshold_of(read_summary(plan.summary))
        return cls(Manifest(plan.manifest), 0.5 if threshold is None else threshold)


class Session:
    """`command`: builds the set again.

    Attributes: built; rebuild (the current or last one, None = none yet).
    """

    def __init__(self, plan: SetPlan, command: list[str]) -> None:
        self.plan, self.command = plan, command
        self.folder = plan.pictures_folder()
        self.built = Built.read(plan)
        self.rebuild: Rebuild | None = None
        self._lock, self._decoders = threading.Lock(), threading.BoundedSemaphore(DECODERS)
        replayed = read_summary(plan.summary)["recipe"].get("decisions_sha256")
        self._replayed = self.decisions() if replayed == plan.recipe.get("decisions_sha256") else {}

    # ---- choices ----

    def decisions(self) -> dict[str, Decision]:
        """The file's current content: others may write it, too."""
        return read_decisions(self.plan.decisions_path, warn=lambda text: None)

    def waiting(self, decisions: dict[str, Decision]) -> int:
        """Number of choices that the last build has not applied."""
        keys = {*decisions, *self._replayed}
        return sum(_choice(decisions.get(key)) != _choice(self._replayed.get(key)) for key in keys)

    def choose(
        self, sha256: str, verdict: str | None, view: str | None, expect: tuple[str, str] | None = None
    ) -> tuple[tuple[str, str], tuple[str, str], dict[str, Decision]]:
        """Saves a choice at once; returns ((verdict, view) before, now, all decisions).

        None leaves a part unchanged, "" deletes it. With `expect`, only if the current (verdict, view) is this.
        """
        if verdict and verdict not in VERDICTS:
            raise ChoiceError(422, f"verdict: found {verdict[:40]!r}, allowed {', '.join(VERDICTS)} or nothing")
        if view and view not in VIEWS:
            raise ChoiceError(422, f"view: found {view[:40]!r}, allowed {', '.join(VIEWS)} or nothing")
        line = self.line(sha256)
        with self._lock:
            old = self.decisions().get(sha256)
            before = _choice(old)
            if expect is not None and before != expect:
                raise ChoiceError(409, "another tab has changed this picture in the meantime; nothing was changed")
            now = (before[0] if verdict is None else verdict, before[1] if view is None else view)
            note = old.note if old else ""
            new = Decision(line["file"], sha256, *now, note) if any((*now, note)) else None
            return before, now, change_decisions(self.plan.decisions_path, {sha256: new})

    def line(self, sha256: str) -> dict[str, Any]:
        """The manifest's line of a picture, the kept one of identical files. ChoiceError for an unknown sha256."""
        for line in self.built.manifest.examples("sha256 = :sha256", 1, "not kept", sha256=sha256):
            return line
        raise ChoiceError(404, "no picture of this set has this sha256")

    def mine(self, decisions: dict[str, Decision]) -> list[int]:
        """Positions of the decided pictures, in the order of the decisions."""
        query = "select pos from manifest where sha256 = :sha256 order by not kept, pos limit 1"
        return [pos for sha256 in decisions for (pos,) in self.built.manifest.rows(query, sha256=sha256)]

    def picture(self, sha256: str, height_px: int, width_px: int) -> bytes:
        """JPEG. ChoiceError when the picture is unknown, or its file is missing or changed."""
        line = self.line(sha256)
        try:
            with self._decoders:
                return read_thumbnail(self.folder, line, height_px, width_px)
        except PictureError as error:
            raise ChoiceError(404, error.reason) from error

    # ---- rebuild ----

    def start_rebuild(self) -> None:
        """Applies the decisions in a child process. ChoiceError while a rebuild is running."""
        with self._lock:
            if self.rebuild is not None and self.rebuild.running:
                raise ChoiceError(409, "a rebuild is running")
            decisions = self.decisions()
            self.rebuild = Rebuild(self.command, lambda: self._on_success(decisions))

    def _on_success(self, decisions: dict[str, Decision]) -> None:
        """Shows the rebuilt set from now on."""
        built = Built.read(self.plan)
        changes = built.manifest.changes_since(self.built.manifest)
        built = replace(
            built,
            number=self.built.number + 1,
            changed={pos: _outcome(*before) for pos, _, _, *before in changes},
            verdicts=sum(kept != was_kept for _, kept, _, was_kept, _, _ in changes),
            views=sum(view != was_view for _, _, view, _, was_view, _ in changes),
        )
        with self._lock:
            self.built = built
            self._replayed = decisions

    def close(self) -> None:
        if self.rebuild is not None:
            self.rebuild.stop()


def _outcome(kept: int, view: str | None, slug: str | None) -> str:
    if kept:
        return view_name(view or "")
    return f"{heading_of(slug or '')}, {view_name(view)}" if view else heading_of(slug or "")


def _choice(decision: Decision | None) -> tuple[str, str]:
    return (decision.verdict, decision.view) if decision else ("", "")
