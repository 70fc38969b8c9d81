"""Which charts the page has, and what they show. Each is SVG text, or None while its stage has not run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from blend.report.design_rows import SavedDesign, number_at, numbers_at
from blend.report.run_facts import RunFacts
from harness.web.charts import ACCENT, CONCEPT, ORDINARY, Line, bars_chart, lines_chart, scatter_chart, shares_chart

SMOOTHED_ROWS = 5  # of stats.jsonl: adversarial losses jump


def training_charts(base: RunFacts, tuned: RunFacts | None, encoder: RunFacts | None) -> list[dict[str, Any]]:
    """(title, what it shows, command, svg or None) of the base run, the fine-tuned run and the encoder."""
    charts = []
    for kind, facts, command in (("ordinary cars", base, "make train"), ("concept cars", tuned, "make finetune")):
        charts.append(
            {
                "title": f"Generator of {kind}",
                "note": "losses of generator and discriminator: in balance, neither runs away",
                "command": command,
                "file": _stats_file(facts),
                "svg": _loss_chart(f"Losses while learning {kind}", [] if facts is None else facts.stats),
            }
        )
    points = [] if encoder is None else _points(encoder.stats, "latent_mse")
    svg = None
    if points:
        line = Line("latent error", *zip(*points, strict=True), colour=ACCENT)
        svg = lines_chart("Latent error of the encoder", [line], "step", "latent error", mark_y=1.0)
    note = "error on fresh cars; at the dotted line it knows nothing"
    charts.append(
        {"title": "Encoder", "note": note, "command": "make encoder", "file": _stats_file(encoder), "svg": svg}
    )
    return charts


def _stats_file(facts: RunFacts | None) -> str:
    return "" if facts is None else (facts.folder / "stats.jsonl").as_posix()


def _loss_chart(title: str, stats: Sequence[dict[str, Any]]) -> str | None:
    lines = []
    for key, label, colour in (("g_loss", "generator", CONCEPT), ("d_loss", "discriminator", ORDINARY)):
        points = _points(stats, key)
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(label, x, _smoothed(y), colour))
    return lines_chart(title, lines, "step", "loss") if lines else None


def _points(stats: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    found = [(number_at(row, "step"), number_at(row, key)) for row in stats]
    return [(step, value) for step, value in found if step is not None and value is not None]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Running mean over SMOOTHED_ROWS, over fewer at the ends."""
    half = SMOOTHED_ROWS // 2
    return [float(np.mean(values[max(0, k - half) : k + half + 1])) for k in range(len(values))]


def futurism_chart(metrics: dict[str, Any], sweeps: Sequence[Sequence[SavedDesign]]) -> str | None:
    """Measured futurism along the dial: of the metrics, or else the median over the sweep's own designs."""
    curve = "blend.curve"
    x = numbers_at(metrics, f"{curve}.intensity")
    lines = []
    if x is not None:
        reader, low, high, probe = (
            numbers_at(metrics, f"{curve}.{key}") for key in ("reader", "reader_p10", "reader_p90", "probe")
        )
        if reader is not None and len(reader) == len(x):
            whole = low is not None and high is not None and len(low) == len(high) == len(x)
            band = (low, high) if whole else (None, None)
            lines.append(Line("reader (never seen by the probe)", x, reader, CONCEPT, low=band[0], high=band[1]))
        if probe is not None and len(probe) == len(x):
            lines.append(Line("probe", x, probe, ORDINARY, dashed=True))
    if not lines and sweeps:
        lines = _median_line(sweeps)
    return lines_chart("Futurism along the dial", lines, "intensity", "futurism, 0 to 100") if lines else None


def _median_line(sweeps: Sequence[Sequence[SavedDesign]]) -> list[Line]:
    scores: dict[float, list[float]] = {}
    for design in (design for sweep in sweeps for design in sweep):
        intensity, futurism = design.number("intensity"), design.number("futurism")
        if intensity is not None and futurism is not None:
            scores.setdefault(intensity, []).append(futurism)
    x = sorted(scores)
    return [Line("probe, median", x, [float(np.median(scores[at])) for at in x], CONCEPT)] if len(x) > 1 else []


def identity_chart(futurism_and_identity: Sequence[tuple[float, float]]) -> str:
    """Every design: what it gained against what it kept."""
    x, y = zip(*futurism_and_identity, strict=True)
    return scatter_chart("Identity kept against futurism", x, y, "futurism", "identity kept")


def latent_chart(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The share of each latent direction that the encoder explains, highest first."""
    explained = numbers_at(metrics, "encoder.explained")
    if explained is None:
        return None
    mean = number_at(metrics, "encoder.explained_mean")
    shares = sorted(explained, reverse=True)
    svg = bars_chart("Explained share of each latent direction", shares, "latent direction, sorted", "explained", mean)
    return {"svg": svg, "count": len(shares), "half": sum(share >= 0.5 for share in shares), "mean": mean}


def stages_chart(metrics: dict[str, Any]) -> str | None:
    """CPU-seconds of each stage of the whole pipeline."""
    demo = metrics.get("demo")
    stages = demo.get("stages") if isinstance(demo, dict) else None
    found = {name: number_at(stage, "cpu_sec") for name, stage in stages.items()} if isinstance(stages, dict) else {}
    named = {name: value for name, value in found.items() if value is not None}
    return (
        shares_chart("CPU-seconds of each stage", list(named), list(named.values()), "CPU-seconds") if named else None
    )
