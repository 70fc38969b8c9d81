"""Joint training of an encoder with generator and discriminator: pictures are reconstructed from their own latents.

Related work: VAE/GAN (Larsen et al. 2016), alpha-GAN (Rosca et al. 2017), ALAE (Pidhorskyi et al. 2020). Besides the
discriminator on pixels there are discriminator heads on a frozen network's feature maps (Projected GAN, Sauer et al.
2021).

Each step reconstructs a batch of training pictures and generates as many from normal latents. The gradients of both
losses with respect to the pictures are added; the adversarial one is scaled to a share of the reconstruction one. The
share is controlled by the discriminator's loss: it falls while the discriminator loses, and rises while it wins.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.features.frozen_maps import FrozenMaps
from harness.native.losses import d_loss, g_loss
from harness.native.step import Training, apply_update, ema_decay, set_rates, update_ema
from harness.networks.encoder import Encoder
from harness.networks.feature_heads import FeatureHeads
from harness.runtime.dist import World
from harness.runtime.rng import numpy_rng

SCALES = 4  # of the pixel loss: full size, and halved three times
SHARE_START, MIN_SHARE = 0.05, 0.003
SHARE_RATE, HINGE_TARGET = 0.1, 1.2  # share *= exp(rate * (target - D's hinge loss)); 2 = D at chance
CORRELATION_MOMENTUM = 0.05
# Discriminators and feature networks have strides of 4 pixels and more, and the grid shows in their gradient. A random
# shift of 0 to 3 pixels, the same for the whole batch, varies the position of a pixel in the grid.
SHIFTS = 4


@dataclass
class Reconstruction:
    """The state of joint training besides generator and discriminator.

    Attributes:
        share: (), current norm of the adversarial gradient relative to the reconstruction gradient.
        correlation: (z_dim, z_dim), running mean of z z' over the batches.
    """

    encoder: Encoder
    encoder_ema: Encoder | None
    heads: FeatureHeads
    maps: FrozenMaps
    e_optimizer: torch.optim.Optimizer
    h_optimizer: torch.optim.Optimizer
    share: Tensor
    correlation: Tensor


def reconstruction_step(run: Training) -> dict[str, Tensor]:
    """One update of encoder and generator and, in adversarial steps, of the discriminators.

    Returns scalars on the device, means over the accumulated batches: g_loss (reconstruction), pixel, features,
    correlation, and in adversarial steps d_loss, d_real, d_fake, adversarial, share.
    """
    rec, optim, settings = run.reconstruction, run.config.optim, run.config.reconstruction
    assert rec is not None
    adversarial = run.step >= settings.warmup_steps and run.step % settings.adversarial_every_steps == 0
    set_rates(run, [run.g_optimizer, rec.e_optimizer, run.d_optimizer, rec.h_optimizer])
    updates = [(run.g_optimizer, "g_loss"), (rec.e_optimizer, "g_loss")]
    updates += [(run.d_optimizer, "d_loss"), (rec.h_optimizer, "d_loss")] if adversarial else []
    for optimizer, _ in updates:
        optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for micro in range(optim.acml_steps):
        parts = _batch(run, rec, run.step * optim.acml_steps + micro, adversarial)
        sums = {name: sums.get(name, 0) + part / optim.acml_steps for name, part in parts.items()}
    for optimizer, loss in updates:
        apply_update(run, optimizer, sums[loss])
    decay = ema_decay(run.config, run.step)
    for average, network in ((run.generator_ema, run.generator), (rec.encoder_ema, rec.encoder)):
        if average is not None:
            update_ema(average, network, decay)
    run.nonfinite_steps = run.nonfinite_steps + run.nonfinite
    run.step += 1
    return sums


def _batch(run: Training, rec: Reconstruction, index: int, adversarial: bool) -> dict[str, Tensor]:
    """Adds the gradients of one batch to all networks. Returns its detached losses."""
    settings, share_of_step = run.config.reconstruction, 1 / run.config.optim.acml_steps
    real, real_y = run.source.batch(index)
    real_y, count = real_y if run.num_classes else None, len(real)
    assert rec.encoder.whitening is not None
    with run.hardware.autocast():
        unwhitened, class_logits = rec.encoder.unwhitened(real)
    z = rec.encoder.whitening(unwhitened)
    parts = {"correlation": _decorrelation(rec, unwhitened, run.world)}
    side_loss = settings.decorrelation_lambda * parts["correlation"]
    if class_logits is not None and real_y is not None:
        parts["e_class"] = F.cross_entropy(class_logits, real_y)
        side_loss = side_loss + settings.class_lambda * parts["e_class"]
    y = real_y
    if adversarial:
        optim = run.config.optim
        prior_z, prior_y = run.streams.latents(
            "g.latents", index, optim.batch_size, run.config.model.z_dim, run.num_classes
        )
        z, y = torch.cat([z, prior_z]), None if real_y is None or prior_y is None else torch.cat([real_y, prior_y])
    with run.hardware.autocast():
        pictures = (run.g_call or run.generator)(z, y)

    # The losses are computed on detached pictures; the sum of their gradients is backpropagated at the end.
    fake = pictures.detach().requires_grad_(True)
    down, right = numpy_rng(run.config.seed, "shift", index).integers(0, SHIFTS, 2).tolist()
    real_shifted, fake_shifted = shift(real, down, right), shift(fake, down, right)
    with torch.no_grad():
        real_maps = rec.maps(real_shifted)
    maps = rec.maps(fake_shifted)
    parts["pixel"] = pixel_loss(fake[:count], real, settings.gradient_lambda, settings.colour_weight)
    parts["features"] = feature_loss([part[:count] for part in maps], real_maps)
    parts["g_loss"] = settings.pixel_lambda * parts["pixel"] + settings.features_lambda * parts["features"]
    (gradient,) = torch.autograd.grad(parts["g_loss"], fake, retain_graph=adversarial)
    if adversarial:
        parts |= _discriminator_losses(run, rec, index, real_shifted, real_y, real_maps, fake_shifted, y, maps)
        (adversarial_gradient,) = torch.autograd.grad(parts["adversarial"], fake)
        rec.share = _adjusted_share(rec.share, run.world.mean(parts["d_loss"].detach()), settings.adversarial_share)
        parts["share"] = rec.share
        norm = run.world.mean(gradient[:count].square().sum()).sqrt()
        adversarial_norm = run.world.mean(adversarial_gradient[:count].square().sum()).sqrt()
        gradient = gradient + rec.share * norm / (adversarial_norm + 1e-12) * adversarial_gradient
    torch.autograd.backward(
        [pictures, side_loss], [share_of_step * gradient, share_of_step * torch.ones_like(side_loss)]
    )
    return {name: part.detach() for name, part in parts.items()}


def _discriminator_losses(
    run: Training, rec: Reconstruction, index: int, real: Tensor, real_y: Tensor | None, real_maps: list[Tensor],
    fake: Tensor, y: Tensor | None, fake_maps: list[Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    """Backpropagates the loss of both discriminators into them. `adversarial` is the generator's loss.

    The first half of `fake` are reconstructions, the second half samples."""
    kind, discriminator = run.config.loss.adv_loss, run.discriminator
    real_out = run.d_output(run.augment(real, "d.real", index), real_y)
    halves = zip(fake.chunk(2), ("d.redrawn", "d.fake"), strict=True)
    fake_out = run.d_output(torch.cat([run.augment(half, purpose, index) for half, purpose in halves]), y)
    head_real, head_fake = rec.heads(real_maps), rec.heads(fake_maps)
    on_pixels = d_loss(kind, real_out.logits, fake_out.logits)
    on_maps = d_loss(kind, head_real.flatten(), head_fake.flatten())
    loss = (on_pixels + on_maps) / 2
    parts = {"d_real": real_out.logits.mean(), "d_fake": fake_out.logits.mean(), "d_loss": loss}
    if run.lecam is not None:
        parts["lecam"] = run.lecam.penalty(real_out.logits, fake_out.logits, run.step, run.world.mean)
        loss = loss + parts["lecam"]
    parameters = [p for p in [*discriminator.parameters(), *rec.heads.parameters()] if p.requires_grad]
    (loss / run.config.optim.acml_steps).backward(inputs=parameters, retain_graph=True)
    parts["adversarial"] = (g_loss(kind, fake_out.logits) + g_loss(kind, head_fake.flatten())) / 2
    return parts


def _adjusted_share(share: Tensor, hinge: Tensor, max_share: float) -> Tensor:
    return (share * torch.exp(SHARE_RATE * (HINGE_TARGET - hinge))).clamp(MIN_SHARE, max_share)


def _decorrelation(rec: Reconstruction, z: Tensor, world: World) -> Tensor:
    """Mean squared correlation between components of z, from a running mean whose gradient reaches this batch.

    Also updates the encoder's whitening with the same second moments."""
    momentum, moment = CORRELATION_MOMENTUM, z.t() @ z / len(z)
    mean_moment = world.mean(moment.detach())
    assert rec.encoder.whitening is not None
    rec.encoder.whitening.update(mean_moment)
    now = mean_moment + moment - moment.detach()  # value of all processes, gradient of this one
    running = torch.lerp(rec.correlation, now, momentum)
    rec.correlation = running.detach()
    between = running - torch.diag(running.diagonal())
    return between.square().sum() / len(running) / momentum


