"""One update of the encoder: generated pictures, augmentation, losses, optimiser."""

import copy
import math
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blend.encoder.model import Encoder
from blend.generator.styled_generator import StyledGenerator
from harness.config.experiment import Config, EncoderSettings
from harness.native.data import PictureSource
from harness.networks.base import Generator
from harness.runtime.device import Hardware
from harness.runtime.precision import MAX_PICTURES, Pass
from harness.runtime.rng import RandomStreams

# One cycle (Smith & Topin 2018): the rate rises from peak / 25 over a tenth of the steps and then falls to almost 0;
# Adam's beta1 goes the opposite way.
WARM_SHARE, FIRST_SHARE, LAST_SHARE = 0.1, 1 / 25, 1e-4
BETA1_AT_PEAK, BETA1_AT_ENDS, BETA2 = 0.85, 0.95, 0.99
CLIP_NORM = 1.0
# Augmentation at strength 1: largest changes of light, contrast, saturation and each colour channel of pictures in
# [-1, 1], and the standard deviation of the noise.
MAX_LIGHT, MAX_CONTRAST, MAX_SATURATION, MAX_TINT, MAX_NOISE = 0.5, 0.5, 0.5, 0.2, 0.2
AUGMENT_NUMBERS = 8  # random numbers for each picture


