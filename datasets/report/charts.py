"""Charts of the dataset report: rows of bars for the template, and histograms as SVG text in the page's own colours."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 380, 190  # in units of the picture: it is drawn near the width of a phone
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 12, 34


@dataclass(frozen=True)
class Bar:
    """One row: `share` in [0, 1] is its length, `colour` any CSS colour, "" = the page's own."""

    label: str
    count: int
    share: float
    colour: str = ""
    note: str = ""


def bars(
    counts: Mapping[str, int], most: int = 20, colours: Mapping[str, str] | None = None, order: Iterable[str] = ()
) -> list[Bar]:
    """The largest counts as bars, longest first, or in `order`; what is beyond `most` as one last row."""
    names = [name for name in order if counts.get(name)]
    names += sorted((name for name in counts if counts[name] and name not in names), key=lambda n: (-counts[n], n))
    longest = max(counts.values(), default=0) or 1
    rows = [Bar(name, counts[name], counts[name] / longest, (colours or {}).get(name, "")) for name in names[:most]]
    rest = names[most:]
    if rest:
        total = sum(counts[name] for name in rest)
        rows.append(Bar(f"{len(rest)} others", total, 0.0, note="together"))
    return rows


def histogram(
    title: str, counts: Sequence[int], labels: Sequence[str], x_label: str, mark: tuple[float, str] | None = None
) -> str:
    """SVG of a bar for each count; `labels` stand at the left edges, one may be "". `mark` = (place in bins, text)."""
    highest = max(counts, default=0) or 1
    step = (WIDTH - LEFT - RIGHT) / max(1, len(counts))
    floor = HEIGHT - BOTTOM
    parts = [_grid(highest, floor)]
    for k, count in enumerate(counts):
        height = (floor - TOP) * count / highest
        left = LEFT + k * step
        if count:
            tip = f"<title>{html.escape(labels[k] or 'between')}: {count}</title>"
            size = f'width="{step - 2:.1f}" height="{max(height, 1):.1f}"'
            parts.append(f'<rect class="bar" x="{left + 1:.1f}" y="{floor - max(height, 1):.1f}" {size}>{tip}</rect>')
        if labels[k]:
            parts.append(f'<text x="{left:.1f}" y="{floor + 13}" text-anchor="middle">{html.escape(labels[k])}</text>')
    if mark is not None:
        x = LEFT + mark[0] * step
        anchor = "end" if x > WIDTH / 2 else "start"
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{floor}"/>')
        shift = -4 if anchor == "end" else 4
        parts.append(f'<text x="{x + shift:.1f}" y="{TOP}" text-anchor="{anchor}">{html.escape(mark[1])}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(x_label)}</text>')
    said = html.escape(
        f"{title}: " + ", ".join(f"{labels[k] or '…'} {count}" for k, count in enumerate(counts) if count)
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _grid(highest: int, floor: int) -> str:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = floor - (floor - TOP) * share
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if share == 0 or highest > 1:
            text = _short(highest * share)
            parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value / 1000:.3g}k" if value >= 10_000 else f"{value:.0f}"
