"""Loads a checkpoint's networks for inference: evaluation, encoder, inversion, blends.

In: a run's checkpoints folder. Out: networks in eval mode, without gradients.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from harness.checkpoints.checkpoint import best_checkpoint, list_checkpoints, load_weights, newest_checkpoint, read_meta
from harness.checkpoints.chosen_config import find_run
from harness.checkpoints.class_tables import fit_classes
from harness.checkpoints.sampling import Sampler
from harness.config.class_choice import to_class_names
from harness.config.experiment import Config, check_kept_config
from harness.errors import UserError
from harness.messages import log
from harness.networks.base import Discriminator, Generator
from harness.networks.build import build_networks, make_encoder, to_device
from harness.networks.encoder import Encoder
from harness.runtime.device import prepare_hardware
from harness.storage.rundir import RunDir

BEST = "best"
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """`generator` is the moving average if there is one; `sha256` is that of its file.

    Attributes:
        discriminator_or_none: None for an imported generator without one.
        meta: content of meta.json.
    """

    folder: Path
    step: int
    config: Config
    num_classes: int
    class_names: list[str]
    generator: Generator
    discriminator_or_none: Discriminator | None
    sha256: str
    meta: dict[str, Any]

    @property
    def run(self) -> RunDir:
        """The run that it belongs to."""
        return RunDir(self.folder.parents[1])

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def sample_passes(self) -> int:
        settings = self.config.reconstruction
        return settings.sample_passes if settings.apply else 0

    def with_sample_passes(self, passes: int | None) -> "LoadedCheckpoint":
        """The same checkpoint with `reconstruction.sample_passes` of this value; None changes nothing."""
        if passes is None:
            return self
        settings = self.config.reconstruction.model_copy(update={"sample_passes": passes})
        return replace(self, config=self.config.model_copy(update={"reconstruction": settings}))

    @property
    def discriminator(self) -> Discriminator:
        if self.discriminator_or_none is None:
            raise UserError(
                f"{self.folder}: has no discriminator (its weights came without one), which this needs; try a run that "
                "was trained here, or --set inversion.features=resnet18 where it is about inversion"
            )
        return self.discriminator_or_none


def load_run(
    name: str, root: Path = Path("runs"), checkpoint: str | None = None, class_names: list[str] | None = None
) -> LoadedCheckpoint:
    """A checkpoint of a run (`find_checkpoint`, `load_checkpoint`); opens the ready-made model if needed. UserError
    when there is no such run or checkpoint."""
    folder = find_checkpoint(find_run(name, root).checkpoints, checkpoint)
    return load_checkpoint(folder, class_names=class_names)


def find_checkpoint(checkpoints: Path, name: str | None = None) -> Path:
    """A run's newest valid checkpoint, its best one (`best`), or the one of this name. UserError without it."""
    if name is None:
        folder = newest_checkpoint(checkpoints, log)
        if folder is None:
            raise UserError(f"run: {checkpoints.parent} has no checkpoint yet; try `make train`")
        return folder
    folder = best_checkpoint(checkpoints) if name == BEST else checkpoints / name
    if folder is None:
        raise UserError(
            f"checkpoint: {checkpoints.parent} has no best one, because it was not evaluated during training; "
            "try --set evaluate.every_steps=1000 for the training, or omit the checkpoint's name"
        )
    if Path(name).name != name or folder not in list_checkpoints(checkpoints):
        names = ", ".join(path.name for path in list_checkpoints(checkpoints)) or "none yet"
        raise UserError(f"checkpoint: found no {folder}, allowed {BEST} and {names}")
    return folder


def load_checkpoint(
    folder: Path, device: torch.device | None = None, class_names: list[str] | None = None
) -> LoadedCheckpoint:
    """The networks of a checkpoint, on `device` (None = as in training, if available). UserError when damaged.

    Args:
        class_names: adapt the networks to these classes; None = those of its training.
    """
    try:
        meta = read_meta(folder)
    except ValueError as error:
        raise UserError(f"{folder}: cannot be used: {error}; try another checkpoint") from error
    config, stored_names = check_kept_config(meta["config"], str(folder)), to_class_names(meta.get("class_names", []))
    names = class_names if class_names and meta["num_classes"] else stored_names
    num_classes = len(names) if meta["num_classes"] and class_names else meta["num_classes"]
    generator, discriminator = build_networks(config, num_classes, device or _find_device(config))
    stored = "generator_ema" if (folder / "generator_ema.safetensors").exists() else "generator"
    has_discriminator = (folder / "discriminator.safetensors").exists()
    try:
        _load_into(generator, folder, stored, stored_names, names)
        if has_discriminator:
            _load_into(discriminator, folder, "discriminator", stored_names, names)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: was removed while it was read (a training purges old ones); try again") from error
    sha256 = meta["sha256"][f"{stored}.safetensors"]
    return LoadedCheckpoint(
        folder, meta["step"], config, num_classes, names, generator, discriminator if has_discriminator else None,
        sha256, meta,
    )  # fmt: skip


def _load_into(network: N, folder: Path, stored: str, names: list[str], new_names: list[str]) -> N:
    network.load_state_dict(fit_classes(load_weights(folder, stored), names, new_names, str(folder)))
    return network.requires_grad_(False).eval()


def load_joint_encoder(loaded: LoadedCheckpoint) -> Encoder:
    """The encoder that was trained jointly with a checkpoint's generator (`reconstruction.apply`).

    The moving average if there is one; in eval mode, on the generator's device.
    """
    stored = "encoder_ema" if (loaded.folder / "encoder_ema.safetensors").exists() else "encoder"
    encoder = make_encoder(loaded.config, loaded.num_classes)
    _load_into(encoder, loaded.folder, stored, to_class_names(loaded.meta.get("class_names", [])), loaded.class_names)
    encoder.sha256, encoder.step = loaded.meta["sha256"][f"{stored}.safetensors"], loaded.step
    return to_device(encoder, loaded.config, next(loaded.generator.parameters()).device)


def load_sampler(loaded: LoadedCheckpoint) -> Sampler:
    """A sampler for the checkpoint, with its `reconstruction.sample_passes`."""
    encoder = load_joint_encoder(loaded) if loaded.sample_passes else None
    return Sampler(loaded.generator, encoder, loaded.sample_passes)


def _find_device(config: Config) -> torch.device:
    """The device of the training, or the CPU, with a message."""
    train = config.train
    if torch.cuda.is_available() or (train.device != "cuda" and train.precision != "tf32"):
        return prepare_hardware(train).device
    log("this run was trained with CUDA, which is not available here: using the CPU")
    return prepare_hardware(train.model_copy(update={"device": "cpu", "precision": "fp32"})).device
