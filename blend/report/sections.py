"""The sections of the page, as values for its template: each a dict, or None before its stage has run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from blend.designs.design_set import SWEEP_SET
from blend.encoder.measure import BASELINE_LATENT_MSE
from blend.generator.input_pictures import TRAINING_ROW, read_pictures
from blend.generator.kinds import KINDS
from blend.report import charts
from blend.report.design_rows import InversionPair, NearestPicture, SavedDesign, parent_picture
from blend.report.reading import number_at, text_at
from blend.report.run_facts import ReportData, evenly_spread
from harness.runtime.progress import duration_text
from harness.storage.hdf5 import spread_rows
from harness.web.embed import bytes_uri, picture_uri, strip_uri

# Widths of embedded pictures: about those on the page.
DIAL_PX, FRAME_PX, CARD_PX, THUMB_PX, SAMPLE_PX, STEP_PX = 320, 256, 256, 96, 144, 96
TEASER_ROWS, TEASER_STEPS, DIAL_CARS, GRID_SWEEPS = 3, 6, 6, 8
SAMPLES, INVERSIONS_A_FILE, INVERSIONS_AT_ONCE, MAX_CARDS = 12, 24, 6, 160
MAX_ANIMATION_BYTES = 2_500_000
SPACES = {"reader": "by reader", "discriminator": "by GAN"}


# ---- the top of the page ----------------------------------------------------------------------------------------


def teaser(data: ReportData) -> dict[str, Any] | None:
    """The sweeps with the best reconstructed ordinary cars, one for each car; all follow the dial."""
    best: dict[Any, list[SavedDesign]] = {}
    for sweep_designs in sorted(data.sweeps, key=_start_identity, reverse=True):
        best.setdefault(sweep_designs[0].parent("ordinary") or len(best), sweep_designs)
    chosen = list(best.values())[:DIAL_CARS]
    if not chosen:
        return None
    return {
        "rows": [[_frame(design, FRAME_PX) for design in _spread(one, TEASER_STEPS)] for one in chosen[:TEASER_ROWS]],
        "dial": [_dial_car(one) for one in chosen],
        "steps": min(len(one) for one in chosen),
        "of": len(data.sweeps),
    }


def _dial_car(designs: Sequence[SavedDesign]) -> dict[str, Any]:
    uri = strip_uri(np.stack([design.picture for design in designs]), DIAL_PX)
    return {"uri": uri, "count": len(designs), "futurism": [_rounded(d.number("futurism")) for d in designs]}


def _start_identity(designs: Sequence[SavedDesign]) -> float:
    """Identity at intensity 0."""
    return designs[0].number("identity") or 0.0


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    return [items[k] for k in spread_rows(len(items), count)]


def _frame(design: SavedDesign, width_px: int) -> dict[str, Any]:
    uri = picture_uri(design.picture, width_px)
    return {"uri": uri, "intensity": design.number("intensity"), "futurism": _rounded(design.number("futurism"))}


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def figures(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The five main figures: name, value ("–" before its stage has run), command and note."""

    def at(path: str, form: str = "{:.2f}") -> str:
        value = number_at(metrics, path)
        return "–" if value is None else form.format(value)

    def row(name: str, value: str, command: str, note: str) -> dict[str, Any]:
        return {"name": name, "value": value, "command": command, "note": note}

    guess, refined = (number_at(metrics, f"inversion.{key}_error") for key in ("encoder", "refined"))
    gain = f"{guess / refined:.1f}× smaller than" if guess and refined else "beside"
    compared = f"{gain} the encoder's guess ({at('inversion.encoder_error', '{:.4f}')})"
    if left_out(metrics)["encoder_error"]:
        compared = "that of the encoder's guess is left out"
    if number_at(metrics, "encoder.picture_error") is None:
        note = f"mean squared error of latents, 1 for always the mean; an earlier system: {BASELINE_LATENT_MSE:.3f}"
        encoder = row("Encoder", at("encoder.latent_mse", "{:.3f}"), "make encoder", note)
    else:  # trained to reconstruct pictures, not latents
        mean = at("inversion.mean_picture_error", "{:.4f}")
        note = f"picture error of held-out cars, redrawn in one pass; of the mean picture: {mean}"
        encoder = row("Encoder", at("encoder.picture_error", "{:.4f}"), "make encoder", note)
    seconds = number_at(metrics, "demo.seconds")
    duration = "–" if seconds is None else duration_text(seconds)
    return [
        encoder,
        row("Inversion", at("inversion.refined_error", "{:.4f}"), "make invert",
            f"picture error, {compared}; best of 1,000 random cars: {at('inversion.best_of_1000_error', '{:.4f}')}"),
        row("Dial follows", at("blend.spearman_mean", "{:.3f}"), "make measure",
            f"rank correlation of intensity and futurism, mean of {at('blend.pairs', '{:.0f}')} pairs; "
            f"worst {at('blend.spearman_worst')}"),
        row("Rise", at("blend.rise", "{:+.0f}"), "make measure",
            "points of 100 in futurism from intensity 0 to 1, median pair, by a reader independent of the dial"),
        row("Total time", duration, "make demo",
            f"from scratch to this page; {at('demo.cpu_sec', '{:,.0f}')} CPU-seconds, "
            f"peak memory {at('demo.peak_rss_mb', '{:,.0f}')} MB"),
    ]  # fmt: skip


