"""Designs on request: all pairs of two sets of parents, one pair over a range, or cars drawn by seed.

In: a request. Out: a set of designs in runs/<base>/blends/, each with its measures.
"""

import math
import re
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from blend.designs.design_set import SWEEP_SET, Design, holds_another, is_made, save_designs
from blend.designs.parents import InvertedPairs, held_out_pairs, invert_pairs, load_parents
from blend.generator.dial import DialPath, DialPosition, LatentPairs, dial_position, draw_designs, out_of_reach
from blend.generator.styled_generator import StyledGenerator, label_of, load_generator
from blend.measures.measures import load_measures
from harness.config.experiment import Config
from harness.errors import UserError
from harness.messages import counted, log
from harness.storage.cache import key_sha256
from harness.web.embed import save_sweep_webp

GALLERY_ORDINARY, GALLERY_CONCEPT = 7, 15  # held-out parents of a request without any: 105 pairs
SHORT_HASH = 8
MAX_SEEDS = 10_000
NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Request:
    """`range`: intensities of one pair. `seeds`: cars without parents. `label`: class of the ordinary cars, or a mix;
    None = predicted, or drawn by seed.

    Without folders, parents are held-out pictures of both sets.
    """

    ordinary: Path | None = None
    concept: Path | None = None
    intensity: float | None = None
    style: float | None = None
    futurism: float | None = None
    range: tuple[float, float, int] | None = None
    seeds: tuple[int, ...] | None = None
    label: str | None = None
    name: str | None = None

    @property
    def kind(self) -> Literal["pairs", "seeds", "range"]:
        return "seeds" if self.seeds else "range" if self.range else "pairs"


@dataclass(frozen=True)
class ResolvedRequest:
    """A request with its latents: one entry a design."""

    pairs: LatentPairs
    designs: list[Design]  # their positions are not yet known for a target futurism
    parents: np.ndarray  # uint8 (N, H, W, 3): the picture that each design's identity is measured against
    facts: dict[str, Any]
    columns: int | None

    def take(self, found: dict[int, DialPosition], futurism: float) -> "ResolvedRequest":
        """The designs that reach this futurism, each at the position where it does."""
        designs = [
            replace(self.designs[row], position=position, intensity=None, target_futurism=futurism)
            for row, position in found.items()
        ]
        rows, columns = list(found), self.columns if len(found) == len(self.designs) else None
        return ResolvedRequest(self.pairs.take(rows), designs, self.parents[rows], self.facts, columns)


def blend_command(config: Config, request: Request) -> Path:
    """Draws, measures and saves a set; returns its folder. The same request is not drawn twice."""
    request = _completed(config, request)
    generator = load_generator(config)
    resolved = _seeded(generator, request) if request.seeds else _paired(config, generator, request)
    facts = {
        **resolved.facts,
        "kind": request.kind,
        "dial": {key: getattr(request, key) for key in ("intensity", "style", "futurism", "range")},
        "blend": config.blend.model_dump(mode="json"),
        "generators": generator.sha256s,
    }
    name = request.name or f"{request.kind}-{key_sha256(facts)[:SHORT_HASH]}"
    folder = generator.folder / "blends" / name
    if is_made(folder, facts):
        return folder
    if request.name and holds_another(folder, facts):
        raise UserError(f"name: found {name!r}, which holds other designs, allowed a new name; or move {folder} away")
    measures = load_measures(config, generator)
    interpolation = config.blend.interpolation
    if request.futurism is not None:
        path = DialPath(generator, resolved.pairs, measures.futurism, config.blend.latent_share, interpolation)
        solutions = path.solve(np.full(len(resolved.designs), request.futurism))
        names = [design.name for design in resolved.designs]
        if missing := out_of_reach(solutions, request.futurism, names):
            reached = f"{len(solutions.found)} of {len(names)} pairs reach it"
            log("\n  ".join([f"futurism {request.futurism:g}: {reached}; these do not:", *missing]))
        resolved = resolved.take(solutions.found, request.futurism)
    designs = resolved.designs
    log(f"drawing and measuring {counted(len(designs), 'design')}")
    pictures = draw_designs(generator, resolved.pairs, [design.position for design in designs], interpolation)
    save_designs(folder, facts, designs, pictures, measures.measure(pictures, resolved.parents), resolved.columns)
    if request.range:
        save_sweep_webp(folder / "sweep.webp", pictures)
    return folder


