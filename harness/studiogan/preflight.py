"""Checks before StudioGAN starts: everything that can be refused before the first file is written."""

import os
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import torch

from harness.config.experiment import Config, config_to_dict
from harness.errors import UserError
from harness.runtime.device import Hardware, device_kind
from harness.storage.hdf5 import PackedSet
from harness.storage.splits import open_evaluation_rows
from harness.studiogan import checkout
from harness.studiogan.dialects.convert import config_to_text

# Keys that StudioGAN does not have → the values that need no warning.
IGNORED = {"train.precision": ("auto", "fp32"), "train.compile": (False,), "train.pictures": ("auto", "resident")}


@dataclass(frozen=True)
class StudioGanSetup:
    """Checkout, interpreter, device, and the config in StudioGAN's own format: `rendered` (file name, text)."""

    config: Config
    checkout: Path
    python: Path
    device: str
    processes: int
    rendered: tuple[str, str]
    freeze_layers: int | None

    @property
    def hardware(self) -> Hardware:
        name = torch.cuda.get_device_name() if self.device == "cuda" else "cpu"
        device = torch.device("cuda", 0) if self.device == "cuda" else torch.device("cpu")
        return Hardware(device, "fp32", f"StudioGAN {self.config.studiogan.version}, {name}")


def preflight(config: Config, packed: PackedSet, freeze: bool, processes: int) -> StudioGanSetup:
    """Runs all checks. UserError for what StudioGAN cannot do or does not find."""
    _check_pictures(config, packed)
    device = device_kind(config.train)
    _check_processes(config, device, processes)
    if config.studiogan.evaluate:
        _check_own_evaluation(config, packed, processes)
    rendered = config_to_text(config, len(packed.class_names))
    home = checkout.find_checkout(config.studiogan.version).resolve()
    python = Path(
        os.path.abspath(checkout.find_python())
    )  # not resolved: a virtual environment's interpreter is a link
    checkout.check_environment(python)
    packed.check()  # StudioGAN does not verify it
    return StudioGanSetup(
        config, home, python, device, processes, rendered, config.finetune.freeze_layers if freeze else None
    )


def _check_pictures(config: Config, packed: PackedSet) -> None:
    if packed.height != packed.width:
        raise UserError(
            f"data.img_size: found {packed.height}x{packed.width}, allowed squares only with StudioGAN, "
            f"try data.img_size={packed.height} or engine=native"
        )
    optim, version = config.optim, config.studiogan.version
    needed = optim.batch_size * (optim.acml_steps * optim.d_updates_per_step if version == "0.4.0" else 1)
    if needed > packed.count:
        raise UserError(
            f"optim.batch_size: found {optim.batch_size}, and {packed.path} holds {packed.count} pictures, allowed "
            f"sets of {needed} or more (StudioGAN {version} reads that many at once), try a smaller batch"
        )
    if config.loss.apply_lecam and config.loss.lecam_type == "gsrgan" and version == "0.4.0":
        raise UserError(
            "loss.lecam_type: found gsrgan, allowed standard with StudioGAN 0.4.0, which has that variant built in, "
            "try loss.lecam_type=standard or studiogan.version=0.2.0"
        )


def _check_processes(config: Config, device: str, processes: int) -> None:
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        raise UserError(
            f"NPROC: found {started}, allowed 1 with engine: studiogan, which starts its own processes, "
            "try without NPROC, or engine=native"
        )
    if processes > 1 and device == "cuda" and processes > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"NPROC: found {processes}, allowed 1 to {count} (the GPUs of this machine), try NPROC={count}")
    if config.optim.batch_size % processes:
        raise UserError(
            f"optim.batch_size: found {config.optim.batch_size}, allowed multiples of the {processes} processes"
        )
    if processes > 1 and device == "cpu" and config.studiogan.sync_bn:
        raise UserError(
            "studiogan.sync_bn: found true, allowed false on a CPU (StudioGAN's synchronised batch norm needs CUDA), "
            "try --set studiogan.sync_bn=false"
        )
    if processes > 1 and config.loss.apply_lecam and config.loss.lecam_type == "gsrgan":
        raise UserError(
            "loss.lecam_type: found gsrgan, allowed standard with several processes of StudioGAN: each has anchors for "
            "its own part of the batch, and one process saves, try NPROC=1 or engine=native"
        )


def _check_own_evaluation(config: Config, packed: PackedSet, processes: int) -> None:
    """StudioGAN numbers classes by the folders of reference pictures, so every class needs one. 0.2.0 fails at its
    first evaluation, before it saves, when these pictures fill no batch or more batches than a training epoch
    (src/metrics/Accuracy.py)."""
    with open_evaluation_rows(config.data, config.evaluate.split) as real:
        path, count, labels = real.packed.path, real.count, set(real.labels.tolist())
    if missing := sorted(set(packed.labels.tolist()) - labels):
        raise UserError(
            f"{path}: holds no picture of {', '.join(packed.class_names[label] for label in missing)}, which "
            "StudioGAN's own evaluation needs; try --set data.valid_fraction with more, or "
            "--set studiogan.evaluate=false"
        )
    if config.studiogan.version != "0.2.0" or config.loss.adv_loss == "wasserstein":
        return
    batch = config.optim.batch_size // processes
    batches = -(-packed.count // processes) // batch
    if not 1 <= count // batch <= batches:
        raise UserError(
            f"studiogan.evaluate: found true, and {path} holds {count} pictures, allowed {batch} to "
            f"{(batches + 1) * batch - 1} of them (StudioGAN 0.2.0 evaluates in batches of {batch}, at most those of "
            "one epoch), try --set studiogan.evaluate=false, or evaluate.every_steps for Carforge's own"
        )


def ignored_keys(config: Config) -> list[str]:
    """`key=value` of settings that StudioGAN does not have and ignores."""
    content = config_to_dict(config)
    pairs = [(key, content[key.split(".")[0]][key.split(".")[1]], nothing) for key, nothing in IGNORED.items()]
    return [f"{key}={value}" for key, value, nothing in pairs if value not in nothing]


def setup_to_job(
    setup: StudioGanSetup, *, seed: int, first_step: int, last_step: int, has_source: bool
) -> dict[str, Any]:
    """JOB.json, as harness/studiogan/shim/job.py reads it."""
    config = setup.config
    optim, loss, train = config.optim, config.loss, config.train
    lecam = {
        "type": loss.lecam_type, "lambda": loss.lecam_lambda, "ema_decay": loss.lecam_ema_decay,
        "start_iter": loss.lecam_ema_start_iter,
    }  # fmt: skip
    return {
        "checkout": str(setup.checkout),
        "version": config.studiogan.version,
        "config": setup.rendered[0],
        "device": setup.device,
        "processes": setup.processes,
        "threads": train.threads,
        "seed": seed,
        "checkpoint": "source" if has_source else None,
        "freeze_layers": setup.freeze_layers,
        "first_step": first_step,
        "last_step": last_step,
        # Evaluations need a save.
        "save_every": gcd(train.save_every_steps, config.evaluate.every_steps),
        "print_every": train.log_every_steps,
        "optimizer": {"g_lr": optim.g_lr, "d_lr": optim.d_lr, "beta1": optim.beta1, "beta2": optim.beta2},
        "lecam": lecam if loss.apply_lecam else None,
        "evaluate": config.studiogan.evaluate,
        "num_workers": config.studiogan.num_workers,
        "sync_bn": config.studiogan.sync_bn,
    }
