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
class Job:
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


def _is_int(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_one_of(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in allowed


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_real(least: float, under: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and least <= value < under


def _or_null(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "checkout": (_is_text, "a folder"),
    "version": (_is_one_of("0.2.0", "0.4.0"), "0.2.0 or 0.4.0"),
    "config": (_is_text, "a file name"),
    "device": (_is_one_of("cpu", "cuda"), "cpu or cuda"),
    "processes": (_is_int(1), "1 or more"),
    "threads": (_is_int(0), "0 (all) or more"),
    "seed": (_is_int(0), "0 or more"),
    "checkpoint": (_or_null(_is_text), "a folder or null"),
    "freeze_layers": (_or_null(_is_int(1)), "1 or more, or null"),
    "first_step": (_is_int(0), "0 or more"),
    "last_step": (_is_int(1), "1 or more"),
    "save_every": (_is_int(1), "1 or more"),
    "print_every": (_is_int(1), "1 or more"),
    "evaluate": (_is_bool, "true or false"),
    "num_workers": (_is_int(0), "0 or more"),
    "sync_bn": (_is_bool, "true or false"),
    "optimizer.g_lr": (_is_real(0, 1e6), "0 or more"),
    "optimizer.d_lr": (_is_real(0, 1e6), "0 or more"),
    "optimizer.beta1": (_is_real(0, 1), "0 to below 1"),
    "optimizer.beta2": (_is_real(0, 1), "0 to below 1"),
    "lecam.type": (_is_one_of("standard", "gsrgan"), "standard or gsrgan"),
    "lecam.lambda": (_is_real(0, 1e9), "0 or more"),
    "lecam.ema_decay": (_is_real(0, 1), "0 to below 1"),
    "lecam.start_iter": (_is_int(1), "1 or more"),
}


def read_job(path: Path) -> Job:
    content = read_json(path, "start it from the engine")
    if content is None:
        raise UserError(f"{path}: not there; start it from the engine")
    for key, (check, allowed) in CHECKS.items():
        section, _, name = key.rpartition(".")
        if section == "lecam" and content.get("lecam") is None:
            continue
        holder = content.get(section) if section else content
        value = holder.get(name, "nothing") if isinstance(holder, dict) else "nothing"
        if not check(value):
            raise UserError(f"{path.name}: {key}: found {value!r}, allowed {allowed}")
    job = _job_of(content)
    _check_together(job)
    return job


def _job_of(content: dict[str, Any]) -> Job:
    optimizer, lecam = content["optimizer"], content.get("lecam")
    return Job(
        **{key: content[key] for key in CHECKS if "." not in key and key != "checkout"},
        checkout=Path(content["checkout"]),
        optimizer=Optimizer(*(float(optimizer[key]) for key in ("g_lr", "d_lr", "beta1", "beta2"))),
        lecam=lecam and Lecam(lecam["type"], float(lecam["lambda"]), float(lecam["ema_decay"]), lecam["start_iter"]),
    )


def _check_together(job: Job) -> None:
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
