"""The discriminator's and the generator's update.

Nothing here synchronises with the device: losses stay tensors, and a non-finite one stops the updates on the device.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.experiment import Config, Optim
from harness.native.data import PictureSource
from harness.native.diffaug import apply_diffaug, draw_diffaug, slice_draws
from harness.native.freeze import set_trainable
from harness.native.losses import LeCam, d_loss, g_loss, gradient_penalty, mismatch_loss, r1_penalty, similarity_loss
from harness.networks.base import Discriminator, DiscriminatorOutput, Generator
from harness.networks.progressive_latents import active_size, init_new_columns
from harness.runtime.device import Hardware
from harness.runtime.dist import World, average_gradients
from harness.runtime.precision import MAX_PICTURES, Pass
from harness.runtime.rng import RandomStreams

if TYPE_CHECKING:
    from harness.native.reconstruction import Reconstruction


LAST_RATE = 0.05  # final factor of the cosine schedule


class Fakes(NamedTuple):
    """Pictures float32 (B, 3, H, W) in [-1, 1], with their latents (B, z_dim) and labels (B,) or None."""

    x: Tensor
    z: Tensor
    y: Tensor | None


@dataclass
class Training:
    """The state of a training run."""

    config: Config
    hardware: Hardware
    world: World
    generator: Generator
    discriminator: Discriminator
    generator_ema: Generator | None
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    lecam: LeCam | None
    source: PictureSource
    streams: RandomStreams
    num_classes: int
    step: int = 0
    nonfinite: Tensor = field(default_factory=lambda: torch.zeros(()))  # 1.0 after a non-finite loss or gradient
    nonfinite_steps: Tensor = field(default_factory=lambda: torch.zeros(()))  # steps since then, without updates
    g_call: Callable[..., Tensor] | None = None  # the compiled networks, with train.compile
    d_call: Callable[..., DiscriminatorOutput] | None = None
    reconstruction: "Reconstruction | None" = None  # of joint training with an encoder

    def draw_fakes(self, purpose: str, index: int) -> Fakes:
        """Pictures of random latents."""
        optim, z_dim = self.config.optim, self.config.model.z_dim
        z, y = self.streams.latents(purpose, index, optim.batch_size, z_dim, self.num_classes)
        if (active := active_size(optim, z_dim, self.step)) < z_dim:
            z = F.pad(z[:, :active], (0, z_dim - active))
        with self.hardware.autocast():
            return Fakes((self.g_call or self.generator)(z, y), z, y)

    def augment(self, x: Tensor, purpose: str, index: int) -> Tensor:
        """DiffAugment and D's input noise, with random numbers of this stream; `x` (B, 3, H, W) is this process's part
        of the batch."""
        augment, share = self.config.augment, self.streams.local_slice
        shape = (self.config.optim.batch_size, *x.shape[1:])
        if augment.apply_diffaug:
            generator = self.streams.stream(purpose, index)
            params = draw_diffaug(shape, augment.diffaug_policy, generator, x.device, x.dtype)
            own = slice_draws(params, share.start, share.stop) if self.world.size > 1 else params
            x = apply_diffaug(x, own, stepwise=self.config.train.as_studiogan)
        if augment.d_input_noise:
            generator = self.streams.stream(f"{purpose}.noise", index)
            noise = torch.randn(shape, generator=generator, device=x.device)[share]
            x = x + augment.d_input_noise * noise.to(x.dtype)
        return x

    def d_output(self, x: Tensor, y: Tensor | None) -> DiscriminatorOutput:
        """The discriminator on pictures (B, 3, H, W) and labels (B,)."""
        with self.hardware.autocast():
            return (self.d_call or self.discriminator.output)(x, y)


BatchLoss = Callable[[Training, int], tuple[Tensor, dict[str, Tensor]]]


def train_step(run: Training) -> dict[str, Tensor]:
    """All discriminator updates, then the generator's. Returns scalars on the device, means over the updates."""
    optim, z_dim = run.config.optim, run.config.model.z_dim
    before, now = (active_size(optim, z_dim, step) for step in (max(0, run.step - 1), run.step))
    if now > before:
        init_new_columns(run.generator, run.g_optimizer, before, now)
    set_rates(run, [run.g_optimizer, run.d_optimizer])
    updates = [d_update(run, update) for update in range(run.config.optim.d_updates_per_step)]
    values = {name: torch.stack([values[name] for values in updates]).mean() for name in updates[0]}
    return values | g_update(run)