def measured_on(metrics: dict[str, Any]) -> str:
    """What replaces held-out pictures; "" where there are some."""
    stages = ("blend", "measures", "inversion.ordinary", "inversion.concept")
    return next(filter(None, (text_at(metrics, f"{stage}.measured_on") for stage in stages)), "")


BACKGROUND_AUC = 0.8  # from here on backgrounds tell the two kinds of pictures apart
SPEARMAN = 0.5  # below this the dial does not follow


def doubts(metrics: dict[str, Any]) -> list[str]:
    """Why the figures of the dial should not be trusted; empty where nothing speaks against them."""
    background, spearman = number_at(metrics, "measures.background_auc"), number_at(metrics, "blend.spearman_mean")
    found = []
    if background is not None and background >= BACKGROUND_AUC:
        found.append(
            f"Backgrounds alone tell ordinary from concept pictures (AUC {background:.2f}), so futurism here is partly "
            "the photographer's, not the car's."
        )
    if spearman is not None and spearman < SPEARMAN:
        found.append(f"The dial does not control futurism yet (rank correlation {spearman:.2f}): train longer.")
    return found


def left_out(metrics: dict[str, Any]) -> dict[str, str]:
    """Figure that needs held-out pictures → why it is left out, or ""."""
    stages = {"novelty": ("measures",), "encoder_error": ("inversion.ordinary", "inversion.concept")}
    return {
        name: next(filter(None, (text_at(metrics, f"{stage}.left_out.{name}") for stage in places)), "")
        for name, places in stages.items()
    }


def figure_text(value: float | None, digits: int = 2) -> str:
    """A number as text; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


# ---- samples and inversions -------------------------------------------------------------------------------------


def samples(data: ReportData) -> list[dict[str, Any]]:
    """For each run: training pictures and the newest samples."""
    parts = []
    for kind, facts, config in (("ordinary", data.base, data.config), ("concept", data.tuned, data.tuned_config)):
        real = evenly_spread(config.data.hdf5_path("train"), SAMPLES)
        drawn = [] if facts is None else facts.samples[:SAMPLES]
        step = None if facts is None else number_at(facts.checkpoint, "step")
        parts.append({"kind": kind, "real": _uris(real), "drawn": _uris(drawn), "step": _rounded(step)})
    return parts


def _uris(pictures: Sequence[np.ndarray], width_px: int = SAMPLE_PX) -> list[str]:
    return [picture_uri(picture, width_px) for picture in pictures]


def inversion(data: ReportData) -> dict[str, Any] | None:
    """Pairs of each file with their errors, evenly spread from best to worst."""
    groups = []
    for source in sorted({pair.source for pair in data.inversions}, key=lambda name: KINDS.index(name.split("-")[0])):
        pairs = sorted((pair for pair in data.inversions if pair.source == source), key=lambda p: p.refined_error)
        cards = [_inversion_card(pair) for pair in _spread(pairs, INVERSIONS_A_FILE)]
        first = _spread(range(len(cards)), INVERSIONS_AT_ONCE)
        seen = all(TRAINING_ROW.fullmatch(pair.name) for pair in pairs)  # errors of their guess are no figure
        groups.append(
            {
                "kind": pairs[0].kind,
                "first": [cards[k] for k in first],
                "rest": [card for k, card in enumerate(cards) if k not in first],
                "of": len(pairs),
                "guess": None if seen else float(np.mean([pair.guess_error for pair in pairs])),
                "refined": float(np.mean([pair.refined_error for pair in pairs])),
            }
        )
    compared = [
        (label, number_at(data.metrics, f"inversion.{key}_error"))
        for label, key in (
            ("the mean training picture", "mean_picture"),
            ("best of 1,000 random cars", "best_of_1000"),
            ("the encoder's guess", "encoder"),
            ("refined", "refined"),
        )
    ]
    most = max((value for _, value in compared if value is not None), default=0.0)
    return {"groups": groups, "compared": compared, "most": most} if groups else None


def _inversion_card(pair: InversionPair) -> dict[str, Any]:
    pictures = {key: picture_uri(getattr(pair, key), SAMPLE_PX) for key in ("target", "guess", "refined")}
    return {**pictures, "name": pair.name, "guess_error": pair.guess_error, "refined_error": pair.refined_error}


# ---- the sweep --------------------------------------------------------------------------------------------------


def sweep(data: ReportData) -> dict[str, Any] | None:
    """Rows of the sweep with the futurism of each picture, the measured curve, the comparison with the baseline."""
    rows = []
    for designs in _spread(data.sweeps, GRID_SWEEPS):
        ends = [_parent_thumb(data, designs[0], kind) for kind in KINDS]
        rows.append({"ends": ends, "frames": [_frame(design, STEP_PX) for design in designs]})
    curve = charts.futurism_chart(data.metrics, data.sweeps)
    if not rows and curve is None:
        return None
    shares = [figure for designs in data.designs.values() for figure in _futurism_and_identity(designs)]
    animation = data.folder / "blends" / SWEEP_SET / "sweep.webp"
    small = animation.is_file() and animation.stat().st_size <= MAX_ANIMATION_BYTES
    return {
        "rows": rows,
        "of": len(data.sweeps),
        "curve": curve,
        "identity": charts.identity_chart(shares) if len(shares) > 1 else None,
        "animation": bytes_uri(animation.read_bytes(), "image/webp") if small else None,
        "equal": _equal_futurism(data.metrics),
        "miss_probe": number_at(data.metrics, "blend.futurism_miss_probe"),
        "miss_reader": number_at(data.metrics, "blend.futurism_miss_reader"),
    }


def _futurism_and_identity(designs: Sequence[SavedDesign]) -> list[tuple[float, float]]:
    """Of every design that has both."""
    measured = [(design.number("futurism"), design.number("identity")) for design in designs]
    return [(futurism, identity) for futurism, identity in measured if futurism is not None and identity is not None]


def _equal_futurism(metrics: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(error, ours, the baseline's) of what should stay of the ordinary parent; empty if not measured."""
    path = "blend.equal_futurism"
    rows = [
        (label, number_at(metrics, f"{path}.ours.{key}"), number_at(metrics, f"{path}.seed.{key}"))
        for label, key in (("paint hue (turns)", "hue_error"), ("yaw (degrees)", "yaw_error"))
    ]
    return [row for row in rows if row[1] is not None or row[2] is not None]


