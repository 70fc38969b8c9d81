"""Adversarial losses, gradient penalties and LeCam; as in StudioGAN `utils/losses.py` unless noted."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError

ADV_LOSSES = ("hinge", "vanilla", "least_square", "wasserstein")


def d_loss(adv_loss: str, real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """The discriminator's loss on logits (B,). `smoothing` (vanilla only): one-sided label smoothing, the target for
    real pictures is 1 - smoothing (Salimans et al. 2016).

    `vanilla` is Goodfellow et al. 2014, -log s(real) - log(1 - s(fake)) with 1 - s(x) = s(-x). StudioGAN 0.2.0 writes
    s(1 - x) for the last term, another function; its runs with `vanilla` cannot be resumed exactly.
    """
    if adv_loss == "hinge":
        return F.relu(1 - real_logits).mean() + _fake_loss(adv_loss, fake_logits).mean()
    if adv_loss == "vanilla":
        real = F.softplus(-real_logits) + smoothing * real_logits  # softplus(x) = softplus(-x) + x
        return real.mean() + _fake_loss(adv_loss, fake_logits).mean()
    if adv_loss == "least_square":
        return (0.5 * (real_logits - 1).square() + _fake_loss(adv_loss, fake_logits)).mean()
    return (_fake_loss(adv_loss, fake_logits) - real_logits).mean()


def g_loss(adv_loss: str, fake_logits: Tensor) -> Tensor:
    """The generator's loss on the logits (B,) of its pictures; `vanilla` is the non-saturating form."""
    if adv_loss == "vanilla":
        return F.softplus(-fake_logits).mean()
    if adv_loss == "least_square":
        return 0.5 * (fake_logits - 1).square().mean()
    assert adv_loss in ("hinge", "wasserstein"), adv_loss
    return -fake_logits.mean()


def mismatch_loss(adv_loss: str, logits_by_class: Tensor, y: Tensor) -> Tensor:
    """D's loss on real pictures with wrong class labels, which count as fake (GAN-CLS, Reed et al. 2016).

    `logits_by_class` (B, K): logits under every label; `y` int64 (B,): the correct labels, which are left out. Mean
    over the others; 0 for a single class.
    """
    others = F.one_hot(y, logits_by_class.shape[1]) == 0
    return (_fake_loss(adv_loss, logits_by_class) * others).sum() / others.sum().clamp(min=1)


def _fake_loss(adv_loss: str, logits: Tensor) -> Tensor:
    """D's loss on each logit of a fake picture."""
    if adv_loss == "hinge":
        return F.relu(1 + logits)
    if adv_loss == "vanilla":
        return F.softplus(logits)
    if adv_loss == "least_square":
        return 0.5 * logits.square()
    assert adv_loss == "wasserstein", adv_loss
    return logits


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None, alpha: Tensor) -> Tensor:
    """WGAN-GP (Gulrajani et al. 2017): mean of (|dD/dx| - 1)^2 at alpha * real + (1 - alpha) * fake.

    `alpha` (B,): random numbers in [0, 1]. The result is not multiplied by lambda.
    """
    alpha = alpha.view(-1, 1, 1, 1).to(real.dtype)
    between = (alpha * real + (1 - alpha) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(between, y).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(discriminator: nn.Module, real: Tensor, y: Tensor | None) -> Tensor:
    """R1 (Mescheder et al. 2018): half the mean of |dD/dx|^2 at real pictures, not multiplied by lambda."""
    real = real.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(real, y).sum(), real, create_graph=True)
    return 0.5 * slope.flatten(1).square().sum(1).mean()


def similarity_loss(features: Tensor, z: Tensor) -> Tensor:
    """Penalty for pictures that are more similar than their latents: mean relu(cos(h_i, h_j) - cos(z_i, z_j))^2, i !=
    j.

    `features` float32 (B, d) of D; the batch mean is subtracted, because rectified features always have positive
    cosines. `z` (B, z_dim). The gradient reaches G through the features.
    """
    count = len(z)
    excess = F.relu(_cosines(features - features.mean(0)) - _cosines(z)).square()
    return (excess.sum() - excess.diagonal().sum()) / (count * (count - 1))


