"""What a page of the clinic shows of each picture, in words."""

from dataclasses import dataclass
from typing import Any

from datasets.clean.manual_labels import Decision
from datasets.clean.reasons import detail_of, heading_of, slug_of
from datasets.clean.rules import UNDECODED
from datasets.clinic.session import Built
from datasets.clinic.sheets import view_name


@dataclass(frozen=True)
class Card:
    """One picture. `said`: what the build made of it; `verdict`, `view`: a person's, "" = none; `was`: before the last
    rebuild, "" = the same; `counts`: of a group of copies this one does."""

    sha256: str
    file: str
    kept: bool
    label: str
    detail: str
    verdict: str
    view: str
    was: str
    counts: bool
    has_picture: bool
    size: str


def make_cards(built: Built, groups: list[list[int]], decisions: dict[str, Decision], sheet: str) -> list[list[Card]]:
    return [
        [
            _card(line, decisions, built.changed.get(pos, ""), sheet == "copies" and place == 0)
            for place, (pos, line) in enumerate(zip(group, built.manifest.lines(group), strict=True))
        ]
        for group in groups
    ]


def _card(line: dict[str, Any], decisions: dict[str, Decision], was: str, counts: bool) -> Card:
    sha256 = line["sha256"] or ""
    mine = decisions.get(sha256)
    return Card(
        sha256=sha256,
        file=line["file"],
        kept=line["verdict"] == "keep",
        label=_label(line),
        detail=" · ".join(_details(line)),
        verdict=mine.verdict if mine else "",
        view=mine.view if mine else "",
        was=was,
        counts=counts,
        has_picture=bool(sha256) and slug_of(line) not in UNDECODED,
        size=f"{line['width']} × {line['height']}" if line.get("width") else "",
    )


def _label(line: dict[str, Any]) -> str:
    """In one or two words: its view where it was kept, the reason where not."""
    return view_name(line.get("view") or "") if line["verdict"] == "keep" else heading_of(slug_of(line))


def _details(line: dict[str, Any]) -> list[str]:
    """What the reason says beyond its slug, but for what stands here anyway; figures; who decided; the class."""
    detail, view = detail_of(line), view_name(line.get("view") or "")
    details = [] if not detail or "ok_score" in detail or slug_of(line) == "view" else [detail]
    if line.get("view"):
        known = line.get("view_confidence") is not None
        shown = "view" if line["verdict"] == "keep" else view
        details.append(f"{shown} {line['view_confidence']:.2f}" if known else shown)
    if line.get("ok_score") is not None and line.get("decided_by") == "model":
        details.append(f"ok {line['ok_score']:.2f}")
    if line.get("decided_by") == "person":
        details.append("by a person")
    if line.get("class"):
        details.append(str(line["class"]))
    return details
