"""The table of an ablation, as Markdown: means and standard deviations over seeds."""

from typing import Any

import numpy as np

COLUMNS = (  # of the last mark: key, heading, form of a number
    ("diversity", "diversity", "{:.2f}"),
    ("brand", "brand accuracy", "{:.3f}"),
    ("accepted", "accepted as cars", "{:.0%}"),
)


def rows_to_markdown(rows: list[dict[str, Any]], arms: list[str], samples: int, command: str) -> str:
    """Held-out KID at every mark, the other figures at the last; each seed's last KID."""
    marks = [mark["step"] for mark in rows[0]["marks"]]
    last = rows[0]["marks"][-1]
    columns = [column for column in COLUMNS if column[0] in last]
    head = [*(f"KID, step {mark}" for mark in marks), *(heading for _, heading, _ in columns), "KID of each seed"]
    lines = [*_explained(rows, samples), "", f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for arm in arms:
        runs = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        cells = [_cell([run["marks"][k]["kid"] for run in runs], "{:.3f}") for k in range(len(marks))]
        cells += [_cell([run["marks"][-1][key] for run in runs], form) for key, _, form in columns]
        each = ", ".join(f"{run['marks'][-1]['kid']:.3f}" for run in runs)
        lines.append(f"| {arm} | " + " | ".join([*cells, each]) + " |")
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def _explained(rows: list[dict[str, Any]], samples: int) -> list[str]:
    last, seeds = rows[0]["marks"][-1], {row["seed"] for row in rows}
    brands = "brand" in last
    within = " within a brand" if brands else ""
    lines = [
        "# Stabilisers off in turn",
        "",
        "Held-out KID on the factor reader's features (lower is better) and diversity on them (mean distance of pairs"
        f"{within}, real pictures = 1).",
        f"Mean ± standard deviation over {len(seeds)} seeds; {rows[0]['key']['pictures']} training pictures, {samples} "
        f"samples a measure. The training pictures themselves have a KID of {last['kid_of_training_pictures']:.4f}.",
    ]
    if brands:
        lines.append(
            "Brand accuracy: how often a classifier taught by real pictures reads the brand that was asked for; real "
            f"held-out pictures it reads right in {last['real_brand']:.3f}."
        )
    return lines


def _cell(values: list[float], form: str) -> str:
    return f"{form.format(np.mean(values))} ± {form.format(np.std(values))}"
