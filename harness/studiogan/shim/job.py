"""JOB.json: what the engine asks of one StudioGAN process.

The engine has checked the values (`harness/studiogan/preflight.py`). Imports neither torch nor StudioGAN, nor anything
else that StudioGAN's environment lacks.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError


@dataclass(frozen=True)
class OptimizerSettings:
    g_lr: float
    d_lr: float
    beta1: float
    beta2: float


@dataclass(frozen=True)
class LecamSettings:
    """The arguments of `harness.native.losses.LeCam`; `kind` is standard or gsrgan."""

    kind: str
    lambda_: float
    ema_decay: float
    start_iter: int


@dataclass(frozen=True)
class ShimJob:
    """Steps count generator updates. Paths are relative to the working folder, except `checkout`."""

    checkout: Path
    version: str
    config: str
    device: str
    processes: int
    threads: int  # 0 = as many as torch takes
    seed: int
    checkpoint: str | None
    freeze_layers: int | None
    first_step: int
    last_step: int
    save_every: int
    print_every: int
    optimizer: OptimizerSettings
    lecam: LecamSettings | None
    evaluate: bool
    num_workers: int
    sync_bn: bool


def read_job(path: Path) -> ShimJob:
    """UserError when the file is missing, damaged or written by another version."""
    try:
        content = json.loads(path.read_text())
        optimizer, lecam = content.pop("optimizer"), content.pop("lecam")
        if lecam is not None:
            lecam = LecamSettings(lecam["type"], lecam["lambda"], lecam["ema_decay"], lecam["start_iter"])
        checkout = Path(content.pop("checkout"))
        return ShimJob(checkout=checkout, optimizer=OptimizerSettings(**optimizer), lecam=lecam, **content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); start StudioGAN through the engine") from error
