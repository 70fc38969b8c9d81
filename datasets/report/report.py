"""The report of a build, `data/sets/<set>/report-<size>.html`: a self-contained page about every file of the set.

In: manifest, summary, packed pictures, and the source's files for dropped pictures. Choices are made in the clinic.
"""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets.clean.reasons import STEPS, detail_of, heading_of, meaning_of, slug_of
from datasets.clean.rules import UNDECODED
from datasets.pack.manifest import Manifest, packed_view
from datasets.pack.recipe import SetPlan, read_summary, threshold_of
from datasets.report.car_colour import COLOURS, guess_colour
from datasets.report.pictures import PagePictures, sample_packed
from harness.config.experiment import Data
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.lock import hold_lock
from harness.web.charts import Bar, bars, histogram
from harness.web.page import page_environment

TEMPLATES = Path(__file__).parent / "templates"
VIEW_ORDER = ("left", "front_left", "rear_left", "right", "front_right", "rear_right", "front", "rear", "other")
MAX_COLOURED = 1500  # training pictures whose colour is guessed
COMMON_FEW = 0.02  # a class with a smaller share is called rare
PER_REASON, PER_VIEW, PER_DUPLICATE, PER_BORDER = 12, 16, 8, 12  # examples
SIDE_EDGES_PX = (0, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ASPECT_EDGES = (0, 0.5, 0.67, 0.8, 0.95, 1.05, 1.2, 1.4, 1.6, 1.85, 2.2, 3.0)
SCORE_BINS = 20
UNSURE_VIEW = 0.6  # a view with a lower confidence is called uncertain
SEEN = "kept and view not null and view_confidence >= :level"
JUDGED = "decided_by = 'model' and ok_score not null"
NAMELESS, UNKNOWN = "(none)", "(not recorded)"


def update_report(plan: SetPlan) -> Path | None:
    """Writes the page of a built set if it is missing or older than the set; None if there is nothing to do."""
    page = plan.report
    if not plan.cleanable or (page.exists() and page.stat().st_mtime >= plan.manifest.stat().st_mtime):
        return None
    with hold_lock(plan.lock, log):
        return write_report(plan)


def write_report(plan: SetPlan) -> Path:
    """Writes the page of a built set; returns its path."""
    data, summary = plan.data, read_summary(plan.summary)
    with Manifest(plan.manifest) as manifest, PagePictures(data, plan.pictures_folder()) as pictures:
        page = (
            page_environment(TEMPLATES)
            .get_template("report.html.j2")
            .render(
                name=data.set,
                size=f"{data.img_size[1]} × {data.img_size[0]}",
                made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                files=manifest.total(),
                kept=manifest.total("kept"),
                splits={"train": 0, "valid": 0} | manifest.count("split", "kept"),
                mirrored=manifest.total("kept and mirrored"),
                classes=len(_count_classes(manifest)),
                steps=funnel(manifest),
                dropped=_dropped(manifest, pictures),
                views=_views(manifest, pictures),
                duplicates=_duplicates(manifest, pictures),
                border=_border(manifest, threshold_of(summary), pictures),
                charts=_charts(data, manifest, threshold_of(summary)),
                unknown=_unknown(manifest),
                recipe=_recipe(summary),
                left_out=pictures.left_out,
            )
        )
    atomic_write(plan.report, page.encode("utf-8", "backslashreplace"))
    return plan.report


def _count_dropped(manifest: Manifest) -> dict[tuple[str, str], int]:
    """(step, slug) → number of files, in order of appearance."""
    query = "select step, slug, count(*) from manifest where not kept group by step, slug order by min(pos)"
    return {(step, slug or ""): count for step, slug, count in manifest.rows(query)}


def funnel(manifest: Manifest) -> list[dict[str, Any]]:
    """One row per step: how many files were left after it, and why others were dropped."""
    left, dropped = manifest.total(), _count_dropped(manifest)
    rows: list[dict[str, Any]] = [{"name": "files", "text": "found", "left": left, "lost": []}]
    for name, text, _ in STEPS:
        lost = {slug: count for (step, slug), count in dropped.items() if step == name}
        left -= sum(lost.values())
        if lost or name != "by hand":
            named = [(heading_of(slug), count) for slug, count in sorted(lost.items(), key=lambda one: -one[1])]
            rows.append({"name": name, "text": text, "left": left, "lost": named})
    assert left == manifest.total("kept"), left
    return rows


def _dropped(manifest: Manifest, pictures: PagePictures) -> list[dict[str, Any]]:
    """Reasons in the order of the steps, the most frequent first; copies have their own section."""
    order, counts = [name for name, _, _ in STEPS], _count_dropped(manifest)
    groups = []
    for (step, slug), count in sorted(counts.items(), key=lambda one: (order.index(one[0][0]), -one[1])):
        lines = manifest.examples("not kept and duplicate_of is null and slug is :slug", PER_REASON, slug=slug or None)
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
    """Caption; the manifest has the whole reason."""
    detail = detail_of(line)
    return f"ok score {line['ok_score']:.2f}" if "ok_score" in detail else detail


def _count_views(manifest: Manifest) -> dict[str, int]:
    return manifest.count("coalesce(packed_view, 'not judged')", "kept")


def _count_classes(manifest: Manifest) -> dict[str, int]:
    return manifest.count(f"coalesce(class, '{NAMELESS}')", "kept")


def _views(manifest: Manifest, pictures: PagePictures) -> list[dict[str, Any]]:
    counts = _count_views(manifest)
    names = [view for view in VIEW_ORDER if view in counts]
    names += [view for view in sorted(counts) if view not in names]
    return [
        {
            "name": name.replace("_", " "),
            "count": counts[name],
            "cards": [
                pictures.of_packed(line, f"Kept, {name}")
                for line in manifest.examples(
                    "kept and coalesce(packed_view, 'not judged') = :view", PER_VIEW, view=name
                )
            ],
        }
        for name in names
    ]


def _duplicates(manifest: Manifest, pictures: PagePictures) -> list[dict[str, Any]]:
    pairs = []
    for slug in ("duplicate", "near_duplicate"):
        where = "not kept and slug = :slug and duplicate_of not null"
        for copy in manifest.examples(where, PER_DUPLICATE, slug=slug):
            for best in manifest.examples("file = :file", 1, file=copy["duplicate_of"]):
                became = "kept" if best["verdict"] == "keep" else f"dropped later: {heading_of(slug_of(best))}"
                best_card = pictures.of_file(best, "The copy that counts")
                pairs.append(
                    {"kind": heading_of(slug_of(copy)), "detail": detail_of(copy), "became": became}
                    | {"best": best_card, "other": pictures.of_file(copy, "Dropped copy")}
                )
    return pairs


def _border(manifest: Manifest, threshold: float | None, pictures: PagePictures) -> list[dict[str, Any]]:
    kinds = (
        ("Just kept", "ok_score", threshold, f"{JUDGED} and kept and ok_score >= :level", pictures.of_packed),
        ("Just dropped", "ok_score", threshold, f"{JUDGED} and not kept and ok_score < :level", pictures.of_file),
        ("Least certain view", "view_confidence", 0.0, SEEN, pictures.of_packed),
    )  # fmt: skip
    groups = []
    for name, field, level, where, place in kinds:
        lines = manifest.examples(where, PER_BORDER, f"abs({field} - :level)", level=level)
        cards = [place(line, name) | {"detail": f"{line[field]:.2f} {_outcome(line)}"} for line in lines]
        if cards:
            groups.append({"name": name, "unit": field.replace("_", " "), "cards": cards})
    return groups


def _outcome(line: dict[str, Any]) -> str:
    return (packed_view(line) if line["verdict"] == "keep" else heading_of(slug_of(line))).replace("_", " ")


def _charts(data: Data, manifest: Manifest, threshold: float | None) -> dict[str, Any]:
    colours = Counter(guess_colour(picture) for picture in sample_packed(data, MAX_COLOURED))
    sized = "width not null and height not null"
    sides = manifest.count(_bin("min(width, height)", SIDE_EDGES_PX), sized)
    aspects = manifest.count(_bin("1.0 * width / height", ASPECT_EDGES), sized)
    scores = manifest.count(f"min(cast(ok_score * {SCORE_BINS} as integer), {SCORE_BINS - 1})", JUDGED)
    score_mark = None if threshold is None else (threshold * SCORE_BINS, f"kept from {threshold:.2f}")
    score_labels = [f"{k / SCORE_BINS:.1f}" if k % 4 == 0 else "" for k in range(SCORE_BINS)]
    return {
        "classes": bars(_count_classes(manifest), 24),
        "views": [
            Bar(bar.label.replace("_", " "), bar.count, bar.share)
            for bar in bars(_count_views(manifest), order=VIEW_ORDER)
        ],
        "colours": bars(colours, colours=COLOURS),
        "coloured": colours.total(),
        "licences": bars(manifest.count(f"coalesce(license, '{UNKNOWN}')", "kept"), 16),
        "sources": bars(manifest.count(f"coalesce(source, '{UNKNOWN}')", "kept"), 12),
        "hosts": bars(manifest.count("host", "kept and host not null"), 12),
        "sides": _edges_chart("Shorter side of the files", sides, SIDE_EDGES_PX, "shorter side, pixels"),
        "aspects": _edges_chart("Width divided by height", aspects, ASPECT_EDGES, "width : height"),
        "scores": histogram(
            "ok score", [scores.get(k, 0) for k in range(SCORE_BINS)], score_labels, "ok score", score_mark
        )
        if scores
        else None,
    }


def _bin(value: str, edges: tuple[float, ...]) -> str:
    """As SQL: the index of the last edge that is not above the value."""
    return " + ".join(f"({value} >= {edge})" for edge in edges[1:])


def _edges_chart(title: str, counts: dict[int, int], edges: tuple[float, ...], x_label: str) -> str:
    labels = [f"{edge:g}" if k % 2 == 0 else "" for k, edge in enumerate(edges)]
    return histogram(title, [counts.get(k, 0) for k in range(len(edges))], labels, x_label)


def _unknown(manifest: Manifest) -> list[str]:
    """Limits of every report, with this set's figures."""
    kept, classes = manifest.total("kept"), _count_classes(manifest)
    rare = [name for name, count in classes.items() if count < COMMON_FEW * max(1, kept)]
    deciders = manifest.count("decided_by")
    unsure = manifest.total(f"kept and view not null and view_confidence < {UNSURE_VIEW}")
    facts = [
        f"Rights: {manifest.total('kept and license is null'):,} of {kept:,} kept pictures have no recorded licence, "
        f"{manifest.total('kept and author is null'):,} no author. Nothing here permits publishing them.",
        f"Verdicts and views of {deciders.get('model', 0):,} files are a model's estimates, {unsure:,} of the kept "
        f"views with a confidence under {UNSURE_VIEW:g}. {deciders.get('person', 0):,} files were decided by a person.",
        "Copies are found within this set alone. The same car on another day, or from a step to the side, is not a "
        "copy.",
        "Faces and number plates are neither detected nor removed.",
        "Colours are guessed from what the middle of a picture has more of than its edges, often wrongly.",
    ]
    if len(classes) > 1:
        facts.append(
            f"Classes are the source's and unchecked: {classes.get(NAMELESS, 0):,} kept pictures have none, "
            f"{len(rare)} of {len(classes)} classes have less than {COMMON_FEW:.0%} of the set each."
        )
    return facts


def _recipe(summary: dict[str, Any]) -> list[tuple[str, str]]:
    flat = []
    for key, value in summary.get("recipe", {}).items():
        if key == "src" and value:  # the page may be shared: local paths stay private
            value = f"…/{Path(value).name}"
        inner = value.items() if isinstance(value, dict) else ((None, value),)
        flat += [(key if name is None else f"{key}.{name}", _text(one)) for name, one in inner]
    classifier = summary.get("sorter") or {}
    return flat + [(f"sorter.{name}", _text(one)) for name, one in classifier.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return "–" if value is None else str(value)
