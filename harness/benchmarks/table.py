"""The table of a benchmark: StudioGAN's published figures (published.yaml) and ours."""

from functools import cache
from pathlib import Path
from typing import Any

from harness.config.yaml_files import read_yaml
from harness.metrics.frechet import frechet_name

PUBLISHED_PATH = Path(__file__).with_name("published.yaml")
NONE = "-"
# Published with Inception: name of the row, and of the figure without its extractor.
FIGURES = (
    ("IS", "is"),
    ("FID", "fid"),
    ("F_8", "f8"),
    ("F_1/8", "f1_8"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("density", "density"),
    ("coverage", "coverage"),
    ("KID", "kid"),
)
READER_FIGURES = (("FD", "fid"), ("KID", "kid"), ("F_8", "f8"), ("F_1/8", "f1_8"))
FACTS = ("trained_on", "compared_with", "drawn", "batch_statistics", "resizer")


class Notes:
    """Footnotes of a table, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"({self.texts.index(text) + 1})"


@cache
def read_published(version: str) -> dict[str, Any]:
    """The section of published.yaml for this version of StudioGAN."""
    return read_yaml(PUBLISHED_PATH)[version]


def benchmark_table(bench: str, version: str, file: str, results: dict[str, dict[str, Any]]) -> str:
    """One row per figure; columns: published, then each engine of `results` (from benchmark.measure)."""
    notes, published = Notes(), read_published(version)
    figures, facts = _published_cells(bench, version, notes)
    rows = [["", "published", *results]]
    for title, key in FIGURES:
        ours = [
            _figure_cell(result["inception"], key, result["inception_missing"], notes) for result in results.values()
        ]
        rows.append([title, figures.get(key, NONE), *ours])
    for title, key in READER_FIGURES:
        ours = [_figure_cell(result["reader"], key, None, notes) for result in results.values()]
        rows.append([f"{title} (reader)", NONE, *ours])
    ours = [_fact_cells(result) for result in results.values()]
    rows += [[key.replace("_", " "), str(facts.get(key) or NONE), *(cells[key] for cells in ours)] for key in FACTS]
    steps = f"{next(iter(results.values()))['total_steps']:,}"
    rows.append(["steps", steps, *(f"{r['step']:,} of {r['total_steps']:,}" for r in results.values())])
    for title in ("initial weights", "hardware", "seconds", "s/step"):
        rows.append([title, NONE, *(cells[title] for cells in ours)])
    return "\n".join(
        [
            f"{bench} of StudioGAN {version} ({file}); published: its {published['source']}, the best checkpoint's "
            "figures; ours: the newest checkpoint's",
            *_aligned(rows),
            *(f"({number}) {text}" for number, text in enumerate(notes.texts, 1)),
        ]
    )


def _published_cells(bench: str, version: str, notes: Notes) -> tuple[dict[str, str], dict[str, Any]]:
    """Published figures as text by key, and their facts."""
    published = read_published(version)
    row = published["rows"].get(bench)
    if row is None:
        mark = notes.mark(f"StudioGAN {version} publishes no figures of {bench}")
        return dict.fromkeys(("is", "fid"), f"{NONE} {mark}"), {}
    digits = 3 if version == "0.2.0" else 2
    figures = {key: f"{value:.{digits}f}" for key, value in zip(published["columns"], row, strict=True)}
    return figures, {**published["data"][bench.partition("/")[0]], "resizer": published["resizer"]}


def _figure_cell(evaluation: dict[str, Any] | None, key: str, missing: str | None, notes: Notes) -> str:
    if evaluation is None:
        return f"{NONE} {notes.mark(missing or 'not evaluated')}"
    extractor = evaluation["extractor"]
    name = frechet_name(extractor) if key == "fid" else f"{key}_{extractor}"
    if name not in evaluation["figures"]:
        reason = evaluation["left_out"].get(name, "not computed")
        return f"{NONE} {notes.mark(f'left out: {reason}')}"
    remark = evaluation["remark"]
    return f"{evaluation['figures'][name]:.4f}" + (f" {notes.mark(remark)}" if remark else "")


def _fact_cells(result: dict[str, Any]) -> dict[str, str]:
    evaluation = result["inception"] or result["reader"]
    start, trained_on = result["start_sha256"], result["trained_on"]
    seconds, sec_per_step = result["seconds"], result["sec_per_step"]
    hashes = [start[name][:8] for name in ("generator", "discriminator")] if start else []
    return {
        "trained_on": f"{trained_on['pictures']:,} in {trained_on['classes']} classes",
        "compared_with": f"{evaluation['real_count']:,} {evaluation['split']}",
        "drawn": f"{evaluation['count']:,}",
        "batch_statistics": evaluation["batch_statistics"],
        "resizer": evaluation["resizer"],
        "initial weights": f"G {hashes[0]} D {hashes[1]}" if hashes else NONE,
        "hardware": result["hardware"] or NONE,
        "seconds": f"{seconds:,.0f}" if seconds else NONE,
        "s/step": f"{sec_per_step:.4f}" if sec_per_step else NONE,
    }


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * len("  ".join(" " * width for width in widths)), *lines[1:]]
