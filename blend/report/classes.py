"""The part of the page about brands: a table with pictures of each evaluated run, and what the dial leaves of a brand.

In: metrics.json, and the grids that `evaluate` left in runs/<name>/brands/. Out: dicts for the template.
"""

from pathlib import Path
from typing import Any

from blend.report.design_rows import number_at, numbers_at, picture_or_none, text_at
from blend.report.run_facts import Found, RunFacts, grid_tiles
from harness.web.charts import CONCEPT, Line, lines_chart
from harness.web.embed import picture_uri

PICTURE_PX, MAX_ROWS = 96, 100
COLUMNS = ("top1", "real_top1", "top5", "diversity", "real_diversity", "copies", "kid")
WHOLE = ("top1", "top5", "real_accuracy", "real_accuracy_top5", "chance", "chance_top5", "kid_pooled", "copies")


def brands(found: Found) -> list[dict[str, Any]]:
    """A card for each run whose brands were evaluated."""
    runs = [("ordinary", found.base), ("concept", found.tuned)]
    cards = [_card(kind, facts) for kind, facts in runs if facts is not None]
    return [card for card in cards if card is not None]


def _card(kind: str, facts: RunFacts) -> dict[str, Any] | None:
    told = facts.evaluation.get("brands")
    if not isinstance(told, dict) or not isinstance(told.get("rows"), list):
        return None
    rows = [row for row in told["rows"] if isinstance(row, dict)][:MAX_ROWS]
    folder, shown = facts.folder / "brands", round(number_at(told, "shown") or 0)
    size = facts.config.data.img_size if facts.config is not None else (0, 0)
    drawn, real = (_strips(folder / f"{name}.png", size, shown, len(rows)) for name in ("drawn", "real"))
    return {
        "kind": kind,
        "classifier": str(told.get("classifier", "")),
        "count": number_at(told, "count_each"),
        "copies_left_out": text_at(told, "left_out.copies"),
        **{key: number_at(told, key) for key in WHOLE},
        "rows": [
            {
                "brand": str(row.get("brand", "")),
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
    """URIs of each brand's pictures; none where the grid is gone or another."""
    grid = picture_or_none(path)
    tiles = [] if grid is None or not shown or not all(size) else grid_tiles(grid, *size)
    if len(tiles) < rows * shown or not rows:
        return [[] for _ in range(rows)]
    strips = [tiles[k * shown : (k + 1) * shown] for k in range(rows)]
    return [[picture_uri(tile, PICTURE_PX) for tile in strip if (tile != 255).any()] for strip in strips]


def brand_kept(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """What is left of the brand along the dial: a chart, and what to compare it with."""
    x, kept = (numbers_at(metrics, f"blend.brand.{key}") for key in ("intensity", "kept"))
    if x is None or kept is None or len(x) != len(kept) or len(x) < 2:
        return None
    line = Line("read as the brand that was asked for", x, kept, CONCEPT)
    chance, real = (number_at(metrics, f"blend.brand.{key}") for key in ("chance", "real_accuracy"))
    svg = lines_chart("Brand kept along the dial", [line], "intensity", "share of designs", y_from_zero=True,
                      mark_y=chance)  # fmt: skip
    parent = number_at(metrics, "blend.brand.parent")
    return {"svg": svg, "chance": chance, "real": real, "parent": parent, "first": kept[0], "last": kept[-1]}
