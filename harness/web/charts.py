"""Charts of the pages: inline SVG from matplotlib in the page's colours (light and dark) and font.

Returns `<svg>` text, and rows of bars for a table. Charts are about as wide as a phone, so that their text stays
readable there.
"""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 4.6, 2.55
# Placeholder colours, replaced in the SVG by the page's CSS variables.
INK, SOFT, LINE = "#0a0b0c", "#0d0e0f", "#1a1b1c"
ORDINARY, CONCEPT, ACCENT, BAR = "#2a2b2c", "#3a3b3c", "#4a4b4c", "#5a5b5c"
VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    ORDINARY: "var(--ordinary)",
    CONCEPT: "var(--concept)",
    ACCENT: "var(--accent)",
    BAR: "var(--bar)",
}
STYLE: Any = {
    "svg.fonttype": "none",  # keep text as text: smaller, and in the page's font
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
    """One line of a chart. `low` and `high`: an optional band around it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = ORDINARY
    dashed: bool = False
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Bar:
    """A row of a table of bars. `share`: its length in [0, 1]; `colour`: any CSS colour, "" = the page's own."""

    label: str
    count: int
    share: float
    colour: str = ""
    note: str = ""


def bars(
    counts: Mapping[str, int], limit: int = 20, colours: Mapping[str, str] | None = None, order: Iterable[str] = ()
) -> list[Bar]:
    """The largest counts as bars, those of `order` first, then longest first; beyond `limit` one summary row."""
    names = [name for name in order if counts.get(name)]
    names += sorted((name for name in counts if counts[name] and name not in names), key=lambda n: (-counts[n], n))
    longest = max(counts.values(), default=0) or 1
    rows = [Bar(name, counts[name], counts[name] / longest, (colours or {}).get(name, "")) for name in names[:limit]]
    if rest := names[limit:]:
        rows.append(Bar(f"{len(rest)} others", sum(counts[name] for name in rest), 0.0, note="together"))
    return rows


def lines_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    y_from_zero: bool = False,
    mark_y: float | None = None,
) -> str:
    """Lines over a common axis. `title`: for screen readers; `mark_y`: a dotted reference level."""

    def draw(axes: "Axes") -> None:
        for line in lines:
            style = (0, (4, 2)) if line.dashed else "-"
            marker = "o" if len(line.x) == 1 else ""  # a single point has no line
            axes.plot(line.x, line.y, color=line.colour, label=line.label, linestyle=style, marker=marker)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.16, linewidth=0)
        if mark_y is not None:
            axes.axhline(mark_y, color=SOFT, linewidth=1, linestyle=":")
        if y_from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(loc="best")

    return _svg(title, x_label, y_label, draw)


def bars_chart(title: str, values: Sequence[float], x_label: str, y_label: str, mean: float | None = None) -> str:
    """A bar for each value in [0, 1], in the given order; `mean` as a horizontal line. Negative values are drawn as
    0."""

    def draw(axes: "Axes") -> None:
        axes.bar(np.arange(1, len(values) + 1), np.clip(values, 0, None), width=0.82, color=ACCENT)
        if mean is not None and mean >= 0:
            axes.axhline(mean, color=INK, linewidth=1, linestyle=":")
            axes.annotate(f"mean {mean:.0%}", (len(values), mean), (0, 3), textcoords="offset points", ha="right")
        axes.set_xlim(0.3, len(values) + 0.7)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return _svg(title, x_label, y_label, draw)


def histogram(
    title: str, counts: Sequence[int], labels: Sequence[str], x_label: str, mark: tuple[float, str] | None = None
) -> str:
    """A bar for each count, with its number as a tooltip; `labels` are at left edges and may be "". `mark`: (position
    in bins, text) of a vertical line."""
    figures = {k: f"{labels[k] or '…'} {count}" for k, count in enumerate(counts) if count}

    def draw(axes: "Axes") -> None:
        for k in figures:
            axes.bar(k, counts[k], width=0.94, align="edge", color=BAR, gid=f"bar-{k}")
        axes.set_xticks([k for k, label in enumerate(labels) if label], [label for label in labels if label])
        axes.set_xlim(0, len(counts))
        axes.locator_params(axis="y", integer=True)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        if mark is not None:
            axes.axvline(mark[0], color=ACCENT, linewidth=1.5, linestyle=(0, (4, 3)))
            side, shift = ("right", -4) if mark[0] > len(counts) / 2 else ("left", 4)
            axes.annotate(mark[1], (mark[0], 1), (shift, 2), ("data", "axes fraction"), "offset points", ha=side)

    svg = _svg(f"{title}: {', '.join(figures.values())}", x_label, "", draw)
    for k, figure in figures.items():
        svg = re.sub(rf'(id="[^"]*bar-{k}">)', rf"\1<title>{html.escape(figure)}</title>", svg)
    return svg


def scatter_chart(title: str, x: Sequence[float], y: Sequence[float], x_label: str, y_label: str) -> str:
    """A dot for each point."""

    def draw(axes: "Axes") -> None:
        axes.grid(axis="x")
        axes.scatter(x, y, s=22, color=ACCENT, alpha=0.55, linewidths=0)

    return _svg(title, x_label, y_label, draw)


def shares_chart(title: str, names: Sequence[str], values: Sequence[float], x_label: str) -> str:
    """Named horizontal bars, the first on top, each with its number."""

    def draw(axes: "Axes") -> None:
        axes.grid(visible=False)
        drawn = axes.barh(names, values, height=0.62, color=ACCENT)
        axes.bar_label(drawn, [f"{value:,.0f}" for value in values], padding=4, color=INK)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.tick_params(axis="y", length=0)

    return _svg(title, x_label, "", draw, height_in=0.65 + 0.3 * len(names))


def _svg(title: str, x_label: str, y_label: str, draw: Callable[["Axes"], None], height_in: float = HEIGHT_IN) -> str:
    """Inline SVG without a fixed size and metadata; its ids are unique on the page."""
    import matplotlib  # takes half a second
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.tick_params(length=3)
        draw(axes)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)  # a style would apply to the whole page
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    own = re.sub(r"[^a-z0-9]+", "-", title.partition(":")[0].lower()).strip("-")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    for placeholder, variable in VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
