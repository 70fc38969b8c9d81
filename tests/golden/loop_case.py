"""What StudioGAN's own training loop and ours are compared on: settings, the start, and everything random, in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.config.experiment import Config, load_config
from tests.golden import parity_case as pc
from tests.golden.parity_case import BETAS, EPS, Inputs
from tests.harness.tiny_runs import BASE

GOLDEN_LOOP = Path(__file__).with_name("parity_loop.npz")


@dataclass(frozen=True)
class LoopCase:
    """A training of `steps` generator updates at 32 px, with EMA, LeCam and `d_steps` discriminator updates a step."""

    name: str
    steps: int
    width: int  # g_conv_dim and d_conv_dim
    batch: int
    z_dim: int = 16
    d_steps: int = 2
    acml_steps: int = 1
    num_classes: int = 0  # 0 = unconditional
    diffaug: bool = False
    freeze_layers: int = 0
    g_lr: float = 2e-4
    d_lr: float = 4e-4
    ema_decay: float = 0.9
    ema_start: int = 3
    lecam_lambda: float = 0.3
    lecam_decay: float = 0.9
    lecam_start: int = 1

    @property
    def d_calls(self) -> int:
        return self.steps * self.d_steps * self.acml_steps

    @property
    def g_calls(self) -> int:
        return self.steps * self.acml_steps


def make_inputs(case: LoopCase) -> Inputs:
    return pc.make_inputs(case, torch.float64, 32, (case.d_calls,), (case.g_calls,))


def make_config(case: LoopCase, **train: Any) -> Config:
    """Our config for a case; `train` are switches of its section `train`."""
    conditional = case.num_classes > 0
    values = {
        "name": "parity",
        "data.img_size": 32,
        "model.z_dim": case.z_dim,
        "model.g_conv_dim": case.width,
        "model.d_conv_dim": case.width,
        "model.g_cond_mtd": "cBN" if conditional else "null",
        "model.d_cond_mtd": "PD" if conditional else "null",
        "model.g_ema_decay": case.ema_decay,
        "model.g_ema_start": case.ema_start,
        "loss.lecam_lambda": case.lecam_lambda,
        "loss.lecam_ema_decay": case.lecam_decay,
        "loss.lecam_ema_start_iter": case.lecam_start,
        "optim.batch_size": case.batch,
        "optim.acml_steps": case.acml_steps,
        "optim.d_updates_per_step": case.d_steps,
        "optim.g_lr": case.g_lr,
        "optim.d_lr": case.d_lr,
        "optim.beta1": BETAS[0],
        "optim.beta2": BETAS[1],
        "optim.eps": EPS,
        "optim.total_steps": case.steps,
        "augment.apply_diffaug": str(case.diffaug).lower(),
        "train.device": "cpu",
        "train.precision": "fp32",
        "train.numerics": "studiogan",
        "train.pictures": "resident",
        **{f"train.{name}": str(value).lower() for name, value in train.items()},
    }
    return load_config(BASE, [f"{key}={value}" for key, value in values.items()])


def make_leaves(case: LoopCase) -> dict[str, Any]:
    """The same case as values of StudioGAN 0.2.0's config, by the names of its leaves.

    Its loop runs `total_step` + 1 generator updates, hence the -1.
    """
    return {
        "img_size": 32,
        "num_classes": case.num_classes or 10,
        "conditional_strategy": "ProjGAN" if case.num_classes else "no",
        "z_dim": case.z_dim,
        "g_conv_dim": case.width,
        "d_conv_dim": case.width,
        "batch_size": case.batch,
        "accumulation_steps": case.acml_steps,
        "g_lr": case.g_lr,
        "d_lr": case.d_lr,
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "d_steps_per_iter": case.d_steps,
        "total_step": case.steps - 1,
        "diff_aug": case.diffaug,
        "ema": True,
        "ema_decay": case.ema_decay,
        "ema_start": case.ema_start,
    }


def fill_start(shapes: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """A start by formula for networks of these state dicts (`G`, `D`); the average starts as G."""
    g = pc.fill("G", shapes["G"])
    return {"G": g, "D": pc.fill("D", shapes["D"]), "EMA": g}


def settle_vectors(start: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """The same weights with the discriminator's spectral-norm vectors at rest: the first singular vectors."""
    d = dict(start["D"])
    for key in [key for key in d if key.endswith("weight_u")]:
        stem = key.removesuffix("weight_u")
        left, _, right = torch.linalg.svd(d[stem + "weight_orig"].double().flatten(1), full_matrices=False)
        sign = torch.sign(left[:, 0] @ d[key].double())  # the one that power iteration would reach
        d[key], d[stem + "weight_v"] = sign * left[:, 0], sign * right[0]
    return {**start, "D": d}
