"""How well the dial works: designs of many held-out pairs, looked at by the factor reader, which the probe never sees.

In: inversions of held-out pictures, the futurism probe. Out: figures for metrics.json["blend"], and a set of sweeps.
"""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from blend.generator.dial import Pairs, Score, Setting, draw_designs, scan_path, setting_at, solve
from blend.generator.styled_generator import StyledGenerator
from harness.features import Reader

INTENSITIES = tuple(k / 10 for k in range(11))
ASKED = (10, 30, 50, 70, 90)
SEED_WEIGHT = 0.5  # the first seed's blend: the plain average of two latents of its one generator, the fine-tuned one
COLOURED_SATURATION = 0.3  # below, a paint's hue says nothing


def draw_sweep(generator: StyledGenerator, pairs: Pairs, how: str) -> np.ndarray:
    """uint8 (N, 11, H, W, 3): each pair at all intensities, the style following."""
    columns = [draw_designs(generator, pairs, [setting_at(t)] * len(pairs), how) for t in INTENSITIES]
    return np.stack(columns, 1)


def sweep_figures(sweep: np.ndarray, reader: Reader, score: Score) -> dict[str, Any]:
    """Rank correlation of intensity and futurism read, for each pair over its 11 designs; rise in points (0 to 100)."""
    count, points = sweep.shape[:2]
    flat = sweep.reshape(-1, *sweep.shape[2:])
    read = 100 * reader.read(flat)["futurism"].reshape(count, points).astype(np.float64)
    probe = score(flat).reshape(count, points)
    # A pair that does not move at all has no ranks to compare: nothing follows the dial there.
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


def asked_figures(
    generator: StyledGenerator, pairs: Pairs, score: Score, read_score: Score, latent_share: float, how: str
) -> dict[str, Any]:
    """By how much designs that were solved for a futurism miss it, by the probe and by the reader on the same scale.

    Args:
        read_score: the reader's futurism, 0 and 100 at the medians of held-out ordinary and concept pictures.
    """
    scan = scan_path(generator, pairs, score, latent_share, how)
    probe_misses, reader_misses, reachable = [], [], {}
    for asked in ASKED:
        solved = solve(generator, pairs, np.full(len(pairs), float(asked)), score, latent_share, how, scan)
        reachable[str(asked)] = len(solved.found)
        if solved.found:
            pictures = draw_designs(generator, pairs.take(list(solved.found)), list(solved.found.values()), how)
            probe_misses.append(np.abs(score(pictures) - asked))
            reader_misses.append(np.abs(read_score(pictures) - asked))
    probe, reader = (np.concatenate(m) if m else np.full(1, np.nan) for m in (probe_misses, reader_misses))
    return {
        "futurism_miss_probe": float(np.median(probe)),
        "futurism_miss_reader": float(np.median(reader)),
        "futurism_miss_reader_p90": float(np.quantile(reader, 0.9)),
        "futurism_asked_reachable": reachable,
    }


def equal_futurism_figures(
    generator: StyledGenerator,
    pairs: Pairs,
    seed_pairs: Pairs,
    parents: np.ndarray,
    reader: Reader,
    latent_share: float,
    how: str,
) -> dict[str, Any]:
    """What is left of the ordinary car where it is as futuristic as the first seed's plain average of latents.

    For each pair the first place on our path that reads as futuristic as the seed's blend; pairs that never do are left
    out of both. Errors of paint hue (turns, coloured parents only) and yaw (degrees) against the ordinary parent's
    picture, uint8 (N, H, W, 3).

    Args:
        seed_pairs: as the seed has them: ordinary cars inverted in the fine-tuned generator too.
    """
    seed = reader.read(draw_designs(generator, seed_pairs, [Setting(SEED_WEIGHT, 1.0)] * len(pairs), "linear"))
    solved = solve(generator, pairs, seed["futurism"], lambda p: reader.read(p)["futurism"], latent_share, how)
    rows, settings = list(solved.found), list(solved.found.values())
    report: dict[str, Any] = {"pairs": len(rows), "of": len(pairs), "seed_weight": SEED_WEIGHT}
    if not rows:
        return report
    ours = reader.read(draw_designs(generator, pairs.take(rows), settings, how))
    parent = reader.read(parents[rows])
    coloured = parent["paint_saturation"] >= COLOURED_SATURATION
    report["coloured_pairs"] = int(coloured.sum())
    for name, values in (("seed", {key: value[rows] for key, value in seed.items()}), ("ours", ours)):
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
