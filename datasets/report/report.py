"""The page that a build leaves: `data/sets/<set>/report-<size>.html`, what became of every file, self-contained.

In: the manifest, the summary, the packed pictures, and the source's files for what was dropped. Only a page that looks:
choices are made in the clinic.
"""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets.clean.reasons import STEPS, detail_of, heading_of, meaning_of, slug_of
from datasets.clean.rules import UNDECODED
from datasets.pack.recipe import Places, is_cleanable, pictures_folder, read_summary
from datasets.report.car_colour import PAINTS, paint_of
from datasets.report.counts import (
    ASPECT_EDGES,
    SCORE_BINS,
    SIDE_EDGES_PX,
    UNSURE_VIEW,
    Tally,
    find_lines,
    packed_view,
    read_tally,
    threshold_of,
)
from datasets.report.pictures import PagePictures, sample_packed
from datasets.scan.progress import say
from harness.config.experiment import Data
from harness.storage.atomic import atomic_write
from harness.storage.lock import hold_lock
from harness.web.charts import Bar, bars, histogram
from harness.web.page import page_environment

TEMPLATES = Path(__file__).parent / "templates"
VIEW_ORDER = ("left", "front_left", "rear_left", "right", "front_right", "rear_right", "front", "rear", "other")
MOST_PAINTED = 1500  # kept pictures whose colour is guessed
COMMON_FEW = 0.02  # a class with a smaller share than this is called rare


def update_report(data: Data) -> Path | None:
    """Writes the page of a built set where it is missing or older than the set; None when there is nothing to do."""
    places, page = Places.of(data), report_path(data)
    if not is_cleanable(data) or (page.exists() and page.stat().st_mtime >= places.manifest.stat().st_mtime):
        return None
    with hold_lock(places.lock, say):
        return write_report(data, pictures_folder(data))


def write_report(data: Data, folder: Path | None) -> Path:
    """Writes the page of a set that was just built, and returns its path.

    `folder` is where the manifest's files lie; None = nowhere, they came decoded.
    """
    places = Places.of(data)
    summary = read_summary(places.summary)
    tally = read_tally(places.manifest, threshold_of(summary))
    with PagePictures(data, folder) as pictures:
        page = (
            page_environment(TEMPLATES)
            .get_template("report.html.j2")
            .render(
                name=data.set,
                size=f"{data.img_size[1]} × {data.img_size[0]}",
                made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                tally=tally,
                steps=funnel(tally),
                dropped=_dropped(tally, pictures),
                views=_views(tally, pictures),
                duplicates=_duplicates(tally, places.manifest, pictures),
                border=_border(tally, pictures),
                charts=_charts(data, tally),
                unknown=_unknown(tally),
                recipe=_recipe(summary),
                left_out=pictures.left_out,
            )
        )
    path = report_path(data)
    atomic_write(path, page.encode("utf-8", "backslashreplace"))
    return path


def report_path(data: Data) -> Path:
    return Places.of(data).manifest.parent / f"report-{data.size_name}.html"


def funnel(tally: Tally) -> list[dict[str, Any]]:
    """One row a step: how many were left after it, and what it took."""
    left, rows = tally.files, [{"name": "files", "text": "were found", "left": tally.files, "lost": []}]
    for name, text, _ in STEPS:
        lost = {slug: count for (step, slug), count in tally.dropped.items() if step == name}
        left -= sum(lost.values())
        if lost or name != "by hand":
            named = [(heading_of(slug), count) for slug, count in sorted(lost.items(), key=lambda one: -one[1])]
            rows.append({"name": name, "text": text, "left": left, "lost": named})
    assert left == tally.kept, (left, tally.kept)
    return rows


def _dropped(tally: Tally, pictures: PagePictures) -> list[dict[str, Any]]:
    """Reasons in the order of the steps, the most frequent first; copies have a section of their own."""
    order = [name for name, _, _ in STEPS]
    groups = []
    for (step, slug), count in sorted(tally.dropped.items(), key=lambda one: (order.index(one[0][0]), -one[1])):
        lines = tally.lines_of("reason", slug)
        if not lines:
            continue
        cards = [
            pictures.of_file(line, f"Dropped, {heading_of(slug)}") | {"detail": _short(line)}
            for line in lines
            if slug not in UNDECODED
        ]
        files = [(line["file"], detail_of(line)) for line in lines] if slug in UNDECODED else []
        groups.append(
            {"slug": slug, "name": heading_of(slug), "text": meaning_of(slug), "count": count, "step": step}
            | {"cards": cards, "files": files}
        )
    return groups


def _short(line: dict[str, Any]) -> str:
    """For a caption; the whole reason is in the manifest."""
    detail = detail_of(line)
    return f"ok score {line['ok_score']:.2f}" if "ok_score" in detail else detail


def _views(tally: Tally, pictures: PagePictures) -> list[dict[str, Any]]:
    names = [view for view in VIEW_ORDER if tally.views[view]]
    names += [view for view in sorted(tally.views) if view not in names]
    return [
        {
            "name": name.replace("_", " "),
            "count": tally.views[name],
            "cards": [pictures.of_packed(line, f"Kept, {name}") for line in tally.lines_of("view", name)],
        }
        for name in names
    ]


