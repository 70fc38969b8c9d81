"""A checkpoint's networks, ready to draw and to look: for the evaluation, the encoder, inversion and blends.

In: a run's checkpoints folder. Out: networks in eval mode that nothing trains any more.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.checkpoint import best_checkpoint, list_checkpoints, load_weights, newest_checkpoint, read_meta
from harness.checkpoints.class_tables import fit_classes
from harness.checkpoints.pretrained import BASE, open_pretrained
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


@dataclass(frozen=True)
class LoadedCheckpoint:
    """`generator` is the moving average where there is one, `sha256` that of its file.

    Attributes:
        discriminator_or_none: None where weights of a generator alone came from elsewhere.
        meta: of meta.json.
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
    """A checkpoint of a run, see `find_checkpoint`; the ready-made model is opened where it was not yet. UserError when
    there is no such run or checkpoint. `class_names`: as of `load_checkpoint`."""
    if name == BASE and not (root / BASE).exists():
        open_pretrained(root)
    folder = find_checkpoint(RunDir.existing(name, root).checkpoints, checkpoint)
    return load_checkpoint(folder, class_names=class_names)


def find_checkpoint(checkpoints: Path, name: str | None = None) -> Path:
    """A run's newest unharmed checkpoint, its best one (`best`), or the folder of this name. UserError without it."""
    if name is None:
        folder = newest_checkpoint(checkpoints, log)
        if folder is None:
            raise UserError(f"run: {checkpoints.parent} has no checkpoint yet; try `make train`")
        return folder
    folder = best_checkpoint(checkpoints) if name == BEST else checkpoints / name
    if folder is None:
        raise UserError(
            f"checkpoint: {checkpoints.parent} has no best one, because it was not evaluated while it trained; "
            "try --set evaluate.every_steps=1000 when it trains, or leave the checkpoint's name out"
        )
    if Path(name).name != name or folder not in list_checkpoints(checkpoints):
        names = ", ".join(path.name for path in list_checkpoints(checkpoints)) or "none yet"
        raise UserError(f"checkpoint: found no {folder}, allowed {BEST} and {names}")
    return folder


def load_checkpoint(
    folder: Path, device: torch.device | None = None, class_names: list[str] | None = None
) -> LoadedCheckpoint:
    """The networks of a checkpoint, on `device`, or where it was trained, if that is here. UserError when damaged.

    Args:
        class_names: fit the networks to these classes; None = those that it was trained with.
    """
    try:
        meta = read_meta(folder)
    except ValueError as error:
        raise UserError(f"{folder}: cannot be used: {error}; try another checkpoint") from error
    config, known = check_kept_config(meta["config"], str(folder)), to_class_names(meta.get("class_names", []))
    names = class_names if class_names and meta["num_classes"] else known
    num_classes = len(names) if meta["num_classes"] and class_names else meta["num_classes"]
    generator, discriminator = build_networks(config, num_classes, device or _find_device(config))
    stored = "generator_ema" if (folder / "generator_ema.safetensors").exists() else "generator"
    has_discriminator = (folder / "discriminator.safetensors").exists()
    try:
        generator.load_state_dict(fit_classes(load_weights(folder, stored), known, names, str(folder)))
        if has_discriminator:
            discriminator.load_state_dict(fit_classes(load_weights(folder, "discriminator"), known, names, str(folder)))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: went while it was read (a training removes old ones); run it again") from error
    for network in (generator, discriminator):
        network.requires_grad_(False).eval()
    sha256 = meta["sha256"][f"{stored}.safetensors"]
    there = discriminator if has_discriminator else None
    return LoadedCheckpoint(folder, meta["step"], config, num_classes, names, generator, there, sha256, meta)


def load_joint_encoder(loaded: LoadedCheckpoint) -> Encoder:
    """The encoder that learned together with a checkpoint's generator (`reconstruction.apply`).

    The moving average where there is one; in eval mode, on the generator's device.
    """
    meta = read_meta(loaded.folder)
    stored = "encoder_ema" if (loaded.folder / "encoder_ema.safetensors").exists() else "encoder"
    encoder = make_encoder(loaded.config, loaded.num_classes)
    known = to_class_names(meta.get("class_names", []))
    encoder.load_state_dict(fit_classes(load_weights(loaded.folder, stored), known, loaded.class_names, loaded.name))
    encoder.sha256, encoder.step = meta["sha256"][f"{stored}.safetensors"], loaded.step
    return to_device(encoder, loaded.config, next(loaded.generator.parameters()).device).requires_grad_(False).eval()


def load_sampler(loaded: LoadedCheckpoint) -> Sampler:
    """Draws the checkpoint's samples, see `reconstruction.sample_passes`."""
    encoder = load_joint_encoder(loaded) if loaded.sample_passes else None
    return Sampler(loaded.generator, encoder, loaded.sample_passes)


def _find_device(config: Config) -> torch.device:
    """Where it was trained, or the CPU, which is said: drawing and looking need no GPU."""
    train = config.train
    if torch.cuda.is_available() or (train.device != "cuda" and train.precision != "tf32"):
        return prepare_hardware(train).device
    log("no CUDA device here, on which this run was trained: taking the CPU")
    return prepare_hardware(train.model_copy(update={"device": "cpu", "precision": "fp32"})).device
