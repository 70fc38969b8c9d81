"""The section about brands: a table with pictures of each evaluated run, and how far a brand is kept along the dial.

In: metrics.json, and the grids of `evaluate` in runs/<name>/brands/. Out: dicts for the template.
"""

from pathlib import Path
from typing import Any

from blend.report.reading import dict_at, number_at, numbers_at, picture_or_none, text_at
from blend.report.run_facts import ReportData, RunFacts, grid_tiles
from harness.web.charts import CONCEPT, Line, lines_chart
from harness.web.embed import picture_uri

PICTURE_PX, MAX_ROWS = 96, 100
COLUMNS = ("top1", "real_top1", "top5", "diversity", "real_diversity", "copies", "kid")
SUMMARY = ("top1", "top5", "real_accuracy", "real_accuracy_top5", "chance", "chance_top5", "kid_pooled", "copies")


def brands(data: ReportData) -> list[dict[str, Any]]:
    """A card for each run whose brands were evaluated."""
    runs = [("ordinary", data.base), ("concept", data.tuned)]
    cards = [_card(kind, facts) for kind, facts in runs if facts is not None]
    return [card for card in cards if card is not None]


def _card(kind: str, facts: RunFacts) -> dict[str, Any] | None:
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
