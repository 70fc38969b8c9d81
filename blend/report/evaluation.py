"""The sections with evaluations: figures and the distance over the steps; brands, with pictures and along the dial.

In: metrics.json and metrics.jsonl, and the grids of `evaluate` in runs/<name>/brands/. Out: dicts for the template.
"""

from pathlib import Path
from typing import Any

from blend.report.reading import dict_at, finite, number_at, numbers_at, picture_or_none, text_at
from blend.report.run_facts import ReportData, RunFacts, grid_tiles
from harness.web.charts import CONCEPT, ORDINARY, Line, lines_chart
from harness.web.embed import picture_uri

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
PICTURE_PX, MAX_ROWS = 96, 100
COLUMNS = ("top1", "real_top1", "top5", "diversity", "real_diversity", "copies", "kid")
SUMMARY = ("top1", "top5", "real_accuracy", "real_accuracy_top5", "chance", "chance_top5", "kid_pooled", "copies")


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


# ---- brands ----


def brands(data: ReportData) -> list[dict[str, Any]]:
    """A card for each run whose brands were evaluated."""
    runs = [("ordinary", data.base), ("concept", data.tuned)]
    cards = [_brands_card(kind, facts) for kind, facts in runs if facts is not None]
    return [card for card in cards if card is not None]


def _brands_card(kind: str, facts: RunFacts) -> dict[str, Any] | None:
    brands = dict_at(facts.evaluation, "brands")
    if not isinstance(brands.get("rows"), list):
        return None
    rows = [row for row in brands["rows"] if isinstance(row, dict)][:MAX_ROWS]
    folder, shown = facts.folder / "brands", round(number_at(brands, "shown") or 0)
    size = facts.config.data.img_size if facts.config is not None else (0, 0)
    drawn, real = (_strips(folder / f"{name}.png", size, shown, len(rows)) for name in ("drawn", "real"))
    return {
        "kind": kind,
        "classifier": text_at(brands, "classifier"),
        "count": number_at(brands, "count_each"),
        "copies_left_out": text_at(brands, "left_out.copies"),
        **{key: number_at(brands, key) for key in SUMMARY},
        "rows": [
            {
                "brand": text_at(row, "brand"),
                "held_out": number_at(row, "held_out"),
                "pooled": row.get("pooled") is True,
                "drawn": drawn[k],
                "real": real[k],
                **{key: number_at(row, key) for key in COLUMNS},
            }
            for k, row in enumerate(rows)
        ],
    }


def _strips(path: Path, size: tuple[int, int], shown: int, rows: int) -> list[list[str]]:
    """URIs of each brand's pictures; none if the grid is missing or of another size."""
    grid = picture_or_none(path)
    tiles = [] if grid is None or not shown or not all(size) else grid_tiles(grid, *size)
    if len(tiles) < rows * shown or not rows:
        return [[] for _ in range(rows)]
    strips = [tiles[k * shown : (k + 1) * shown] for k in range(rows)]
    return [[picture_uri(tile, PICTURE_PX) for tile in strip if (tile != 255).any()] for strip in strips]


def brand_kept(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The share of designs with their brand along the dial: a chart, and values to compare with."""
    x, kept = (numbers_at(metrics, f"blend.brand.{key}") for key in ("intensity", "kept"))
    if x is None or kept is None or len(x) != len(kept) or len(x) < 2:
        return None
    line = Line("classified as the requested brand", x, kept, CONCEPT)
    chance, real = (number_at(metrics, f"blend.brand.{key}") for key in ("chance", "real_accuracy"))
    svg = lines_chart("Brand kept along the dial", [line], "intensity", "share of designs", y_from_zero=True,
                      mark_y=chance)  # fmt: skip
    parent = number_at(metrics, "blend.brand.parent")
    return {"svg": svg, "chance": chance, "real": real, "parent": parent, "first": kept[0], "last": kept[-1]}