def _cosines(rows: Tensor) -> Tensor:
    unit = F.normalize(rows.float(), dim=1)
    return unit @ unit.t()


class LeCam:
    """LeCam regularisation (Tseng et al. 2021): pulls D's outputs towards moving averages (anchors) of its outputs.

    `standard` (paper, StudioGAN 0.4.0): two scalar anchors; mean(relu(D(x) - ema_fake)^2) plus
        mean(relu(ema_real - D(G(z)))^2). The anchors take in the current batch before they are used, equal it until
        `start_iter`, and the penalty acts only after it.
    `gsrgan` (the first seed's code, for reproduction only): one anchor for each position in the batch, 0 during step 0,
        no start step, and the opposite sign in the second relu: mean(relu(D(G(z)) - ema_real)^2).

    Anchors stay on the device; nothing here synchronises with it.
    """

    def __init__(self, kind: str, lambda_: float, ema_decay: float, start_iter: int = 1):
        assert kind in ("standard", "gsrgan"), kind
        if not 0 <= ema_decay < 1:
            raise UserError(
                f"loss.lecam_ema_decay: found {ema_decay}, allowed 0 <= decay < 1, try loss.lecam_ema_decay=0.99"
            )
        self.kind, self.lambda_, self.ema_decay, self.start_iter = kind, lambda_, ema_decay, start_iter
        self.ema_real: Tensor | None = None  # () for standard, (B,) for gsrgan
        self.ema_fake: Tensor | None = None

    def penalty(
        self,
        real_logits: Tensor,
        fake_logits: Tensor,
        step: int,
        mean_over_ranks: Callable[[Tensor], Tensor] = lambda local: local,
    ) -> Tensor:
        """lambda * penalty of logits (B,) at generator step `step` (0-based); updates the anchors.

        `mean_over_ranks` averages a small tensor over all processes, so that all have the same anchors.
        """
        self._update_ema(real_logits.detach(), fake_logits.detach(), step, mean_over_ranks)
        assert self.ema_real is not None and self.ema_fake is not None
        if self.kind == "gsrgan":
            return self.lambda_ * (_hinge2(real_logits - self.ema_fake) + _hinge2(fake_logits - self.ema_real))
        if step <= self.start_iter:
            return real_logits.new_zeros(())
        return self.lambda_ * (_hinge2(real_logits - self.ema_fake) + _hinge2(self.ema_real - fake_logits))

    def _update_ema(self, real: Tensor, fake: Tensor, step: int, mean_over_ranks: Callable[[Tensor], Tensor]) -> None:
        if self.kind == "gsrgan":
            now = torch.stack([real, fake])
            # That code sets the anchors to 0 at each update of step 0.
            decay, now = (0.0, torch.zeros_like(now)) if step == 0 else (self.ema_decay, now)
        else:
            # float64: StudioGAN's are Python numbers
            now = mean_over_ranks(torch.stack([real.mean(), fake.mean()])).double()
            decay = 0.0 if step < self.start_iter else self.ema_decay
        real_before, fake_before = self.ema_real, self.ema_fake
        if real_before is None or fake_before is None:
            # First batch. StudioGAN starts at 7777, which diverges unless start_iter >= 1.
            start = torch.zeros_like(now) if self.kind == "gsrgan" else now
            real_before, fake_before = start[0], start[1]
        self.ema_real = decay * real_before + (1 - decay) * now[0]
        self.ema_fake = decay * fake_before + (1 - decay) * now[1]

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"ema_real": self.ema_real, "ema_fake": self.ema_fake}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        self.ema_real, self.ema_fake = state["ema_real"], state["ema_fake"]


def _hinge2(x: Tensor) -> Tensor:
    return F.relu(x).square().mean()
