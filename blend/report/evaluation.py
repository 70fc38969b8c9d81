"""The section with a run's evaluation: figures, what they compare, and the distance over the steps.

In: the key `evaluate` of metrics.json and metrics.jsonl. Out: dicts for the template.
"""

from typing import Any

from blend.report.reading import dict_at, finite, number_at, text_at
from blend.report.run_facts import RunFacts
from harness.web.charts import CONCEPT, ORDINARY, Line, lines_chart

# Figures by the beginning of their names; the rest is the extractor.
MEANINGS = {
    "fid": "Fréchet Inception distance; 0 = the same",
    "fd": "Fréchet distance of the features; 0 = the same",
    "kid": "kernel distance of the features; about 0 = the same",
    "is": "Inception score; from 1, higher is better",
    "f8": "F 8: variety, 0 to 1",
    "f1_8": "F 1/8: quality, 0 to 1",
    "precision": "share of generated pictures among real ones",
    "recall": "share of real pictures among generated ones",
    "density": "density of real pictures around generated ones; 1 = as around real ones",
    "coverage": "share of real pictures with a generated one nearby",
}
# Equal for all points of a curve.
CURVE_KEYS = ("extractor", "extractor_sha256", "resizer", "data_sha256", "split", "count", "real_count")
SPLITS = {"valid": "held-out", "train": "training"}


def evaluation(base: RunFacts, tuned: RunFacts | None) -> list[dict[str, Any]]:
    """A card for each run that was evaluated."""
    runs = (("ordinary", base, ORDINARY), ("concept", tuned, CONCEPT))
    cards = [_card(kind, facts, colour) for kind, facts, colour in runs if facts is not None]
    return [card for card in cards if card is not None]


def _card(kind: str, facts: RunFacts, colour: str) -> dict[str, Any] | None:
    latest = facts.evaluation
    if not isinstance(latest.get("figures"), dict):
        return None
    figures, extractor = latest["figures"], text_at(latest, "extractor")
    rows = [(name, _meaning(name, extractor), finite(value)) for name, value in figures.items()]
    return {
        "kind": kind,
        "rows": rows,
        "left_out": list(dict_at(latest, "left_out").items()),
        "count": number_at(latest, "count"),
        "real_count": number_at(latest, "real_count"),
        "real": f"{SPLITS.get(text_at(latest, 'split'), '')} pictures of {text_at(latest, 'set')}".strip(),
        "extractor": extractor,
        "step": number_at(latest, "step"),
        "remark": text_at(latest, "remark"),
        "measured_on": text_at(latest, "measured_on"),
        "svg": _curve(kind, facts, colour),
    }


def _curve(kind: str, facts: RunFacts, colour: str) -> str | None:
    """The distance over the steps, if it was measured in the same way at several."""
    latest = facts.evaluation
    name = next(
        (name for name in latest["figures"] if _beginning(name, text_at(latest, "extractor")) in ("fid", "fd")), ""
    )
    points: dict[float, float] = {}
    for row in facts.evaluations:
        # Not by a dotted path: the name of a figure may contain a dot.
        value, step = finite(dict_at(row, "figures").get(name)), number_at(row, "step")
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
