"""A tiny run, the run fine-tuned from it, and their packed sets: weights are random, so writing them takes no time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blend.encoder.train
import harness.checkpoints.sampling
import harness.networks.encoder
from blend.encoder.model import build_encoder, encoder_folder, generator_keys, generator_shape
from blend.generator.styled_generator import load_generator
from harness.checkpoints.checkpoint import checkpoint_folder, save_checkpoint
from harness.config.experiment import Config, config_to_dict, config_to_yaml, finetune_config, load_config
from harness.features.efficientnet_lite0 import CHANNELS
from harness.features.frozen_maps import LITE0_BLOCKS
from harness.networks.build import build_encoder_and_heads, build_networks
from harness.runtime.device import one_thread
from harness.storage.hdf5 import PackedWriter
from harness.storage.rundir import RunDir
from tests.commands import ROOT

BASE = ROOT / "configs/base.yaml"
SIZE, Z_DIM = 32, 8
CLASS_NAMES = ["ordinary", "concept"]
TRAIN_COUNT, VALID_COUNT = 40, 16
MAP_CHANNELS = tuple(CHANNELS[block] for block in LITE0_BLOCKS)
TINY: dict[str, Any] = {
    "name": "tiny",
    "data.set": "cars",
    "data.img_size": SIZE,
    "model.z_dim": Z_DIM,
    "model.g_conv_dim": 4,
    "model.d_conv_dim": 4,
    "train.device": "cpu",
    "train.precision": "fp32",
    "train.threads": 1,
    "finetune.override": {"data": {"set": "concept", "kind": "concept"}},
    "encoder.stem": "small",
    "encoder.width": 8,
    "encoder.head_dims": [16],
    "encoder.skip_pictures": 256,
    "encoder.batch_size": 8,
    "encoder.total_steps": 12,
    "encoder.log_every_steps": 3,
    "encoder.save_every_steps": 5,
    "encoder.picture_every_steps": 2,
    "encoder.valid_count": 16,
    "encoder.polish_steps": 0,
    "inversion.count": 4,
    "inversion.steps": 5,
    "inversion.lr": 0.05,
    "inversion.features_lambda": 1.0,
    "inversion.prior_lambda": 0.001,
    "inversion.batch_size": 4,
    "blend.pairs": 3,
}
CONDITIONAL: dict[str, Any] = {"model__g_cond_mtd": "cBN", "model__d_cond_mtd": "PD"}
# An encoder that learns together with the generator.
JOINT: dict[str, Any] = {
    "model__backbone": "subpixel", "model__g_conv_dim": 8, "model__d_conv_dim": 8, "reconstruction__apply": True,
    "reconstruction__encoder_width": 8, "optim__d_updates_per_step": 1,
}  # fmt: skip


def tiny_config(**changes: Any) -> Config:
    """TINY with changes; `__` in a name stands for the dot."""
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(BASE, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Short standing statistics, a small skip and no curves, which would take longer than the tiny steps."""
    patch.setattr(harness.checkpoints.sampling, "STANDING_BATCHES", 1)
    patch.setattr(harness.networks.encoder, "SKIP_PIXELS", 64)
    patch.setattr(blend.encoder.train, "save_curves", lambda *_: None)


@contextmanager
def quick_work(folder: Path) -> Iterator[None]:
    """Quick, with one thread and in this folder: for what is made once for many tests."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch, one_thread():
        make_quick(patch)
        patch.chdir(folder)
        yield
    torch.use_deterministic_algorithms(deterministic)


def make_tiny_runs(root: Path, tuned: bool = True, **changes: Any) -> Config:
    """Writes below `root`, whatever the working directory is: runs/tiny, runs/tiny-freezed and the sets of both.

    Commands find them once the working directory is `root`. With CONDITIONAL as changes there are two classes, with
    `data__valid_fraction=0` no pictures are held out (and concept ones are dark, to separate the kinds with a few).
    """
    config = tiny_config(**changes)
    for seed, part in enumerate([config, finetune_config(config)]):
        light = 1.0 if config.data.valid_fraction else 1 - 0.6 * seed
        write_packed(root, part, "train", TRAIN_COUNT, seed=10 + seed, light=light)
        if part.data.valid_fraction:
            write_packed(root, part, "valid", VALID_COUNT, seed=20 + seed, light=light)
    write_run(root, config, config, moved_by=0.0)
    if tuned:
        write_run(root, finetune_config(config), config, moved_by=0.1)
    return config


def add_encoder(config: Config) -> None:
    """Adds an untrained encoder to the runs of the working directory."""
    generator = load_generator(config)
    encoder = build_encoder(config, generator)
    steps = config.encoder.total_steps
    facts = {
        "step": steps,
        "config": config_to_dict(config),
        "generator": generator_keys(generator, with_finetuned=True),
        "shape": generator_shape(generator),
    }
    place = checkpoint_folder(encoder_folder(generator) / "checkpoints", steps)
    place.parent.mkdir(parents=True)
    save_checkpoint(place, {"encoder": encoder.state_dict()}, {"step": steps}, facts)


def coarse_pictures(count: int, seed: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Random pictures of 4 x 4 tiles."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        yield np.kron(coarse, np.ones((height // 4, width // 4, 1), np.uint8))


def write_packed(root: Path, config: Config, split: Any, count: int, seed: int, light: float = 1.0) -> Path:
    """Smooth random pictures in two classes, where data.set and data.img_size say."""
    path = root / config.data.hdf5_path(split)
    with PackedWriter(path, *config.data.img_size, CLASS_NAMES, {"made_by": "tests"}) as writer:
        for number, picture in enumerate(coarse_pictures(count, seed, *config.data.img_size)):
            writer.append((light * picture).astype(np.uint8), number % 2)
    return path


def write_run(root: Path, config: Config, start: Config, moved_by: float, step: int = 4) -> Path:
    """runs/<config.name> with one checkpoint: the random weights of `start`, each moved at random by `moved_by`."""
    rundir = RunDir(root / "runs" / config.name)
    rundir.checkpoints.mkdir(parents=True)
    rundir.config_path.write_text(config_to_yaml(config))
    num_classes = len(CLASS_NAMES) if config.model.conditional else 0
    generator, discriminator = build_networks(start, num_classes, torch.device("cpu"))
    weights: dict[str, torch.nn.Module] = {"generator": generator, "discriminator": discriminator}
    if start.reconstruction.apply:
        encoder, heads = build_encoder_and_heads(start, num_classes, MAP_CHANNELS, torch.device("cpu"))
        weights |= {"encoder": encoder, "feature_heads": heads}
    for number, network in enumerate(weights.values()):
        rng = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(moved_by * weight.std(correction=0) * torch.randn(weight.shape, generator=rng))
    weights["generator_ema"] = generator
    facts = {"step": step, "num_classes": num_classes, "config": config_to_dict(config)}
    facts |= {"class_names": CLASS_NAMES, "data_sha256": None}
    folder = checkpoint_folder(rundir.checkpoints, step)
    save_checkpoint(folder, {k: v.state_dict() for k, v in weights.items()}, {"step": step}, facts)
    for number in range(1, step + 1):
        rundir.append_stats({"step": number, "d_loss": 2.0 / number, "g_loss": 0.1 * number})
    rundir.write_status("done", step=step, total_steps=step)
    rundir.write_env(device="cpu")
    return folder
