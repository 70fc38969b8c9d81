"""Small checkpoints of ours with moments of optimisers in them, without a training set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.checkpoints.checkpoint import checkpoint_folder, save_checkpoint
from harness.config.experiment import Config, config_to_dict
from harness.native.freeze import freeze_discriminator
from harness.networks.build import build_networks
from harness.studiogan.weights.convert import export_checkpoint
from tests.harness.tiny_runs import tiny_config

STEP = 7
SMALL: dict[str, Any] = {
    "data.img_size": 32,
    "model.z_dim": 8,
    "model.g_conv_dim": 4,
    "model.d_conv_dim": 4,
    "train.device": "cpu",
    "train.threads": 1,
}


@dataclass(frozen=True)
class Case:
    """Settings that differ from SMALL; classes 0 = unconditional."""

    name: str
    changes: dict[str, Any]
    classes: int = 0


CONDITIONAL = {"model.g_cond_mtd": "cBN", "model.d_cond_mtd": "PD"}
ATTENTION = {
    "model.apply_attn": True,
    "model.attn_g_loc": 2,
    "model.attn_d_loc": 1,
    "model.g_conv_dim": 8,
    "model.d_conv_dim": 8,
}
CASES = [
    Case("32-plain", {}),
    Case("32-no-ema", {"model.apply_g_ema": False, "loss.apply_lecam": False}),
    Case("32-all", {**CONDITIONAL, **ATTENTION, "model.apply_g_sn": True}, 3),
    Case("64-conditional", {**CONDITIONAL, "data.img_size": 64, "model.g_conv_dim": 2, "model.d_conv_dim": 2}, 5),
    Case("32-no-sn", {"model.apply_d_sn": False, "train.channels_last": False}),
    Case("128-plain", {"data.img_size": 128, "model.g_conv_dim": 2, "model.d_conv_dim": 2}),
]


def small_config(name: Any = "small", **changes: Any) -> Config:
    return tiny_config(SMALL, name=name, **changes)


def pth(folder: Path, letter: str, when: str = "current", step: int = STEP) -> Path:
    return folder / f"model={letter}-{when}-weights-step={step}.pth"


def make_exported(folder: Path, config: Config, classes: int = 0, frozen: int = 0, **options: Any) -> tuple[Path, Path]:
    """(a checkpoint of ours in `folder/ours`, StudioGAN's files of it in `folder/files`)."""
    ours = make_checkpoint(folder / "ours", config, classes, frozen)
    how: dict[str, Any] = {"version": "0.2.0", "seed": 42, "run_name": "r", **options}
    return ours, export_checkpoint(ours, folder / "files", **how)


def make_checkpoint(folder: Path, config: Config, classes: int = 0, frozen: int = 0) -> Path:
    """A checkpoint as `save_training` leaves one after two updates, with running statistics, anchors and moments.

    `frozen`: so many blocks of D never moved (FreezeD), so they have no moments.
    """
    torch.manual_seed(0)
    g, d = build_networks(config, classes, torch.device("cpu"))
    if frozen:
        freeze_discriminator(d, frozen)
    adams = [torch.optim.Adam(n.parameters(), 1e-3, (0.0, 0.9), 1e-6, fused=config.train.fused_adam) for n in (g, d)]
    for _ in range(2):
        z, y = torch.randn(4, config.model.z_dim), torch.randint(classes, (4,)) if classes else None
        for adam in adams:
            adam.zero_grad()
        d(g(z, y), y).square().mean().backward()
        for adam in adams:
            adam.step()
    weights = {"generator": g.state_dict(), "discriminator": d.state_dict()}
    if config.model.apply_g_ema:
        weights["generator_ema"] = g.state_dict() | {name: p.detach() * 0.8 for name, p in g.named_parameters()}
    anchors: dict[str, Tensor | None] = {"ema_real": torch.tensor(0.25), "ema_fake": torch.tensor(-0.125)}
    state = {
        "step": STEP,
        "g_optimizer": adams[0].state_dict(),
        "d_optimizer": adams[1].state_dict(),
        "lecam": anchors if config.loss.apply_lecam else None,
    }
    names = [f"class {number}" for number in range(classes)]
    meta = {"step": STEP, "num_classes": classes, "config": config_to_dict(config)}
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_folder(folder, STEP)
    save_checkpoint(path, weights, state, {**meta, "data_sha256": "0" * 64, "class_names": names})
    return path
