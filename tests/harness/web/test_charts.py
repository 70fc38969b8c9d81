"""Charts: labels, titles for screen readers, no markup from names."""

import re
from collections import Counter

import pytest

from harness.web.charts import Line, bars, bars_chart, histogram, lines_chart, scatter_chart, shares_chart


def test_bars_keep_the_sum():
    rows = bars(Counter({f"class {k}": k + 1 for k in range(30)}), limit=10)
    assert len(rows) == 11 and sum(row.count for row in rows) == sum(range(1, 31))
    assert rows[0].share == 1.0 and rows[-1].label == "20 others"


def test_histogram_says_its_figures():
    svg = histogram("Sizes <of> files", [3, 0, 5], ["0", "10", "20"], "px", (1.5, "here & now"))
    assert 'aria-label="Sizes &lt;of&gt; files: 0 3, 20 5"' in svg
    assert re.findall("<title>(.*?)</title>", svg) == ["0 3", "20 5"] and "here &amp; now" in svg


@pytest.mark.parametrize(
    "svg",
    [
        histogram("A <b>", [1, 2], ["0", ""], "px"),
        lines_chart("A <b>", [Line("<i>", [0, 1], [1, 2], low=[0, 1], high=[2, 3]), Line("&", [1], [1])], "x", "y"),
        bars_chart("A <b>", [0.4, -1.0], "x", "y", 0.3),
        scatter_chart("A <b>", [1, 2], [3, 4], "x", "y"),
        shares_chart("A <b>", ["<i>", "b"], [1, 2], "x"),
    ],
)
def test_a_chart_has_the_pages_colours_its_own_ids_and_no_markup_of_strangers(svg):
    assert svg.startswith('<svg role="img" aria-label="A &lt;b&gt;') and "width=" not in svg.partition(">")[0]
    assert "var(--" in svg and "<style" not in svg and "<metadata" not in svg and "<i>" not in svg
    assert not re.findall(r"#[0-9a-f]([a-f])\1|#[0-9a-f]a[0-9a-f]b[0-9a-f]c", svg)  # stand-ins of colours
    inside = re.findall(r'\b(?:id="|url\(#)([^")]*)', svg)
    assert inside and all(name.startswith("a-b") for name in inside)
