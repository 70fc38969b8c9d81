"""Trains the view classifier on procedural pictures alone: its small network, or linear heads on other features.

`python -m datasets sorter train` trains the network with its heads, `--features mobilenet_v2` heads on those features.
The result depends on the arguments alone.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from datasets.clean.few_shot import standardised, unscaled
from datasets.clean.kinds import KINDS
from datasets.clean.manual_labels import VIEWS
from datasets.clean.view_classifier import SWAPPED, Heads, ViewClassifier, heads_path, split_features
from datasets.procedural.messy import USABLE
from datasets.train_shipped.augment import augment, uniform, warp
from datasets.train_shipped.fit import fit, set_seed, to_float, write_weights
from datasets.train_shipped.view_data import DrawnViews, draw_messy_inputs, draw_training_set
from harness.features.view_features import ViewFeatures, load_view_features
from harness.features.view_net import VIEW_NET_PATH, ViewNet, load_view_net, view_net_to_bytes
from harness.features.weights_file import tensors_to_bytes
from harness.messages import log
from harness.runtime.device import one_thread

SEED_BASE = 88_000_000
DRAWN_PX = 96  # of the small network's training pictures, before augmentation
BATCH, SMOOTHING = 96, 0.02
BLOCK = 200  # pictures in memory at once while features are computed
KIND_C, VIEW_C = 0.03, 0.01  # scikit-learn's C, on standardised features
CALIBRATION = 960  # files of the procedural messy set
# The threshold is the lowest that reaches this balanced accuracy on messy files (or the best possible): photos differ
# from renders more than renders do from one another, and losing a usable photo is worse than keeping a bad one.
TARGET_ACCURACY = 0.98


def train_net(drawn: DrawnViews, steps: int, seed: int) -> ViewNet:
    """The network, trained on kinds and views of drawn pictures for `steps` updates."""

    def losses_of(network: ViewNet, rows: np.ndarray, rng: torch.Generator) -> dict[str, Tensor]:
        x, mirrored = _augmented_batch(drawn.inputs[rows], rng)
        return _losses(network(x), drawn.kinds[rows], drawn.views[rows], mirrored)

    return fit(lambda: ViewNet(len(KINDS) + len(VIEWS)), losses_of, len(drawn.kinds), BATCH, steps, seed)


def _augmented_batch(inputs: np.ndarray, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented pictures float32 (B, 3, 64, 64) in [-1, 1], and which are mirrored, bool (B,)."""
    x = to_float(inputs)
    mirrored = torch.rand(len(x), generator=rng) < 0.5
    bend = uniform(rng, -0.01, 0.012, len(x)).clamp(min=0)
    x = warp(x, rng, 0.05, bend, 5, uniform(rng, 0.85, 1.15, len(x)), mirrored)
    x = augment(x, rng, ViewNet.SIZE_PX) * 2 - 1
    return x.contiguous(memory_format=torch.channels_last), mirrored


def _losses(outputs: Tensor, kinds: np.ndarray, views: np.ndarray, mirrored: Tensor) -> dict[str, Tensor]:
    seen = np.where(mirrored.numpy() & (views >= 0), SWAPPED[views], views)
    kind, view = outputs[:, : len(KINDS)], outputs[:, len(KINDS) :]
    return {
        "kinds": F.cross_entropy(kind, torch.from_numpy(kinds), label_smoothing=SMOOTHING),
        "views": F.cross_entropy(view, torch.from_numpy(seen), label_smoothing=SMOOTHING, ignore_index=-1),
    }


# ---- heads ------------------------------------------------------------------------------------------------------


def net_heads(network: ViewNet) -> dict[str, np.ndarray]:
    """The network's own heads as `Heads` has them: zero for the layout features."""
    whole = np.zeros((ViewNet.SIDED, len(KINDS) + len(VIEWS)), np.float32)
    whole[: ViewNet.DIM] = network.heads.weight.T.detach().numpy()
    return _heads(*np.split(whole, [len(KINDS)], 1), *np.split(network.heads.bias.detach().numpy(), [len(KINDS)]))


def _heads(
    kind_weight: np.ndarray, view_weight: np.ndarray, kind_bias: np.ndarray, view_bias: np.ndarray
) -> dict[str, np.ndarray]:
    return {"kind_weight": kind_weight, "kind_bias": kind_bias, "view_weight": view_weight, "view_bias": view_bias}


