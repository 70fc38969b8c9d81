"""How well the dial works: designs of many held-out pairs, measured by the factor reader, which the probe never sees.

In: inversions of held-out pictures, the futurism probe. Out: figures for metrics.json["blend"].
"""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from blend.generator.dial import DialPath, DialPosition, LatentPairs, Score, dial_position, draw_designs
from blend.generator.styled_generator import StyledGenerator
from harness.features import Reader

INTENSITIES = tuple(k / 10 for k in range(11))
TARGET_SCORES = (10, 30, 50, 70, 90)
# The baseline, an earlier system of one generator, the fine-tuned one: the plain average of two latents.
BASELINE_WEIGHT = 0.5
COLOURED_SATURATION = 0.3  # below this a paint has no clear hue


def draw_sweep(generator: StyledGenerator, pairs: LatentPairs, interpolation: str) -> np.ndarray:
    """uint8 (N, 11, H, W, 3): each pair at all intensities; the style follows."""
    columns = [draw_designs(generator, pairs, [dial_position(t)] * len(pairs), interpolation) for t in INTENSITIES]
    return np.stack(columns, 1)


def sweep_figures(sweep: np.ndarray, reader: Reader, score: Score) -> dict[str, Any]:
    """Rank correlation of intensity and the reader's futurism over each pair's 11 designs; rise in points of 100."""
    count, points = sweep.shape[:2]
    flat = sweep.reshape(-1, *sweep.shape[2:])
    read = 100 * reader.read(flat)["futurism"].reshape(count, points).astype(np.float64)
    probe = score(flat).reshape(count, points)
    # A pair whose score never changes has no ranks: it counts as uncorrelated.
    ranks = np.array([spearmanr(INTENSITIES, row)[0] if np.ptp(row) else 0.0 for row in read])
    return {
        "pairs": count,
        "spearman_mean": float(ranks.mean()),
        "spearman_worst": float(ranks.min()),
        "rise": float(np.median(read[:, -1] - read[:, 0])),
        "accepted": float((reader.read(flat)["car_score"] >= reader.threshold).mean()),
        "curve": {
            "intensity": list(INTENSITIES),
            "reader": np.median(read, 0).round(2).tolist(),
            "reader_p10": np.quantile(read, 0.1, axis=0).round(2).tolist(),
            "reader_p90": np.quantile(read, 0.9, axis=0).round(2).tolist(),
            "probe": np.median(probe, 0).round(2).tolist(),
        },
    }


def target_figures(path: DialPath, read_score: Score) -> dict[str, Any]:
    """By how much designs solved for a futurism miss it, by the probe and by the reader on the same scale.

    Args:
        path: scored by the probe.
        read_score: the reader's futurism, 0 and 100 at the medians of held-out ordinary and concept pictures.
    """
    probe_misses, reader_misses, reachable = [], [], {}
    for target in TARGET_SCORES:
        found = path.solve(np.full(len(path.pairs), float(target))).found
        reachable[str(target)] = len(found)
        if found:
            some, positions = path.pairs.take(list(found)), list(found.values())
            pictures = draw_designs(path.generator, some, positions, path.interpolation)
            probe_misses.append(np.abs(path.score(pictures) - target))
            reader_misses.append(np.abs(read_score(pictures) - target))
    probe, reader = (np.concatenate(m) if m else np.full(1, np.nan) for m in (probe_misses, reader_misses))
    return {
        "futurism_miss_probe": float(np.median(probe)),
        "futurism_miss_reader": float(np.median(reader)),
        "futurism_miss_reader_p90": float(np.quantile(reader, 0.9)),
        "futurism_asked_reachable": reachable,
    }


def equal_futurism_figures(
    path: DialPath, baseline_pairs: LatentPairs, parents: np.ndarray, reader: Reader
) -> dict[str, Any]:
    """What is left of the ordinary car where it is as futuristic as the baseline's design of the same pair.

    For each pair the first point of our path that reads as futuristic as the baseline's; pairs that never do are left
    out of both. Errors of paint hue (turns, coloured parents only) and yaw (degrees) against the ordinary parent's
    picture, uint8 (N, H, W, 3).

    Args:
        path: its score is not used, the reader's is.
        baseline_pairs: ordinary cars inverted in the fine-tuned generator, the baseline's only one.
    """
    count, generator = len(path.pairs), path.generator
    positions = [DialPosition(BASELINE_WEIGHT, 1.0)] * count
    baseline = reader.read(draw_designs(generator, baseline_pairs, positions, "linear"))
    found = replace(path, score=lambda pictures: reader.read(pictures)["futurism"]).solve(baseline["futurism"]).found
    rows = list(found)
    report: dict[str, Any] = {"pairs": len(rows), "of": count, "seed_weight": BASELINE_WEIGHT}
    if not rows:
        return report
    ours = reader.read(draw_designs(generator, path.pairs.take(rows), list(found.values()), path.interpolation))
    parent = reader.read(parents[rows])
    coloured = parent["paint_saturation"] >= COLOURED_SATURATION
    report["coloured_pairs"] = int(coloured.sum())
    for name, values in (("seed", {key: value[rows] for key, value in baseline.items()}), ("ours", ours)):
        hue = np.abs((values["paint_hue"] - parent["paint_hue"] + 0.5) % 1 - 0.5)[coloured]
        report[name] = {
            "futurism": 100 * float(np.median(values["futurism"])),
            "hue_error": float(hue.mean()) if coloured.any() else None,
            "yaw_error": float(np.abs(values["yaw_deg"] - parent["yaw_deg"]).mean()),
        }
    return report


def reader_scale(reader: Reader, ordinary: np.ndarray, concept: np.ndarray) -> Score:
    """The reader's futurism on the probe's scale: 0 and 100 at the medians of these held-out pictures."""
    low, high = (float(np.median(reader.read(pictures)["futurism"])) for pictures in (ordinary, concept))
    return lambda pictures: 100 * (reader.read(pictures)["futurism"].astype(np.float64) - low) / (high - low)
