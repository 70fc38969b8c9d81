"""What a page of the clinic shows of each picture."""

from typing import Any

from datasets.clean.manual_labels import Decision
from datasets.clean.reasons import detail_of, heading_of, slug_of
from datasets.clean.rules import UNDECODED
from datasets.clinic.session import Built
from datasets.clinic.sheets import view_name


def make_cards(
    built: Built, groups: list[list[int]], decisions: dict[str, Decision], sheet: str
) -> list[list[dict[str, Any]]]:
    """Cards of groups of positions in the manifest."""
    return [
        [
            _card(line, decisions, built.changed.get(pos, ""), sheet == "copies" and place == 0)
            for place, (pos, line) in enumerate(zip(group, built.manifest.lines(group), strict=True))
        ]
        for group in groups
    ]


def _card(line: dict[str, Any], decisions: dict[str, Decision], was: str, counts: bool) -> dict[str, Any]:
    """`label`, `detail`: the build's result. `verdict`, `view`: a person's, "" = none. `was`: the label before the last
    rebuild, "" if unchanged. `counts`: of a group of copies this one counts."""
    sha256 = line["sha256"] or ""
    decision = decisions.get(sha256, Decision("", ""))
    kept = line["verdict"] == "keep"
    return {
        "sha256": sha256,
        "file": line["file"],
        "kept": kept,
        "label": view_name(line.get("view") or "") if kept else heading_of(slug_of(line)),
        "detail": " · ".join(_details(line)),
        "verdict": decision.verdict,
        "view": decision.view,
        "was": was,
        "counts": counts,
        "has_picture": bool(sha256) and slug_of(line) not in UNDECODED,
        "size": f"{line['width']} × {line['height']}" if line.get("width") else "",
    }


def _details(line: dict[str, Any]) -> list[str]:
    """The reason's detail unless it repeats a figure shown here, figures, who decided, the class."""
    detail, view = detail_of(line), view_name(line.get("view") or "")
    details = [] if not detail or "ok_score" in detail or slug_of(line) == "view" else [detail]
    if line.get("view"):
        shown, confidence = "view" if line["verdict"] == "keep" else view, line.get("view_confidence")
        details.append(shown if confidence is None else f"{shown} {confidence:.2f}")
    if line.get("ok_score") is not None and line.get("decided_by") == "model":
        details.append(f"ok {line['ok_score']:.2f}")
    if line.get("decided_by") == "person":
        details.append("by a person")
    return [*details, str(line["class"])] if line.get("class") else details
