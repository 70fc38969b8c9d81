"""The sections of the page: from what was found on disk to what the template shows.

Each is a dict, or None while the stage that it shows has not run.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from blend.designs.design_set import SWEEP_SET
from blend.generator.input_pictures import TRAINING_ROW, read_pictures
from blend.generator.kinds import KINDS
from blend.report import charts
from blend.report.design_rows import InversionPair, NearestPicture, SavedDesign, number_at, parent_picture, text_at
from blend.report.run_facts import Found, evenly_spread
from harness.runtime.progress import duration_text
from harness.storage.hdf5 import spread_rows
from harness.web.embed import bytes_uri, picture_uri, strip_uri

# Widths that pictures are embedded at: about what they have on the page, as small ones do not gain from more.
DIAL_PX, FRAME_PX, CARD_PX, THUMB_PX, SAMPLE_PX, STEP_PX = 320, 256, 256, 96, 144, 96
TEASER_ROWS, TEASER_STEPS, DIAL_CARS, GRID_SWEEPS = 3, 6, 6, 8
SAMPLES, INVERSIONS_A_FILE, INVERSIONS_AT_ONCE, MAX_CARDS = 12, 24, 6, 160
MAX_ANIMATION_BYTES = 2_500_000
SPACES = {"reader": "by reader", "discriminator": "by GAN"}  # as under a small picture
BASELINE_LATENT_MSE = 0.970  # the first seed's encoder on its own data


# ---- the top of the page ----------------------------------------------------------------------------------------


def teaser(found: Found) -> dict[str, Any] | None:
    """The sweeps whose ordinary car is redrawn best, each another one; all of them move with the dial."""
    best: dict[Any, list[SavedDesign]] = {}
    for sweep_designs in sorted(found.sweeps, key=_worth, reverse=True):
        best.setdefault(sweep_designs[0].parent("ordinary") or len(best), sweep_designs)
    chosen = list(best.values())[:DIAL_CARS]
    if not chosen:
        return None
    return {
        "rows": [[_frame(design, FRAME_PX) for design in _spread(one, TEASER_STEPS)] for one in chosen[:TEASER_ROWS]],
        "dial": [_dial_car(one) for one in chosen],
        "steps": min(len(one) for one in chosen),
        "of": len(found.sweeps),
    }


def _dial_car(designs: Sequence[SavedDesign]) -> dict[str, Any]:
    uri = strip_uri(np.stack([design.picture for design in designs]), DIAL_PX)
    return {"uri": uri, "count": len(designs), "futurism": [_rounded(d.number("futurism")) for d in designs]}


def _worth(designs: Sequence[SavedDesign]) -> float:
    """What is kept of the ordinary car before anything moves."""
    return designs[0].number("identity") or 0.0


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    return [items[k] for k in spread_rows(len(items), count)]


def _frame(design: SavedDesign, width_px: int) -> dict[str, Any]:
    uri = picture_uri(design.picture, width_px)
    return {"uri": uri, "intensity": design.number("intensity"), "futurism": _rounded(design.number("futurism"))}


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def figures(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The five figures that matter: (name, value or None while the stage has not run, note, command)."""

    def at(path: str, form: str = "{:.2f}") -> str:
        value = number_at(metrics, path)
        return "–" if value is None else form.format(value)

    guess, refined = (number_at(metrics, f"inversion.{key}_error") for key in ("encoder", "refined"))
    gain = f"{guess / refined:.1f}× smaller than" if guess and refined else "beside"
    beside = f"{gain} the encoder's guess ({at('inversion.encoder_error', '{:.4f}')})"
    if left_out(metrics)["encoder_error"]:
        beside = "that of the encoder's guess is left out"
    seconds = number_at(metrics, "demo.seconds")
    found = at("encoder.latent_mse", "{:.3f}")
    meaning = (
        "squared error of a guessed latent, where 1 is knowing nothing; the first system of its kind reached "
        f"{BASELINE_LATENT_MSE:.3f}"
    )
    if number_at(metrics, "encoder.picture_error") is not None:  # it learned to redraw, not to guess latents
        found, mean = at("encoder.picture_error", "{:.4f}"), at("inversion.mean_picture_error", "{:.4f}")
        meaning = f"picture error of held-out cars redrawn in one pass; the mean picture has {mean}"
    rows = [
        ("Encoder", found, "make encoder", meaning),
        ("Inversion", at("inversion.refined_error", "{:.4f}"), "make invert",
         f"picture error, {beside}; best of 1,000 random cars: {at('inversion.best_of_1000_error', '{:.4f}')}"),
        ("Dial follows", at("blend.spearman_mean", "{:.3f}"), "make measure",
         f"rank correlation of intensity and futurism, mean of {at('blend.pairs', '{:.0f}')} pairs; "
         f"worst {at('blend.spearman_worst')}"),
        ("Rise", at("blend.rise", "{:+.0f}"), "make measure",
         "points of 100 in futurism from intensity 0 to 1, median pair, read by a network that the dial never asks"),
        ("All of it took", "–" if seconds is None else duration_text(seconds), "make demo",
         f"from nothing to this page; {at('demo.cpu_sec', '{:,.0f}')} CPU-seconds, "
         f"{at('demo.peak_rss_mb', '{:,.0f}')} MB of memory at most"),
    ]  # fmt: skip
    return [{"name": name, "value": value, "command": command, "note": note} for name, value, command, note in rows]