def _duplicates(tally: Tally, manifest: Path, pictures: PagePictures) -> list[dict[str, Any]]:
    copies = [line for slug in ("duplicate", "near_duplicate") for line in tally.lines_of("duplicate", slug)]
    originals = find_lines(manifest, {line["duplicate_of"] for line in copies})
    pairs = []
    for copy in copies:
        best = originals.get(copy["duplicate_of"])
        if best is not None:
            became = "kept" if best["verdict"] == "keep" else f"dropped later, {heading_of(slug_of(best))}"
            pairs.append(
                {"kind": heading_of(slug_of(copy)), "detail": detail_of(copy), "became": became}
                | {"best": pictures.of_file(best, "The copy that counts"), "other": pictures.of_file(copy, "Left out")}
            )
    return pairs


def _border(tally: Tally, pictures: PagePictures) -> list[dict[str, Any]]:
    kinds = (
        ("keep", "Just kept", "ok score"),
        ("drop", "Just dropped", "ok score"),
        ("view", "View least sure", "view confidence"),
    )
    groups = []
    for key, name, unit in kinds:
        lines = tally.lines_of("border", key)
        field = "view_confidence" if key == "view" else "ok_score"
        place = pictures.of_file if key == "drop" else pictures.of_packed
        cards = [place(line, name) | {"detail": _border_text(line, field, key)} for line in lines]
        groups.append({"name": name, "unit": unit, "cards": cards})
    return [group for group in groups if group["cards"]]


def _border_text(line: dict[str, Any], field: str, key: str) -> str:
    said = heading_of(slug_of(line)) if key == "drop" else packed_view(line)
    return f"{line[field]:.2f} {said.replace('_', ' ')}"


def _charts(data: Data, tally: Tally) -> dict[str, Any]:
    painted = Counter(map(paint_of, sample_packed(data, MOST_PAINTED)))
    score_mark = None if tally.threshold is None else (tally.threshold * SCORE_BINS, f"kept from {tally.threshold:.2f}")
    score_labels = [f"{k / SCORE_BINS:.1f}" if k % 4 == 0 else "" for k in range(SCORE_BINS)]
    return {
        "classes": bars(tally.classes, 24),
        "views": [
            Bar(bar.label.replace("_", " "), bar.count, bar.share) for bar in bars(tally.views, order=VIEW_ORDER)
        ],
        "paints": bars(painted, colours=PAINTS),
        "painted": painted.total(),
        "licences": bars(tally.licences, 16),
        "sources": bars(tally.sources, 12),
        "hosts": bars(tally.hosts, 12),
        "sides": _edges_chart("Shorter side of the files", tally.sides, SIDE_EDGES_PX, "shorter side, pixels"),
        "aspects": _edges_chart("Width divided by height", tally.aspects, ASPECT_EDGES, "width : height"),
        "scores": histogram(
            "ok score", [tally.scores[k] for k in range(SCORE_BINS)], score_labels, "ok score", score_mark
        )
        if tally.scores
        else None,
    }


def _edges_chart(title: str, counts: dict[int, int], edges: tuple[float, ...], x_label: str) -> str:
    labels = [f"{edge:g}" if k % 2 == 0 else "" for k, edge in enumerate(edges)]
    return histogram(title, [counts.get(k, 0) for k in range(len(edges))], labels, x_label)


def _unknown(tally: Tally) -> list[str]:
    """Said in every report, with this set's figures: what a reader must not conclude from it."""
    nameless, unlicensed = tally.classes["(none)"], tally.licences["(not recorded)"]
    rare = [name for name, count in tally.classes.items() if count < COMMON_FEW * max(1, tally.kept)]
    judged = tally.decided_by["model"]
    facts = [
        f"Rights: for {unlicensed:,} of {tally.kept:,} kept pictures no licence is recorded, for "
        f"{tally.kept - tally.authors_known:,} no author. Nothing here says that they may be published.",
        f"Verdicts and views of {judged:,} files are a model's estimates, {tally.unsure_views:,} of the kept views "
        f"with a confidence under {UNSURE_VIEW:g}. {tally.decided_by['person']:,} files were decided by a person.",
        "Copies are looked for within this set alone. The same car on another day, or seen from a step to the side, "
        "is no copy.",
        "Faces and number plates are neither looked for nor removed.",
        "Paint is guessed from what the middle of a picture has more of than its edges: often wrong for a single one.",
    ]
    if len(tally.classes) > 1:
        facts.append(
            f"Classes are as the source named them, unchecked: {nameless:,} kept pictures have none, "
            f"{len(rare)} of {len(tally.classes)} classes hold less than {COMMON_FEW:.0%} of the set each."
        )
    return facts


def _recipe(summary: dict[str, Any]) -> list[tuple[str, str]]:
    flat = []
    for key, value in summary.get("recipe", {}).items():
        if key == "src" and value:  # the page may be sent: where it lay on this machine is nobody's business
            value = f"…/{Path(value).name}"
        inner = value.items() if isinstance(value, dict) else ((None, value),)
        flat += [(key if name is None else f"{key}.{name}", _text(one)) for name, one in inner]
    sorter = summary.get("sorter") or {}
    return flat + [(f"sorter.{name}", _text(one)) for name, one in sorter.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return "–" if value is None else str(value)
