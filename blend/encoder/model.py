"""The encoder: from a picture to the latent from which the generator draws it, in one pass.

In: pictures of the generator's size. Out: latents, and class logits where the generator is conditional.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blend.generator.kinds import KINDS, Kind
from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator
from harness.checkpoints.checkpoint import load_weights, newest_checkpoint, read_meta
from harness.checkpoints.load import LoadedCheckpoint, load_joint_encoder
from harness.config.experiment import Config, EncoderSettings
from harness.errors import UserError
from harness.features.resnet18 import imagenet_state
from harness.images.tensors import pictures_to_tensor
from harness.messages import log
from harness.networks.encoder import Encoder
from harness.networks.resnet18 import IMAGENET_WIDTH, ResNet18
from harness.runtime.rng import seed_for
from harness.storage.cache import read_cached

POLISHED = "polished"  # entry of a polished encoder's file
ENCODE_BATCH_SIZE = 64


def build_encoder(config: Config, generator: StyledGenerator) -> Encoder:
    """A new encoder for this generator, on its device; depends only on config.seed and encoder.weights."""
    settings = config.encoder
    if settings.weights and settings.width != IMAGENET_WIDTH:
        raise UserError(
            f"encoder.width: found {settings.width}, allowed {IMAGENET_WIDTH} with encoder.weights={settings.weights}; "
            "try encoder.weights=null to keep this width"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "encoder.weights"))
        encoder = _empty_encoder(settings, generator)
    if settings.weights:
        encoder.trunk.load_state_dict(imagenet_state(settings.weights))
    return _to_device(encoder, config, generator)


def _empty_encoder(settings: EncoderSettings, generator: StyledGenerator) -> Encoder:
    trunk = ResNet18(settings.stem, settings.width)
    return Encoder(trunk, generator.latents, generator.height, generator.width, settings.head_dims)


def _to_device(encoder: Encoder, config: Config, generator: StyledGenerator) -> Encoder:
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    return encoder.to(device=generator.device, memory_format=layout)  # type: ignore[call-overload]


def encoder_folder(generator: StyledGenerator) -> Path:
    """`runs/<base>/encoder`."""
    return generator.folder / "encoder"


def generator_keys(generator: StyledGenerator, with_finetuned: bool) -> dict[str, str]:
    """Style in percent → key of the generator weights that the encoder was trained on."""
    return {str(percent): generator.key(percent) for percent in ([0, STYLE_STEPS] if with_finetuned else [0])}


def generator_shape(generator: StyledGenerator) -> list[int]:
    """What an encoder must match: latent shape, number of classes, height, width."""
    return [*generator.latents.shape, generator.num_classes, generator.height, generator.width]


@dataclass(frozen=True)
class Encoders:
    """The encoders of a generator by kind of picture: one for both, or that of each run."""

    ordinary: Encoder
    concept: Encoder

    def of(self, kind: Kind) -> Encoder:
        return self.ordinary if kind == "ordinary" else self.concept


def has_joint_encoder(generator: StyledGenerator) -> bool:
    """Whether encoders were trained together with this generator."""
    return generator.base.config.reconstruction.apply


def load_encoders(config: Config, generator: StyledGenerator) -> Encoders:
    """The runs' joint encoders, or the one trained afterwards. UserError as `load_encoder`."""
    if not has_joint_encoder(generator):
        encoder = load_encoder(config, generator)
        return Encoders(encoder, encoder)
    found = [_polished(load_joint_encoder(loaded), generator, kind) for kind, loaded in joint_runs(generator)]
    return Encoders(found[0], found[-1])


def joint_runs(generator: StyledGenerator) -> list[tuple[Kind, LoadedCheckpoint]]:
    """The runs whose encoder was trained with the generator, by the kind of pictures that it reads."""
    tuned = generator.tuned
    joint = tuned is not None and tuned.config.reconstruction.apply
    return [("ordinary", generator.base), *([("concept", tuned)] if tuned is not None and joint else [])]


