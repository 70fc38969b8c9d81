"""What the factor reader says of a run: are its samples cars, how futuristic, do they differ, are they like real ones?

In: a run folder with a checkpoint, and the packed sets of its config. Out: nested figures, kept in metrics.json(l).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config import Config, check_config, complete_config
from harness.errors import UserError
from harness.features import Reader, load_reader
from harness.hdf5 import open_packed
from harness.metrics.distances import kid, nearest_distances, pairwise_distances
from harness.native.build import build_networks
from harness.native.checkpoint import load_weights, newest_checkpoint, read_meta
from harness.native.device import prepare_hardware
from harness.native.draws import Draws
from harness.native.sampling import latents_to_pictures, standing_copy
from harness.rundir import RunDir


def read_run(name: str, count: int = 500, seed: int = 0, root: Path = Path("runs")) -> dict[str, Any]:
    """Figures of `count` samples of the run's newest checkpoint, beside those of real pictures it never saw."""
    rundir, reader = RunDir.existing(name, root), load_reader()
    folder = newest_checkpoint(rundir.checkpoints, lambda text: print(text, file=sys.stderr))
    if folder is None:
        raise UserError(f"run: {rundir.path} has no checkpoint yet; try `make train`")
    config = rundir.read_config()
    held_out, train = (_read_rows(config, split, count) for split in ("valid", "train"))
    samples = sample_checkpoint(folder, count, seed)
    figures = {
        "run": name,
        "step": read_meta(folder)["step"],
        "reader_sha256": reader.sha256,
        "samples": picture_figures(reader, samples, held_out),
        # What a generator that drew from the training pictures themselves would get.
        "training_pictures": picture_figures(reader, train, held_out),
        "held_out_pictures": picture_figures(reader, held_out),
    }
    rundir.write_metrics("reader", figures)
    return figures


def sample_checkpoint(folder: Path, count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, H, W, 3) drawn by a checkpoint's generator (its moving average where there is one)."""
    meta = read_meta(folder)
    config, num_classes = check_config(complete_config(meta["config"]), str(folder)), meta["num_classes"]
    device = prepare_hardware(config.train).device
    generator, _ = build_networks(config, num_classes, device)
    averaged = (folder / "generator_ema.safetensors").exists()
    generator.load_state_dict(load_weights(folder, "generator_ema" if averaged else "generator"))
    z, y = Draws(seed, torch.device("cpu")).latents("evaluate", 0, count, config.model.z_dim, num_classes)
    return latents_to_pictures(standing_copy(generator, config.model.z_dim, num_classes), z, y)


def picture_figures(reader: Reader, pictures: np.ndarray, real: np.ndarray | None = None) -> dict[str, Any]:
    """Shares, means and distances of uint8 (N, H, W, 3); KID against `real` where given."""
    seen, features = reader.read(pictures), reader.featurizer(pictures)
    pairs, nearest = pairwise_distances(features), nearest_distances(features)
    figures = {
        "pictures": len(pictures),
        "accepted": float((seen["car_score"] >= reader.threshold).mean()),
        "futurism": float(seen["futurism"].mean()),
        "futurism_std": float(seen["futurism"].std()),
        "pair_distance_median": float(np.median(pairs)),
        "pair_distance_p05": float(np.quantile(pairs, 0.05)),
        "nearest_distance_median": float(np.median(nearest)),  # depends on N: compare equal numbers
    }
    if real is not None:
        figures["kid"] = kid(features, reader.featurizer(real))
    return figures


def _read_rows(config: Config, split: Any, count: int) -> np.ndarray:
    """Up to `count` pictures of a packed set, evenly spread over it: uint8 (N, H, W, 3)."""
    with open_packed(config.data.hdf5_path(split)) as packed:
        rows = np.linspace(0, packed.count - 1, min(count, packed.count)).round().astype(np.int64)
        return packed.read(rows)
