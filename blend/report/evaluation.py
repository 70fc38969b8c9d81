"""The section with a run's evaluation: figures, what they were compared with, and how they went while it trained.

In: what `evaluate` left in metrics.json and metrics.jsonl. Out: dicts for the template.
"""

from typing import Any

from blend.report.design_rows import finite, number_at
from blend.report.run_facts import RunFacts
from harness.web.charts import CONCEPT, ORDINARY, Line, lines_chart

# Beginning of a figure's name → what it says. The rest of the name is the extractor.
MEANINGS = {
    "fid": "Fréchet Inception distance; 0 = the same",
    "fd": "Fréchet distance of the features; 0 = the same",
    "kid": "kernel distance of the features; about 0 = the same",
    "is": "Inception score; from 1, higher is better",
    "f8": "F 8: variety, 0 to 1",
    "f1_8": "F 1/8: quality, 0 to 1",
    "precision": "share of drawn pictures that lie among real ones",
    "recall": "share of real pictures that lie among drawn ones",
    "density": "how densely real pictures lie round drawn ones; 1 = as round real ones",
    "coverage": "share of real pictures with a drawn one nearby",
}
# Rows of the same curve agree in these.
CURVE_KEYS = ("extractor", "extractor_sha256", "resizer", "data_sha256", "split", "count", "real_count")
SPLITS = {"valid": "held-out", "train": "training"}


def evaluation(base: RunFacts, tuned: RunFacts | None) -> list[dict[str, Any]]:
    """A card for each run that was evaluated."""
    runs = (("ordinary", base, ORDINARY), ("concept", tuned, CONCEPT))
    cards = [_card(kind, facts, colour) for kind, facts, colour in runs if facts is not None]
    return [card for card in cards if card is not None]


def _card(kind: str, facts: RunFacts, colour: str) -> dict[str, Any] | None:
    latest = facts.evaluation
    figures = latest.get("figures")
    if not isinstance(figures, dict):
        return None
    extractor, left_out = _text(latest, "extractor"), latest.get("left_out")
    rows = [(name, _meaning(name, extractor), finite(value)) for name, value in figures.items()]
    return {
        "kind": kind,
        "rows": rows,
        "left_out": list(left_out.items()) if isinstance(left_out, dict) else [],
        "count": number_at(latest, "count"),
        "real_count": number_at(latest, "real_count"),
        "real": f"{SPLITS.get(_text(latest, 'split'), '')} pictures of {_text(latest, 'set')}".strip(),
        "extractor": extractor,
        "step": number_at(latest, "step"),
        "remark": _text(latest, "remark"),
        "measured_on": _text(latest, "measured_on"),
        "svg": _curve(kind, facts, colour),
    }


def _curve(kind: str, facts: RunFacts, colour: str) -> str | None:
    """The distance over the steps, where it was measured alike at several."""
    latest = facts.evaluation
    name = next(
        (name for name in latest["figures"] if _beginning(name, _text(latest, "extractor")) in ("fid", "fd")), ""
    )
    points: dict[float, float] = {}
    for row in facts.evaluations:
        figures, step = row.get("figures"), number_at(row, "step")
        # Not by a dotted path: names of figures may have a dot in them.
        value = finite(figures.get(name)) if isinstance(figures, dict) else None
        if step is not None and value is not None and all(row.get(key) == latest.get(key) for key in CURVE_KEYS):
            points[step] = value
    if len(points) < 2:
        return None
    steps = sorted(points)
    line = Line(name, steps, [points[step] for step in steps], colour)
    return lines_chart(f"{name} of {kind} cars over the steps", [line], "step", name, y_from_zero=True)


def _beginning(name: str, extractor: str) -> str:
    return str(name).removesuffix(f"_{extractor}")


def _meaning(name: str, extractor: str) -> str:
    return MEANINGS.get(_beginning(name, extractor), "")


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""