def _completed(config: Config, request: Request) -> Request:
    """The request with the config's intensity as default; UserError for what cannot be combined."""
    dials = [key for key in ("intensity", "futurism", "range") if getattr(request, key) is not None]
    if len(dials) > 1:
        raise UserError(f"{', '.join(dials)}: found {len(dials)} of them, allowed one, try --{dials[0]} alone")
    if request.style is not None and "intensity" not in dials and dials:
        raise UserError(f"style: found with {dials[0]}, which sets the style itself, allowed with --intensity")
    if request.seeds and (request.ordinary or request.concept or request.range):
        raise UserError("seeds: found with parents or a range, allowed alone or with --intensity, --style, --futurism")
    if (request.ordinary is None) != (request.concept is None):
        lacking = "concept" if request.concept is None else "ordinary"
        raise UserError(
            f"{lacking}: found none, allowed a folder or a picture for each parent, try --{lacking} path/to"
        )
    if request.label is not None and not (request.seeds or request.ordinary):
        raise UserError("label: found without cars, allowed with --ordinary and --concept, or --seeds")
    if request.name is not None and (not NAME_FORM.fullmatch(request.name) or request.name == SWEEP_SET):
        raise UserError(
            f"name: found {request.name!r}, allowed letters, digits, '.', '_', '-', a letter or digit first, and not "
            f"{SWEEP_SET}, the set of make measure; try --name mine"
        )
    if request.futurism is not None and not math.isfinite(request.futurism):
        raise UserError(f"futurism: found {request.futurism:g}, allowed a number, try --futurism 70")
    if dials:
        return request
    style = config.blend.style if request.style is None else request.style
    return replace(request, intensity=config.blend.intensity, style=style)


def _position(request: Request, intensity: float | None = None) -> DialPosition:
    t = request.intensity if intensity is None else intensity
    return DialPosition(0.0, 0.0) if t is None else dial_position(t, request.style)


# ---- with parents ----


def _paired(config: Config, generator: StyledGenerator, request: Request) -> ResolvedRequest:
    inverted, counts = _inverted_pairs(config, generator, request)
    rows = list(product(*(range(count) for count in counts)))
    intensities: list[float | None] = [request.intensity]
    if request.range:
        if len(rows) > 1:
            raise UserError(f"range: found {len(rows)} pairs of parents, allowed one, try a picture for each parent")
        start, end, count = request.range
        intensities = list(np.linspace(start, end, count).round(6).tolist())
    designs = [
        Design(_position(request, t), t, inverted.ordinary.names[a], inverted.concept.names[b])
        for a, b in rows
        for t in intensities
    ]
    first, second = ([row[k] for row in rows for _ in intensities] for k in (0, 1))
    return ResolvedRequest(
        inverted.pairs(first, second),
        designs,
        inverted.parents(first),
        {**inverted.facts, "counts": list(counts)},
        columns=len(designs) if request.range else counts[1],
    )


def _inverted_pairs(
    config: Config, generator: StyledGenerator, request: Request
) -> tuple[InvertedPairs, tuple[int, int]]:
    """The parents and how many of each: the given folders, or some of the held-out pictures."""
    if request.ordinary is not None and request.concept is not None:
        ordinary = load_parents(config, generator, request.ordinary, request.label)
        inverted = invert_pairs(config, generator, ordinary, load_parents(config, generator, request.concept))
        return inverted, (len(inverted.ordinary), len(inverted.concept))
    inverted = held_out_pairs(config, generator)
    limits = (1, 1) if request.range else (GALLERY_ORDINARY, GALLERY_CONCEPT)
    return inverted, (min(limits[0], len(inverted.ordinary)), min(limits[1], len(inverted.concept)))


# ---- by seed ----


def _seeded(generator: StyledGenerator, request: Request) -> ResolvedRequest:
    seeds = list(request.seeds or ())
    label = label_of(generator, request.label)
    z, y = generator.draw_by_seed(seeds, label)
    designs = [Design(_position(request), request.intensity, seed=seed) for seed in seeds]
    # Identity is measured against the same latent drawn by the base run.
    parents = generator.draw(z, 0.0, y)
    columns = max(1, round(len(seeds) ** 0.5))
    return ResolvedRequest(
        LatentPairs(z, None, y),
        designs,
        parents,
        {"seeds": seeds, "label": label},
        columns,
    )


def text_to_range(text: str) -> tuple[float, float, int]:
    """`0:1:11` → (0.0, 1.0, 11): from, to, count. UserError for anything else."""
    try:
        start, end, count = text.split(":")
        found = float(start), float(end), int(count)
    except ValueError:
        found = math.nan, math.nan, 0
    if not (0 <= found[0] <= 1 and 0 <= found[1] <= 1 and 2 <= found[2] <= 1001):
        raise UserError(f"range: found {text!r}, allowed from:to:count with 0 to 1 and 2 or more, try --range 0:1:11")
    return found


def text_to_seeds(text: str) -> list[int]:
    """`0-31,40` → [0, 1, ..., 31, 40]. UserError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UserError(f"seeds: found {text!r}, allowed numbers and ranges, try --seeds 0-31 or --seeds 3,5,8-12")
        if len(seeds) + int(last or first) - int(first) >= MAX_SEEDS:
            raise UserError(f"seeds: found more than {MAX_SEEDS:,} in {text!r}, allowed fewer, try --seeds 0-31")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: found one twice in {text!r}, allowed each once, try --seeds 0-31")
    return seeds