def fit_heads(featurizer: ViewFeatures, features: np.ndarray, drawn: DrawnViews) -> dict[str, np.ndarray]:
    """Logistic regressions on features (N, dim) of drawn pictures; for views also of their mirror images."""
    whole, here, mirrored = split_features(featurizer, features)
    kind_weight, kind_bias = _fit(whole, drawn.kinds, KIND_C)
    seen = drawn.views >= 0
    rows, labels = np.concatenate([here[seen], mirrored[seen]]), drawn.views[seen]
    view_weight, view_bias = _fit(rows, np.concatenate([labels, SWAPPED[labels]]), VIEW_C)
    return _heads(kind_weight, view_weight, kind_bias, view_bias)


def _fit(rows: np.ndarray, labels: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    scaled, mean, scale = standardised(rows)
    model = LogisticRegression(C=strength, max_iter=500).fit(scaled, labels)
    affine = unscaled(model.coef_.T, model.intercept_, mean, scale)
    return affine.weight.astype(np.float32), affine.bias.astype(np.float32)


def drawn_features(featurizer: ViewFeatures, count: int, seed: int, workers: int) -> tuple[np.ndarray, DrawnViews]:
    """Features float32 (N, dim) of drawn pictures, with their kinds and views; pictures are dropped block by block."""
    features, parts = [], []
    for start in range(0, count, BLOCK):
        part = draw_training_set(min(BLOCK, count - start), seed, featurizer.input_px, workers, start)
        features.append(featurizer(part.inputs))
        parts.append(part)
        if start // BLOCK % 5 == 4:
            log(f"features of {start + len(part.kinds)}/{count} pictures")
    kinds, views = (np.concatenate([getattr(part, name) for part in parts]) for name in ("kinds", "views"))
    return np.concatenate(features), DrawnViews(np.zeros((0, 1, 1, 3), np.uint8), kinds, views)


def heads_to_bytes(featurizer: ViewFeatures, parts: dict[str, np.ndarray], recipe: dict[str, Any], seed: int) -> bytes:
    """The heads' file; the threshold is calibrated on the procedural messy set, which training did not use."""
    halves = {name: torch.from_numpy(np.ascontiguousarray(value)).half() for name, value in parts.items()}
    rounded = {name: value.float().numpy() for name, value in halves.items()}
    classifier = ViewClassifier(featurizer, Heads(**rounded, threshold=0.0, sha256=""), "", 0.0)
    inputs, kinds = draw_messy_inputs(CALIBRATION, set_seed(SEED_BASE, seed, "calibration"), featurizer.input_px)
    threshold = lenient_threshold(classifier.predict(classifier.features(inputs)).ok_score, np.isin(kinds, USABLE))
    meta = {"featurizer": featurizer.sha256, "threshold": threshold, "recipe": recipe}
    return tensors_to_bytes("sorter_heads", halves, meta)


def lenient_threshold(scores: np.ndarray, usable: np.ndarray) -> float:
    """See TARGET_ACCURACY; scores (N,) in [0, 1], bool (N,)."""
    tried = np.linspace(0.01, 0.99, 99)
    balance = np.array([0.5 * ((scores[usable] >= t).mean() + (scores[~usable] < t).mean()) for t in tried])
    return float(tried[np.argmax(balance >= min(TARGET_ACCURACY, balance.max()))])


def train_view_classifier(name: str, count: int, steps: int, seed: int, workers: int) -> Path:
    """Writes the heads' file for these features and returns its path; for "reader" the network's file first."""
    started_sec, recipe = time.process_time(), {"count": count, "seed": seed}
    train_seed = set_seed(SEED_BASE, seed, "train")
    with one_thread():
        if name == "reader":
            recipe |= {"steps": steps, "drawn_px": DRAWN_PX}
            drawn = draw_training_set(count, train_seed, DRAWN_PX, workers)
            log(f"drew {count} pictures")
            content = view_net_to_bytes(train_net(drawn, steps, seed), {"recipe": recipe})
            write_weights(VIEW_NET_PATH, content, started_sec)
            featurizer, parts = load_view_features(name), net_heads(load_view_net()[0])
        else:
            featurizer = load_view_features(name)
            parts = fit_heads(featurizer, *drawn_features(featurizer, count, train_seed, workers))
        content = heads_to_bytes(featurizer, parts, recipe, seed)
    write_weights(heads_path(name), content, started_sec)
    return heads_path(name)


def train_command(
    features: Annotated[str, typer.Option(help="reader, mobilenet_v2 or resnet18.")] = "reader",
    count: Annotated[int, typer.Option(min=500, help="Pictures to draw.")] = 6000,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the small network.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Train the view classifier on procedural pictures. Prints the file's path."""
    print(train_view_classifier(features, count, steps, seed, workers))