def d_update(run: Training, update: int) -> dict[str, Tensor]:
    """One discriminator update, the `update`-th of this step.

    Returns scalars: d_loss, d_real, d_fake, and depending on the config d_class, mismatch, lecam, gp, r1.
    """
    set_trainable(run.discriminator, True)
    run.d_optimizer.zero_grad(set_to_none=True)
    sums = accumulate(run, d_batch_loss, run.step * run.config.optim.d_updates_per_step + update)
    apply_update(run, run.d_optimizer, sums["d_loss"])
    return sums


def accumulate(run: Training, batch_loss: BatchLoss, number: int) -> dict[str, Tensor]:
    """Gradients of update `number`, over `optim.acml_steps` batches. Returns the mean of each part of the loss."""
    count = run.config.optim.acml_steps
    sums: dict[str, Tensor] = {}
    for micro in range(count):
        loss, parts = batch_loss(run, number * count + micro)
        (loss / count).backward()
        sums = {name: sums.get(name, 0) + part / count for name, part in parts.items()}
    return sums


def d_batch_loss(run: Training, index: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of D on global batch `index`, and its detached parts."""
    loss_config = run.config.loss
    real, real_y = run.source.batch(index)
    with torch.no_grad():  # G stays in training mode: D's steps update its batch statistics too, as in StudioGAN 0.2.0
        fake, _, fake_y = run.draw_fakes("d.latents", index)
    if run.config.train.as_studiogan:
        real = real.contiguous()
    real = run.augment(real, "d.real", index)
    fake = run.augment(fake, "d.fake", index)
    real_y = real_y if run.num_classes else None

    # A discriminator with batch norm (no spectral norm) needs separate calls: its statistics would mix both.
    if not run.config.train.as_studiogan and run.config.model.apply_d_sn:
        labels = torch.cat([real_y, fake_y]) if real_y is not None and fake_y is not None else None
        real_out, fake_out = run.d_output(torch.cat([real, fake]), labels).chunk()
    else:
        real_out, fake_out = run.d_output(real, real_y), run.d_output(fake, fake_y)

    loss = d_loss(loss_config.adv_loss, real_out.logits, fake_out.logits, loss_config.label_smoothing)
    parts = {"d_real": real_out.logits.mean(), "d_fake": fake_out.logits.mean()}
    if real_out.class_logits is not None:
        assert real_y is not None
        # Only real pictures: early fake ones do not show a class yet.
        parts["d_class"] = F.cross_entropy(real_out.class_logits.float(), real_y)
        loss = loss + loss_config.cond_lambda * parts["d_class"]
    if loss_config.apply_mismatch:
        assert real_y is not None
        by_class = run.discriminator.logits_by_class(real_out.features)
        parts["mismatch"] = mismatch_loss(loss_config.adv_loss, by_class, real_y)
        loss = loss + loss_config.mismatch_lambda * parts["mismatch"]
    if run.lecam is not None:
        parts["lecam"] = run.lecam.penalty(real_out.logits, fake_out.logits, run.step, run.world.mean)
        loss = loss + parts["lecam"]
    if loss_config.apply_gp:
        alpha = torch.rand(run.config.optim.batch_size, generator=run.streams.stream("d.gp", index), device=real.device)
        parts["gp"] = gradient_penalty(run.discriminator, real, fake, real_y, alpha[run.streams.local_slice])
        loss = loss + loss_config.gp_lambda * parts["gp"]
    if loss_config.apply_r1_reg:
        parts["r1"] = r1_penalty(run.discriminator, real, real_y)
        loss = loss + loss_config.r1_lambda * parts["r1"]
    return loss, {name: part.detach() for name, part in {**parts, "d_loss": loss}.items()}


def g_update(run: Training) -> dict[str, Tensor]:
    """One generator update, and the moving average. Increments the step.

    Returns scalars on the device: g_loss, and depending on the config g_class, similarity.
    """
    set_trainable(run.discriminator, False)
    run.g_optimizer.zero_grad(set_to_none=True)
    sums = accumulate(run, g_batch_loss, run.step)
    apply_update(run, run.g_optimizer, sums["g_loss"])
    if run.generator_ema is not None:
        decay = ema_decay(run.config, run.step)
        update_ema(run.generator_ema, run.generator, decay, stepwise=run.config.train.as_studiogan)
    run.nonfinite_steps = run.nonfinite_steps + run.nonfinite
    run.step += 1
    return sums


def g_batch_loss(run: Training, index: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of G on its batch `index`, and its detached parts."""
    loss_config = run.config.loss
    fake, z, y = run.draw_fakes("g.latents", index)
    output = run.d_output(run.augment(fake, "g.fake", index), y)
    loss = g_loss(loss_config.adv_loss, output.logits)
    parts: dict[str, Tensor] = {}
    if output.class_logits is not None:
        assert y is not None
        parts["g_class"] = F.cross_entropy(output.class_logits.float(), y)
        loss = loss + loss_config.cond_lambda * parts["g_class"]
    if loss_config.apply_similarity:
        parts["similarity"] = similarity_loss(output.features, z)
        loss = loss + loss_config.similarity_lambda * parts["similarity"]
    return loss, {name: part.detach() for name, part in {**parts, "g_loss": loss}.items()}


def apply_update(run: Training, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """The optimiser's update, unless this or an earlier loss or gradient was not finite.

    A fused Adam checks `found_inf` on the device, without synchronisation.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    average_gradients(gradients, run.world)
    finite = torch.isfinite(loss) & torch.isfinite(torch.nn.utils.get_total_norm(gradients))
    run.nonfinite = torch.maximum(run.nonfinite, run.world.mean((~finite).float()).ceil())
    if run.config.train.applied.fused_adam:
        optimizer.found_inf = run.nonfinite  # type: ignore[attr-defined]  # as torch.amp.GradScaler does
        optimizer.step()
    elif not run.nonfinite:
        optimizer.step()


def rate_factor(optim: Optim, step: int) -> float:
    """Factor of the learning rates in update `step` (0-based)."""
    done = step / optim.total_steps
    if optim.cosine_from is None or done <= optim.cosine_from:
        return 1.0
    progress = (done - optim.cosine_from) / (1 - optim.cosine_from)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2


def set_rates(run: Training, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Applies `optim.cosine_from` for the current step, if set."""
    if run.config.optim.cosine_from is None:
        return
    factor = rate_factor(run.config.optim, run.step)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])


