"""`make invert` and `make measure`: latents of pictures, and how well the dial works on held-out ones."""

from pathlib import Path
from typing import Any

import numpy as np

from blend.designs.design_set import SWEEP_SET, Design, is_made, save_designs
from blend.designs.parents import InvertedPairs, held_out_pairs, load_parents
from blend.encoder.model import load_encoders
from blend.generator.dial import DialPath, dial_position, draw_designs
from blend.generator.input_pictures import load_held_out
from blend.generator.kinds import Kind
from blend.generator.styled_generator import StyledGenerator, load_generator
from blend.inversion.cached import invert_parents
from blend.inversion.figures import measure_inversion
from blend.measures.class_kept import brand_kept_figures
from blend.measures.measures import Measures, load_measures
from blend.measures.sweep import (
    INTENSITIES,
    draw_sweep,
    equal_futurism_figures,
    reader_scale,
    sweep_figures,
    target_figures,
)
from harness.config.experiment import Config, finetune_config
from harness.features import load_reader
from harness.images.decode import picture_grid
from harness.storage.cache import key_sha256
from harness.storage.splits import annotate_figures
from harness.web.embed import save_sweep_webp

VERSION = 1  # of the figures: raise it when the same parents give others
SHOWN_PAIRS = 8  # in the set `sweep`
ANIMATION_FRAMES, ANIMATION_COLUMNS, ANIMATION_WIDTH_PX = 21, 2, 520
HELD_OUT_LIMIT = 2000  # pictures for the reader's scale


def invert_command(config: Config, src: Path | None, kind: Kind, label: str | None = None) -> list[Path]:
    """Inverts a folder of pictures, or the held-out pictures of both sets with figures; returns the sheets."""
    generator = load_generator(config, need_tuned=src is None or kind == "concept")
    encoders = load_encoders(config, generator)
    if src is not None:
        parents = load_parents(config, generator, src, label)
        return [invert_parents(config, generator, encoders, parents, kind).path.with_suffix(".png")]
    measure_inversion(config, generator, encoders)
    inverted = held_out_pairs(config, generator)
    return [found.path.with_suffix(".png") for found in (inverted.ordinary, inverted.concept)]


def measure_command(config: Config) -> Path:
    """Measures the dial on `blend.pairs` pairs of held-out pictures; writes metrics["blend"] and the set `sweep`.

    Returns the path of metrics.json. The same request is not measured twice.
    """
    generator = load_generator(config)
    rundir = generator.base.run
    inverted = held_out_pairs(config, generator, for_baseline=True)
    rows = list(range(min(config.blend.pairs, len(inverted.ordinary), len(inverted.concept))))
    request = {
        "kind": "sweep",
        "version": VERSION,
        **inverted.facts,
        "blend": config.blend.model_dump(mode="json"),
        "generators": generator.sha256s,
    }
    if generator.num_classes:
        request |= {"brand_classifier": config.evaluate.brand_classifier}
    folder = rundir.path / "blends" / SWEEP_SET
    sha256 = key_sha256(request)
    if is_made(folder, request) and rundir.read_metrics().get("blend", {}).get("request_sha256") == sha256:
        return rundir.metrics_path
    measures = load_measures(config, generator)
    figures = _figures(config, generator, measures, inverted, rows)
    _save_sweep(config, generator, measures, folder, request, inverted, rows[:SHOWN_PAIRS])
    rundir.write_metrics("blend", {**figures, "request_sha256": sha256})
    return rundir.metrics_path


def _figures(
    config: Config, generator: StyledGenerator, measures: Measures, inverted: InvertedPairs, rows: list[int]
) -> dict[str, Any]:
    pairs, parents, reader = inverted.pairs(rows, rows), inverted.parents(rows), load_reader()
    path = DialPath(generator, pairs, measures.futurism, config.blend.latent_share, config.blend.interpolation)
    held_out = [load_held_out(part.data, HELD_OUT_LIMIT) for part in (config, finetune_config(config))]
    read_score = reader_scale(reader, *(part.pictures for part in held_out))
    sweep, brand = draw_sweep(generator, pairs, path.interpolation), {}
    if pairs.y is not None:
        brand = {"brand": brand_kept_figures(config, sweep, parents, pairs.y.numpy(), INTENSITIES)}
    figures = {
        **sweep_figures(sweep, reader, measures.futurism),
        **brand,
        **target_figures(path, read_score),
        "equal_futurism": equal_futurism_figures(path, inverted.baseline_pairs(rows, rows), parents, reader),
    }
    return annotate_figures(figures, [part.note for part in held_out])


def _save_sweep(
    config: Config,
    generator: StyledGenerator,
    measures: Measures,
    folder: Path,
    request: dict[str, Any],
    inverted: InvertedPairs,
    rows: list[int],
) -> None:
    """The first pairs at all intensities as a set of designs, with an animation."""
    some, interpolation = inverted.pairs(rows, rows), config.blend.interpolation
    sweep = draw_sweep(generator, some, interpolation)
    names = inverted.ordinary.names, inverted.concept.names
    designs = [Design(dial_position(t), t, names[0][k], names[1][k]) for k in rows for t in INTENSITIES]
    parents = np.repeat(inverted.parents(rows), len(INTENSITIES), axis=0)
    flat = sweep.reshape(-1, *sweep.shape[2:])
    save_designs(folder, request, designs, flat, measures.measure(flat, parents), len(INTENSITIES))
    frames = [
        picture_grid(
            draw_designs(generator, some, [dial_position(float(t))] * len(some), interpolation), ANIMATION_COLUMNS
        )
        for t in np.linspace(0, 1, ANIMATION_FRAMES)
    ]
    save_sweep_webp(folder / "sweep.webp", np.stack(frames), ANIMATION_WIDTH_PX)
