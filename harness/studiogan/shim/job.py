"""JOB.json: what the engine asks of one StudioGAN process. Imports neither torch nor StudioGAN."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage.json_files import read_json


@dataclass(frozen=True)
class Optimizer:
    g_lr: float
    d_lr: float
    beta1: float
    beta2: float


@dataclass(frozen=True)
class Lecam:
    kind: str  # "standard" or "gsrgan", as harness.native.losses.LeCam
    lambda_: float
    ema_decay: float
    start_iter: int


@dataclass(frozen=True)
class ShimJob:
    """Steps count generator updates; paths but `checkout` are relative to the working folder."""

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
    optimizer: Optimizer
    lecam: Lecam | None
    evaluate: bool
    num_workers: int
    sync_bn: bool


REAL, NONE = (int, float), type(None)
# Key → the types it may have (exactly: `true` is no number), which values of them, and both in words.
CHECKS: dict[str, tuple[tuple[type, ...], Callable[[Any], bool], str]] = {
    "checkout": ((str,), bool, "a folder"),
    "version": ((str,), lambda v: v in ("0.2.0", "0.4.0"), "0.2.0 or 0.4.0"),
    "config": ((str,), bool, "a file name"),
    "device": ((str,), lambda v: v in ("cpu", "cuda"), "cpu or cuda"),
    "processes": ((int,), lambda v: v >= 1, "1 or more"),
    "threads": ((int,), lambda v: v >= 0, "0 (all) or more"),
    "seed": ((int,), lambda v: v >= 0, "0 or more"),
    "checkpoint": ((str, NONE), lambda v: v != "", "a folder or null"),
    "freeze_layers": ((int, NONE), lambda v: v is None or v >= 1, "1 or more, or null"),
    "first_step": ((int,), lambda v: v >= 0, "0 or more"),
    "last_step": ((int,), lambda v: v >= 1, "1 or more"),
    "save_every": ((int,), lambda v: v >= 1, "1 or more"),
    "print_every": ((int,), lambda v: v >= 1, "1 or more"),
    "evaluate": ((bool,), lambda v: True, "true or false"),
    "num_workers": ((int,), lambda v: v >= 0, "0 or more"),
    "sync_bn": ((bool,), lambda v: True, "true or false"),
    "optimizer.g_lr": (REAL, lambda v: 0 <= v < 1e6, "0 or more"),
    "optimizer.d_lr": (REAL, lambda v: 0 <= v < 1e6, "0 or more"),
    "optimizer.beta1": (REAL, lambda v: 0 <= v < 1, "0 to below 1"),
    "optimizer.beta2": (REAL, lambda v: 0 <= v < 1, "0 to below 1"),
    "lecam.type": ((str,), lambda v: v in ("standard", "gsrgan"), "standard or gsrgan"),
    "lecam.lambda": (REAL, lambda v: 0 <= v < 1e9, "0 or more"),
    "lecam.ema_decay": (REAL, lambda v: 0 <= v < 1, "0 to below 1"),
    "lecam.start_iter": ((int,), lambda v: v >= 1, "1 or more"),
}


def read_job(path: Path) -> ShimJob:
    content = read_json(path, "start it from the engine")
    if content is None:
        raise UserError(f"{path}: not there; start it from the engine")
    for key, (types, fits, allowed) in CHECKS.items():
        section, _, name = key.rpartition(".")
        if section == "lecam" and content.get("lecam") is None:
            continue
        holder = content.get(section) if section else content
        if not isinstance(holder, dict) or name not in holder:
            raise UserError(f"{path.name}: {key}: found nothing, allowed {allowed}")
        if type(holder[name]) not in types or not fits(holder[name]):
            raise UserError(f"{path.name}: {key}: found {holder[name]!r}, allowed {allowed}")
    optimizer, lecam = content["optimizer"], content.get("lecam")
    job = ShimJob(
        **{key: content[key] for key in CHECKS if "." not in key and key != "checkout"},
        checkout=Path(content["checkout"]),
        optimizer=Optimizer(*(float(optimizer[key]) for key in ("g_lr", "d_lr", "beta1", "beta2"))),
        lecam=lecam and Lecam(lecam["type"], float(lecam["lambda"]), float(lecam["ema_decay"]), lecam["start_iter"]),
    )
    _check_together(job)
    return job


def _check_together(job: ShimJob) -> None:
    """What no single key shows."""
    if not (job.checkout / "src" / "main.py").is_file():
        raise UserError(f"checkout: found no StudioGAN in {job.checkout}, try `make studiogan`")
    if job.first_step >= job.last_step:
        raise UserError(f"first_step: found {job.first_step}, allowed less than last_step = {job.last_step}")
    if job.checkpoint is None and (job.first_step or job.freeze_layers):
        key = "first_step" if job.first_step else "freeze_layers"
        raise UserError(f"{key}: found {getattr(job, key)} without a checkpoint to start from")
    if job.checkpoint is not None and not any(Path(job.checkpoint).glob("model=D-current-weights-step=*.pth")):
        raise UserError(f"checkpoint: found no model=D-current-weights-step=*.pth in {job.checkpoint}")
    if not Path(job.config).is_file():
        raise UserError(f"config: found no file {job.config}")
    if job.device == "cpu" and job.processes > 1 and job.sync_bn:
        raise UserError("sync_bn: found true, allowed false on a CPU (synchronised batch norm is CUDA's)")
    if job.version == "0.4.0" and job.lecam and job.lecam.kind != "standard":
        raise UserError(f"lecam.type: found {job.lecam.kind}, allowed standard with 0.4.0, try version 0.2.0")