def polished_path(generator: StyledGenerator, kind: Kind) -> Path:
    """`runs/<base>/polished/<kind>.safetensors`."""
    return generator.folder / "polished" / f"{kind}.safetensors"


def polished_key(encoder: Encoder, generator: StyledGenerator, kind: Kind) -> dict[str, Any]:
    """Cache key of a polished encoder: the encoder before, and its generator."""
    return {"version": 1, "encoder": encoder.sha256, "generator": generator.key(KINDS.index(kind) * STYLE_STEPS)}


def _polished(encoder: Encoder, generator: StyledGenerator, kind: Kind) -> Encoder:
    """The encoder polished by `blend/encoder/polish.py` where that has a lower picture error; otherwise unchanged."""
    path = polished_path(generator, kind)
    kept = read_cached(path, polished_key(encoder, generator, kind), POLISHED)
    if kept is None or not kept["errors"][1] < kept["errors"][0]:
        return encoder
    prefix = "weights."
    weights = {key.removeprefix(prefix): torch.from_numpy(v) for key, v in kept.items() if key.startswith(prefix)}
    encoder.load_state_dict(weights)
    encoder.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return encoder


def load_encoder(config: Config, generator: StyledGenerator) -> Encoder:
    """The newest checkpoint of this generator's encoder, in eval mode, on its device.

    Raises UserError when there is none, or when it was trained on other weights than the generator has now.
    """
    checkpoints = encoder_folder(generator) / "checkpoints"
    folder = newest_checkpoint(checkpoints, log)
    if folder is None:
        raise UserError(f"encoder: found none in {checkpoints.parent}; try `make encoder` with the same CONFIG")
    meta = read_meta(folder)
    _check_generator(meta, generator, folder)
    defaults = config.encoder.model_dump(mode="json")
    stored = {key: value for key, value in meta["config"]["encoder"].items() if key in defaults}
    encoder = _empty_encoder(EncoderSettings.model_validate({**defaults, **stored}), generator)
    encoder.load_state_dict(load_weights(folder, "encoder"))
    encoder.sha256, encoder.step = meta["sha256"]["encoder.safetensors"], meta["step"]
    if encoder.step < (total := meta["config"]["encoder"]["total_steps"]):
        log(f"{folder}: an unfinished encoder ({encoder.step} of {total} steps)")
    return _to_device(encoder, config, generator).requires_grad_(False).eval()


def _check_generator(meta: dict[str, Any], generator: StyledGenerator, folder: Path) -> None:
    shape = generator_shape(generator)
    trained_on = dict(meta["generator"])
    if generator.tuned is None:  # the other style is not used then
        trained_on.pop(str(STYLE_STEPS), None)
    now = {percent: generator.key(int(percent)) for percent in trained_on}
    if meta["shape"] != shape or trained_on != now:
        raise UserError(
            f"{folder}: was trained on another generator than {generator.base.name} has now (trained further or "
            f"again); move {folder.parents[1]} away and try `make encoder`"
        )


@torch.no_grad()
def encode(encoder: Encoder, pictures: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """z float32 (N, z_dim) and classes int64 (N,) or None of uint8 (N, H, W, 3), on the CPU.

    In full precision and eval mode, so that a latent does not depend on the batch; the mode is restored.
    """
    assert pictures.dtype == np.uint8 and pictures.shape[1:] == (encoder.height, encoder.width, 3), pictures.shape
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    found = []
    for start in range(0, len(pictures), ENCODE_BATCH_SIZE):
        part = torch.from_numpy(np.ascontiguousarray(pictures[start : start + ENCODE_BATCH_SIZE])).to(device)
        found.append(encoder(pictures_to_tensor(part)))
    encoder.train(was_training)
    z = torch.cat([z for z, _ in found]).cpu()
    logits = [y for _, y in found if y is not None]
    return z, torch.cat(logits).argmax(1).cpu() if logits else None