@dataclass
class EncoderTraining:
    """State of an encoder's training, and what an update needs."""

    config: Config
    generator: StyledGenerator
    hardware: Hardware
    generators: list[Generator]  # frozen, one for each style; each draws its part of every batch
    encoder: Encoder
    optimizer: torch.optim.Optimizer
    streams: RandomStreams
    reals: list[PictureSource]  # training pictures of each style, or empty
    step: int = 0
    cpu_before_sec: float = 0.0  # of earlier processes, minus what this one used before

    @property
    def settings(self) -> EncoderSettings:
        return self.config.encoder

    @property
    def cpu_sec(self) -> float:
        return self.cpu_before_sec + time.process_time()

    def draw(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Pictures float32 (B, 3, H, W) in [-1, 1]: one part of the batch for each style."""
        count = len(self.generators)
        parts = list(zip(self.generators, split_batch(z, count), split_batch(y, count), strict=True))
        with self.hardware.autocast():
            return torch.cat([generator(part, labels) for generator, part, labels in parts])

    def real_batch(self) -> tuple[Tensor, Tensor | None]:
        """Training pictures float32 (B, 3, H, W) in [-1, 1] and their labels, in parts for the styles."""
        pictures, labels = zip(*(source.batch(self.step) for source in self.reals), strict=True)
        return torch.cat(pictures), torch.cat(labels) if self.generator.num_classes else None


def split_batch(values: Tensor | None, count: int) -> list[Tensor | None]:
    return [None] * count if values is None else list(values.tensor_split(count))


def encoder_step(run: EncoderTraining) -> dict[str, Tensor]:
    """One update. Returns scalars on the device: loss, z_loss, grad_norm, on some steps picture_loss, class_loss.

    Only the encoder's input is augmented; the picture loss compares with the original.
    """
    settings, streams, count = run.settings, run.streams, run.settings.batch_size
    z, y = run.generator.latents.draw(streams, "encoder", run.step, count)
    redraws = bool(settings.picture_lambda) and (run.step + 1) % settings.picture_every_steps == 0
    with torch.no_grad():
        clean = run.draw(z, y)
        if redraws and run.reals:
            real, labels = run.real_batch()
            clean, y = torch.cat([clean, real]), None if y is None or labels is None else torch.cat([y, labels])
        augmented = augment(clean, settings.augment_strength, streams.stream("encoder.augment", run.step))
    with run.hardware.autocast():
        guess, logits = run.encoder(augmented)
    parts = {"z_loss": latent_loss(settings.z_loss, guess[:count], z)}
    loss = parts["z_loss"]
    if logits is not None and y is not None:
        parts["class_loss"] = F.cross_entropy(logits, y)
        loss = loss + parts["class_loss"]
    run.step += 1
    if redraws:
        labels = [None] * len(guess) if y is None else y.split(count)
        redrawn = torch.cat([run.draw(*part) for part in zip(guess.split(count), labels, strict=False)])
        parts["picture_loss"] = (redrawn - clean).square().mean()
        loss = loss + settings.picture_lambda * parts["picture_loss"]

    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in run.encoder.parameters() if p.requires_grad], CLIP_NORM)
    _set_rates(run)
    if loss.device.type == "cuda" or torch.isfinite(loss + norm):  # would synchronise with a CUDA device
        run.optimizer.step()
    return {name: value.detach() for name, value in {"loss": loss, **parts, "grad_norm": norm}.items()}


def trial_pass(run: EncoderTraining) -> Pass:
    """A forward and backward pass through a copy of the encoder, to be timed; the run is not changed."""
    encoder, count = copy.deepcopy(run.encoder), min(MAX_PICTURES, run.settings.batch_size)
    z, y = run.generator.latents.draw(run.streams, "precision", 0, count)

    def one_pass(hardware: Hardware) -> None:
        trial = replace(run, hardware=hardware)
        with torch.no_grad():
            pictures = trial.draw(z, y)
        with hardware.autocast():
            guess, _ = encoder(pictures)
        loss = guess.square().mean()
        if run.settings.picture_lambda:
            loss = loss + trial.draw(guess, y).square().mean()
        loss.backward()

    return one_pass


def latent_loss(kind: str, guess: Tensor, z: Tensor) -> Tensor:
    """Mean over (B, z_dim): `mse`, or `log_cosh`, which is half the square near 0 and |error| for large ones."""
    error = guess - z
    if kind == "mse":
        return error.square().mean()
    assert kind == "log_cosh", kind
    size = error.abs()  # log cosh e = |e| + log(1 + exp(-2 |e|)) - log 2, without overflow
    return (size + F.softplus(-2 * size) - math.log(2)).mean()


def one_cycle(step: int, total_steps: int, peak: float) -> tuple[float, float]:
    """(learning rate, beta1) of update `step`, from 1 to total_steps; stateless, so there is nothing to restore."""
    done = (step - 1) / max(1, total_steps - 1)
    rising = done < WARM_SHARE
    height = done / WARM_SHARE if rising else 1 - (done - WARM_SHARE) / (1 - WARM_SHARE)
    height = (1 - math.cos(math.pi * height)) / 2
    low = peak * (FIRST_SHARE if rising else LAST_SHARE)
    return low + (peak - low) * height, BETA1_AT_ENDS + (BETA1_AT_PEAK - BETA1_AT_ENDS) * height


def _set_rates(run: EncoderTraining) -> None:
    lr, beta1 = one_cycle(run.step, run.settings.total_steps, run.settings.lr)
    for group in run.optimizer.param_groups:
        group["lr"], group["betas"] = lr, (beta1, BETA2)


def augment(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random light, contrast, saturation, tint, blur and noise for each picture, float32 (B, 3, H, W) in [-1, 1].

    `strength`: 0 = none, 1 = as much as photos differ. No geometric changes: the position of the car is in its latent.
    """
    if strength == 0:
        return x
    chance = torch.rand(len(x), AUGMENT_NUMBERS, 1, 1, generator=generator, device=x.device)
    light, contrast, saturation, tint, blur, noise = chance.split([1, 1, 1, 3, 1, 1], dim=1)  # (B, 1 or 3, 1, 1)

    def within(share: Tensor, max_change: float) -> Tensor:
        return (2 * share - 1) * max_change * strength

    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (1 + within(saturation, MAX_SATURATION))
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + within(contrast, MAX_CONTRAST))
    x = x + within(light, MAX_LIGHT) + within(tint, MAX_TINT)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, blurred, strength * blur)
    x = x + MAX_NOISE * strength * noise * torch.randn(x.shape, generator=generator, device=x.device)
    return x.clamp(-1, 1)
