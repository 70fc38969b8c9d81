"""The charts of the page, each SVG text or None before its stage has run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from blend.report.design_rows import SavedDesign
from blend.report.reading import dict_at, number_at, numbers_at
from blend.report.run_facts import RunFacts
from harness.web.charts import ACCENT, CONCEPT, ORDINARY, Line, bars_chart, lines_chart, scatter_chart, shares_chart

SMOOTHED_ROWS = 5  # of stats.jsonl: adversarial losses jump


def training_charts(base: RunFacts, tuned: RunFacts | None, encoder: RunFacts | None) -> list[dict[str, Any]]:
    """Title, note, command, file, whether it was trained, and svg or None: of both generators and of the encoder."""
    joint = base.config is not None and base.config.reconstruction.apply
    return [
        _generator_chart("ordinary cars", base, "make train"),
        _generator_chart("concept cars", tuned, "make finetune"),
        _joint_encoder_chart(base, tuned) if joint else _encoder_chart(encoder),
    ]


def _generator_chart(cars: str, facts: RunFacts | None, command: str) -> dict[str, Any]:
    lines = []
    for key, label, colour in (("g_loss", "generator", CONCEPT), ("d_loss", "discriminator", ORDINARY)):
        lines += _line(label, facts, key, colour, smooth=True)
    svg = lines_chart(f"Training losses on {cars}", lines, "step", "loss") if lines else None
    note = "losses of generator and discriminator; in a healthy run neither diverges"
    return _chart(f"Generator of {cars}", note, command, facts, svg)


def _encoder_chart(facts: RunFacts | None) -> dict[str, Any]:
    lines = _line("latent error", facts, "latent_mse", ACCENT)
    svg = lines_chart("Latent error of the encoder", lines, "step", "latent error", mark_y=1.0) if lines else None
    return _chart("Encoder", "error on new cars; dotted: always the mean latent", "make encoder", facts, svg)


def _joint_encoder_chart(base: RunFacts, tuned: RunFacts | None) -> dict[str, Any]:
    """Of an encoder trained with the generator: the loss `pixel` of `reconstruction_step` in the runs' statistics."""
    lines = _line("ordinary cars", base, "pixel", ORDINARY, smooth=True)
    lines += _line("concept cars", tuned, "pixel", CONCEPT, smooth=True)
    svg = lines_chart("Pixel loss of redrawn training pictures", lines, "step", "pixel loss") if lines else None
    note = "trained together with the generator: pixel loss of training pictures, redrawn in one pass"
    return _chart("Encoder", note, "make train", base, svg)


def _chart(title: str, note: str, command: str, facts: RunFacts | None, svg: str | None) -> dict[str, Any]:
    file = "" if facts is None else (facts.folder / "stats.jsonl").as_posix()
    trained = facts is not None and bool(facts.checkpoint)
    return {"title": title, "note": note, "command": command, "file": file, "trained": trained, "svg": svg}


def _line(label: str, facts: RunFacts | None, key: str, colour: str, smooth: bool = False) -> list[Line]:
    """The curve of one figure of a run's statistics; [] where it is missing."""
    found = [(number_at(row, "step"), number_at(row, key)) for row in ([] if facts is None else facts.stats)]
    points = [(step, value) for step, value in found if step is not None and value is not None]
    if not points:
        return []
    x, y = zip(*points, strict=True)
    return [Line(label, x, _smoothed(y) if smooth else y, colour)]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Running mean over SMOOTHED_ROWS, over fewer at the ends."""
    half = SMOOTHED_ROWS // 2
    return [float(np.mean(values[max(0, k - half) : k + half + 1])) for k in range(len(values))]


def futurism_chart(metrics: dict[str, Any], sweeps: Sequence[Sequence[SavedDesign]]) -> str | None:
    """Futurism along the dial: from the metrics, or the median over the sweep's designs."""
    keys = ("intensity", "reader", "reader_p10", "reader_p90", "probe")
    columns = [numbers_at(metrics, f"blend.curve.{key}") or [] for key in keys]
    if columns[0] and len({len(column) for column in columns}) == 1:
        x, reader, low, high, probe = columns
        lines = [
            Line("reader (independent of the probe)", x, reader, CONCEPT, low=low, high=high),
            Line("probe", x, probe, ORDINARY, dashed=True),
        ]
    else:
        scores: dict[float, list[float]] = {}
        for design in (design for sweep in sweeps for design in sweep):
            intensity, futurism = design.number("intensity"), design.number("futurism")
            if intensity is not None and futurism is not None:
                scores.setdefault(intensity, []).append(futurism)
        x = sorted(scores)
        lines = [Line("probe, median", x, [float(np.median(scores[t])) for t in x], CONCEPT)] if len(x) > 1 else []
    return lines_chart("Futurism along the dial", lines, "intensity", "futurism, 0 to 100") if lines else None


def identity_chart(futurism_and_identity: Sequence[tuple[float, float]]) -> str:
    """Identity against futurism of every design."""
    x, y = zip(*futurism_and_identity, strict=True)
    return scatter_chart("Identity kept against futurism", x, y, "futurism", "identity kept")


def latent_chart(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The share of each latent direction that the encoder explains, in descending order."""
    explained = numbers_at(metrics, "encoder.explained")
    if explained is None:
        return None
    mean = number_at(metrics, "encoder.explained_mean")
    shares = sorted(explained, reverse=True)
    svg = bars_chart("Explained share of each latent direction", shares, "latent direction, sorted", "explained", mean)
    return {"svg": svg, "count": len(shares), "half": sum(share >= 0.5 for share in shares), "mean": mean}


def stages_chart(metrics: dict[str, Any]) -> str | None:
    """CPU-seconds of each stage of the demo."""
    seconds = {name: number_at(stage, "cpu_sec") for name, stage in dict_at(metrics, "demo.stages").items()}
    named = {name: value for name, value in seconds.items() if value is not None}
    title = "CPU-seconds of each stage"
    return shares_chart(title, list(named), list(named.values()), "CPU-seconds") if named else None
