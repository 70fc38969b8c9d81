"""Charts for the page: matplotlib's SVG, inline, in the page's own colours (light and dark) and font.

In: numbers. Out: `<svg>` text. Each chart is drawn near the width of a phone, so that its text stays readable there.
"""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_IN, HEIGHT_IN = 4.6, 2.55
# Stand-ins that no other thing is drawn in: in the SVG they become the page's CSS variables.
INK, SOFT, LINE = "#0a0b0c", "#0d0e0f", "#1a1b1c"
ORDINARY, CONCEPT, ACCENT = "#2a2b2c", "#3a3b3c", "#4a4b4c"
VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    ORDINARY: "var(--ordinary)",
    CONCEPT: "var(--concept)",
    ACCENT: "var(--accent)",
}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and in the page's font
    "svg.hashsalt": "carforge",  # equal charts are equal bytes
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.3,
}


@dataclass(frozen=True)
class Line:
    """One line of a chart. `low` and `high` bound a band around it, where given."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = ORDINARY
    dashed: bool = False
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def lines_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    y_from_zero: bool = False,
    mark_y: float | None = None,
) -> str:
    """Lines over a common axis; `title` is for those who cannot see it. `mark_y` = a dotted level to compare with."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x_label, y_label)
        for line in lines:
            style = (0, (4, 2)) if line.dashed else "-"
            marker = "o" if len(line.x) == 1 else ""  # a line of one point would not be seen
            axes.plot(line.x, line.y, color=line.colour, label=line.label, linestyle=style, marker=marker)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.16, linewidth=0)
        if mark_y is not None:
            axes.axhline(mark_y, color=SOFT, linewidth=1, linestyle=":")
        if y_from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(loc="best")
        return _to_svg(figure, title)


def bars_chart(title: str, values: Sequence[float], x_label: str, y_label: str, mean: float | None = None) -> str:
    """A bar for each value in [0, 1], in the order given; `mean` as a line across. Values under 0 are drawn as 0."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x_label, y_label)
        axes.bar(np.arange(1, len(values) + 1), np.clip(values, 0, None), width=0.82, color=ACCENT)
        if mean is not None and mean >= 0:
            axes.axhline(mean, color=INK, linewidth=1, linestyle=":")
            axes.annotate(f"mean {mean:.0%}", (len(values), mean), (0, 3), textcoords="offset points", ha="right")
        axes.set_xlim(0.3, len(values) + 0.7)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return _to_svg(figure, title)


def scatter_chart(title: str, x: Sequence[float], y: Sequence[float], x_label: str, y_label: str) -> str:
    """A dot for each design."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x_label, y_label)
        axes.grid(axis="x")
        axes.scatter(x, y, s=22, color=ACCENT, alpha=0.55, linewidths=0)
        return _to_svg(figure, title)


def shares_chart(title: str, names: Sequence[str], values: Sequence[float], x_label: str) -> str:
    """Named bars from left to right, the first on top, each with its number."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x_label, "", height_in=0.65 + 0.3 * len(names))
        axes.grid(visible=False)
        bars = axes.barh(names, values, height=0.62, color=ACCENT)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=4, color=INK)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.tick_params(axis="y", length=0)
        return _to_svg(figure, title)


def _figure(x_label: str, y_label: str, height_in: float = HEIGHT_IN) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.tick_params(length=3)
    return figure, axes


def _to_svg(figure: Figure, title: str) -> str:
    """Inline SVG: no size of its own, no metadata, ids that no other chart of the page has."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)  # a style would be the whole page's
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    own = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