def measured_on(metrics: dict[str, Any]) -> str:
    """What stands in for held-out pictures; "" where these were measured on."""
    stages = ("blend", "measures", "inversion.ordinary", "inversion.concept")
    return next(filter(None, (text_at(metrics, f"{stage}.measured_on") for stage in stages)), "")


def left_out(metrics: dict[str, Any]) -> dict[str, str]:
    """Figure that takes held-out pictures → why it is not there, or ""."""
    stages = {"novelty": ("measures",), "encoder_error": ("inversion.ordinary", "inversion.concept")}
    return {
        name: next(filter(None, (text_at(metrics, f"{stage}.left_out.{name}") for stage in places)), "")
        for name, places in stages.items()
    }


def figure_text(value: float | None, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


# ---- samples and inversions -------------------------------------------------------------------------------------


def samples(found: Found) -> list[dict[str, Any]]:
    """For each run: training pictures and the newest samples. Empty lists where there are none."""
    parts = []
    for kind, facts, config in (("ordinary", found.base, found.config), ("concept", found.tuned, found.tuned_config)):
        real = evenly_spread(config.data.hdf5_path("train"), SAMPLES)
        drawn = [] if facts is None else facts.samples[:SAMPLES]
        step = None if facts is None else number_at(facts.checkpoint, "step")
        parts.append({"kind": kind, "real": _uris(real), "drawn": _uris(drawn), "step": _rounded(step)})
    return parts


def _uris(pictures: Sequence[np.ndarray], width_px: int = SAMPLE_PX) -> list[str]:
    return [picture_uri(picture, width_px) for picture in pictures]


def inversion(found: Found) -> dict[str, Any] | None:
    """Pairs of each file with their errors, evenly spread from the best to the worst."""
    groups = []
    for source in sorted({pair.source for pair in found.inversions}, key=lambda name: KINDS.index(name.split("-")[0])):
        pairs = sorted((pair for pair in found.inversions if pair.source == source), key=lambda p: p.refined_error)
        cards = [_inversion_card(pair) for pair in _spread(pairs, INVERSIONS_A_FILE)]
        first = _spread(range(len(cards)), INVERSIONS_AT_ONCE)
        seen = all(TRAINING_ROW.fullmatch(pair.name) for pair in pairs)  # their guess tells nothing of other pictures
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
        (label, number_at(found.metrics, f"inversion.{key}_error"))
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


def sweep(found: Found) -> dict[str, Any] | None:
    """Rows of the sweep with the futurism under each picture, the measured curve, and the comparison with the seed."""
    rows = []
    for designs in _spread(found.sweeps, GRID_SWEEPS):
        ends = [_parent_thumb(found, designs[0], kind) for kind in KINDS]
        rows.append({"ends": ends, "frames": [_frame(design, STEP_PX) for design in designs]})
    curve = charts.futurism_chart(found.metrics, found.sweeps)
    if not rows and curve is None:
        return None
    shares = [figure for designs in found.designs.values() for figure in _gained_and_kept(designs)]
    animation = found.folder / "blends" / SWEEP_SET / "sweep.webp"
    small = animation.is_file() and animation.stat().st_size <= MAX_ANIMATION_BYTES
    return {
        "rows": rows,
        "of": len(found.sweeps),
        "curve": curve,
        "identity": charts.identity_chart(shares) if len(shares) > 1 else None,
        "animation": bytes_uri(animation.read_bytes(), "image/webp") if small else None,
        "equal": _equal_futurism(found.metrics),
        "miss_probe": number_at(found.metrics, "blend.futurism_miss_probe"),
        "miss_reader": number_at(found.metrics, "blend.futurism_miss_reader"),
    }


def _gained_and_kept(designs: Sequence[SavedDesign]) -> list[tuple[float, float]]:
    """Futurism and identity of every design that has both."""
    measured = [(design.number("futurism"), design.number("identity")) for design in designs]
    return [(futurism, identity) for futurism, identity in measured if futurism is not None and identity is not None]


def _equal_futurism(metrics: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(error, ours, the seed's) of what an ordinary parent should keep; empty while it was not measured."""
    path = "blend.equal_futurism"
    rows = [
        (label, number_at(metrics, f"{path}.ours.{key}"), number_at(metrics, f"{path}.seed.{key}"))
        for label, key in (("paint hue (turns)", "hue_error"), ("yaw (degrees)", "yaw_error"))
    ]
    return [row for row in rows if row[1] is not None or row[2] is not None]


# ---- the gallery ------------------------------------------------------------------------------------------------


def gallery(found: Found) -> dict[str, Any] | None:
    """Every design outside the sweep, most futuristic first; the sweep's own when there is no other set."""
    designs = [design for name, made in found.designs.items() if name != SWEEP_SET for design in made]
    designs = designs or found.designs.get(SWEEP_SET, [])
    if not designs:
        return None
    designs.sort(key=lambda design: _or_lowest(design.number("futurism")), reverse=True)
    shown = _spread(designs, MAX_CARDS)
    near = _nearest_pictures(found, shown)
    return {
        "cards": [_card(found, design, near) for design in shown],
        "of": len(designs),
        "sets": sorted({design.set_name for design in shown}),
        "warned": sum(design.verdict == "WARN" for design in designs),
    }


def _or_lowest(value: float | None) -> float:
    return -math.inf if value is None else value


def _nearest_pictures(found: Found, designs: Sequence[SavedDesign]) -> dict[tuple[str, int], np.ndarray]:
    """(set, row) → training picture, each set read once."""
    pictures = {}
    for config in (found.config, found.tuned_config):
        rows = {near.row for design in designs for near in design.nearest if near.set_name == config.data.set}
        read = read_pictures(config.data.hdf5_path("train"), rows)
        pictures |= {(config.data.set, row): picture for row, picture in read.items()}
    return pictures


def _card(found: Found, design: SavedDesign, near: dict[tuple[str, int], np.ndarray]) -> dict[str, Any]:
    names = [name for name in map(design.parent, KINDS) if name]
    thumbs = [_parent_thumb(found, design, kind) for kind in KINDS]
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


def _parent_thumb(found: Found, design: SavedDesign, kind: str) -> dict[str, str] | None:
    name = design.parent(kind)
    return _thumb(f"{kind} parent", name, parent_picture(kind, name, found.inversions))


def _near_text(near: NearestPicture) -> str:
    distance = "" if near.distance is None else f", distance {near.distance:.3g}"
    percentile = "" if near.percentile is None else f", percentile {near.percentile:.1f}"
    return f"{near.set_name} row {near.row}{distance}{percentile}"


def _thumb(label: str, name: str | None, picture: np.ndarray | None) -> dict[str, str] | None:
    if name is None:
        return None
    return {"label": label, "name": name, "uri": "" if picture is None else picture_uri(picture, THUMB_PX)}