def shift(x: Tensor, down: int, right: int) -> Tensor:
    """(B, C, H, W) shifted by `down` and `right` pixels; edges are replicated."""
    return F.pad(x, (right, 0, down, 0), mode="replicate")[:, :, : x.shape[2], : x.shape[3]]


def pixel_loss(x: Tensor, target: Tensor, gradient_lambda: float, colour_weight: float = 1.0) -> Tensor:
    """L1 loss of float (B, 3, H, W) and of their spatial gradients, mean over SCALES scales.

    `colour_weight`: factor of a difference's deviation from grey."""
    loss = x.new_zeros(())
    for scale in range(SCALES):
        if scale:
            x, target = F.avg_pool2d(x, 2), F.avg_pool2d(target, 2)
        difference = x - target
        if colour_weight != 1:
            grey = difference.mean(1, keepdim=True)
            difference = grey + colour_weight * (difference - grey)
        slopes = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        loss = loss + difference.abs().mean() + gradient_lambda * slopes / 2
    return loss / SCALES


def feature_loss(maps: list[Tensor], target_maps: list[Tensor]) -> Tensor:
    """L1 loss relative to the target's mean magnitude, mean over maps and pictures."""
    sizes = [target.abs().mean((1, 2, 3)).clamp(min=1e-6) for target in target_maps]
    triples = zip(maps, target_maps, sizes, strict=True)
    return torch.stack([((a - b).abs().mean((1, 2, 3)) / size).mean() for a, b, size in triples]).mean()