def ema_decay(config: Config, step: int) -> float:
    """Decay after generator update `step` (0-based)."""
    model = config.model
    if step < model.g_ema_start:
        return 0.0
    return min(model.g_ema_decay, (1 + step) / (10 + step)) if model.g_ema_warmup else model.g_ema_decay


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float, stepwise: bool = False) -> None:
    """Averages the whole state dict, including batch-norm statistics, as StudioGAN 0.2.0; counters are copied.

    `stepwise` rounds as StudioGAN, in three passes; the fused form is faster.
    """
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [(a, b) for a, b in pairs if a.is_floating_point()]
    averages, now = [a for a, _ in floats], [b for _, b in floats]
    if stepwise:
        torch._foreach_mul_(averages, decay)  # type: ignore[attr-defined]
        torch._foreach_add_(averages, torch._foreach_mul(now, 1.0 - decay))  # type: ignore[attr-defined]
    else:
        torch._foreach_lerp_(averages, now, 1.0 - decay)  # type: ignore[attr-defined]
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


def trial_pass(run: Training) -> Pass:
    """A forward and backward pass through copies of the run's networks, for timing; the run is not changed."""
    generator, discriminator = copy.deepcopy(run.generator), copy.deepcopy(run.discriminator)
    encoder = None if run.reconstruction is None else copy.deepcopy(run.reconstruction.encoder)
    optim, z_dim = run.config.optim, run.config.model.z_dim
    z, y = run.streams.latents("precision", 0, optim.batch_size, z_dim, run.num_classes)
    z, y = z[:MAX_PICTURES], None if y is None else y[:MAX_PICTURES]

    def one_pass(hardware: Hardware) -> None:
        with hardware.autocast():
            pictures = generator(z, y)
            outputs = [discriminator.output(pictures, y).logits]
            outputs += [] if encoder is None else [encoder(pictures)[0]]
        torch.autograd.backward([output.float().sum() for output in outputs])

    return one_pass