# ---- the gallery ------------------------------------------------------------------------------------------------


def gallery(data: ReportData) -> dict[str, Any] | None:
    """Every design outside the sweep, most futuristic first; those of the sweep if there is no other set."""
    designs = [design for name, made in data.designs.items() if name != SWEEP_SET for design in made]
    designs = designs or data.designs.get(SWEEP_SET, [])
    if not designs:
        return None
    designs.sort(key=lambda design: _or_lowest(design.number("futurism")), reverse=True)
    shown = _spread(designs, MAX_CARDS)
    near = _nearest_pictures(data, shown)
    return {
        "cards": [_card(data, design, near) for design in shown],
        "of": len(designs),
        "sets": sorted({design.set_name for design in shown}),
        "warned": sum(design.verdict == "WARN" for design in designs),
    }


def _or_lowest(value: float | None) -> float:
    return -math.inf if value is None else value


def _nearest_pictures(data: ReportData, designs: Sequence[SavedDesign]) -> dict[tuple[str, int], np.ndarray]:
    """(set, row) → training picture."""
    pictures = {}
    for config in (data.config, data.tuned_config):
        rows = {near.row for design in designs for near in design.nearest if near.set_name == config.data.set}
        read = read_pictures(config.data.hdf5_path("train"), rows)
        pictures |= {(config.data.set, row): picture for row, picture in read.items()}
    return pictures


def _card(data: ReportData, design: SavedDesign, near: dict[tuple[str, int], np.ndarray]) -> dict[str, Any]:
    names = [name for name in map(design.parent, KINDS) if name]
    thumbs = [_parent_thumb(data, design, kind) for kind in KINDS]
    thumbs += [
        _thumb(f"nearest, {SPACES.get(n.space, n.space)}", _near_text(n), near.get((n.set_name, n.row)))
        for n in design.nearest
    ]
    numbers = {key: design.number(key) for key in ("futurism", "identity", "intensity", "latent_weight", "style")}
    return {
        **numbers,
        "uri": picture_uri(design.picture, CARD_PX),
        "title": " + ".join(names) or f"seed {figure_text(design.number('seed'), 0)}",
        "file": f"{design.set_name}/{design.file}",
        "set": design.set_name,
        "novelty": design.percentile,
        "verdict": design.verdict,
        "asked": design.number("asked_futurism"),
        "thumbs": [thumb for thumb in thumbs if thumb is not None],
    }


def _parent_thumb(data: ReportData, design: SavedDesign, kind: str) -> dict[str, str] | None:
    name = design.parent(kind)
    return _thumb(f"{kind} parent", name, parent_picture(kind, name, data.inversions))


def _near_text(near: NearestPicture) -> str:
    distance = "" if near.distance is None else f", distance {near.distance:.3g}"
    percentile = "" if near.percentile is None else f", percentile {near.percentile:.1f}"
    return f"{near.set_name} row {near.row}{distance}{percentile}"


def _thumb(label: str, name: str | None, picture: np.ndarray | None) -> dict[str, str] | None:
    if name is None:
        return None
    return {"label": label, "name": name, "uri": "" if picture is None else picture_uri(picture, THUMB_PX)}
