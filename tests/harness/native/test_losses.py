"""Losses, gradient penalties and LeCam against their definitions, without synchronising with the device."""

import copy
import math
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.native.losses import (
    ADV_LOSSES,
    LeCam,
    d_loss,
    g_loss,
    gradient_penalty,
    mismatch_loss,
    r1_penalty,
    similarity_loss,
)
from harness.networks.arch import ArchSpec
from harness.networks.resnet import ResNetDiscriminator

REAL, FAKE = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([-2.0, 0.25, 3.0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


BY_HAND = {
    "hinge": (mean([0.5, 0, 2]) + mean([0, 1.25, 4]), -mean([-2, 0.25, 3])),
    "vanilla": (
        -mean([math.log(sigmoid(r)) for r in REAL.tolist()]) - mean([math.log(1 - sigmoid(f)) for f in FAKE.tolist()]),
        -mean([math.log(sigmoid(f)) for f in FAKE.tolist()]),
    ),
    "least_square": (0.5 * mean([0.25, 1, 4]) + 0.5 * mean([4, 0.0625, 9]), 0.5 * mean([9, 0.5625, 4])),
    "wasserstein": (mean([-2, 0.25, 3]) - mean([0.5, 2, -1]), -mean([-2, 0.25, 3])),
}


@pytest.mark.parametrize("name", ADV_LOSSES)
def test_losses_by_hand(name: str) -> None:
    assert d_loss(name, REAL, FAKE).item() == pytest.approx(BY_HAND[name][0], rel=1e-6)
    assert g_loss(name, FAKE).item() == pytest.approx(BY_HAND[name][1], rel=1e-6)


@pytest.mark.parametrize("name", ADV_LOSSES)
def test_extreme_logits_stay_finite(name: str) -> None:
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    (d_loss(name, logits, -logits) + g_loss(name, logits)).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ADV_LOSSES)
def test_a_real_picture_under_another_name_counts_as_a_drawn_one(name: str) -> None:
    by_class = torch.tensor([[9.0, -2.0, 0.25], [0.5, 9.0, 3.0]])
    wrong, none = torch.tensor([-2.0, 0.25, 0.5, 3.0]), torch.zeros(1)
    of_fakes = d_loss(name, none, wrong)
    of_nothing = {"hinge": 1.0, "vanilla": math.log(2), "least_square": 0.5, "wasserstein": 0.0}[name]  # `none` as real
    found = mismatch_loss(name, by_class, torch.tensor([0, 1]))
    assert found.item() == pytest.approx(of_fakes.item() - of_nothing, rel=1e-6)
    others = by_class + 100 * torch.eye(2, 3)  # what is said under their own names does not count
    assert mismatch_loss(name, others, torch.tensor([0, 1])) == found
    assert mismatch_loss(name, by_class[:, :1], torch.tensor([0, 0])) == 0


class Plane(nn.Module):
    """D(x) = w . x: its slope is w everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((12,), 0.5))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.w


def test_gradient_penalty_of_a_plane() -> None:
    plane, x = Plane(), torch.randn(3, 3, 2, 2)
    penalty = gradient_penalty(plane, x, x + 1, None, torch.rand(3))
    assert penalty.item() == pytest.approx((12**0.5 * 0.5 - 1) ** 2, rel=1e-6)
    penalty.backward()
    norm = 12**0.5 * 0.5
    torch.testing.assert_close(plane.w.grad, torch.full((12,), 2 * (norm - 1) * 0.5 / norm))


def test_gradient_penalty_looks_between_the_pictures() -> None:
    seen = []

    class Spy(Plane):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            seen.append(x.detach())
            return super().forward(x, y)

    gradient_penalty(Spy(), torch.ones(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), None, torch.tensor([0.25, 1.0]))
    assert seen[0][0].unique().tolist() == [0.25] and seen[0][1].unique().tolist() == [1.0]


def test_gradient_penalty_reaches_the_weights_of_the_real_network() -> None:
    """Its slope along a random direction of all weights, spectral norm included, against finite differences."""
    torch.manual_seed(0)
    d = ResNetDiscriminator(ArchSpec(32, 32, d_conv_dim=2)).double().eval()
    real, fake = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    alpha = torch.rand(4, dtype=torch.float64)
    gradient_penalty(d, real, fake, None, alpha).backward()
    # Biases reach the penalty only through which units are active; at a kink differences would mislead.
    weights = {name: p for name, p in d.named_parameters() if p.dim() > 1}
    direction = {name: torch.randn_like(p) for name, p in weights.items()}
    slope = sum(float((p.grad * direction[name]).sum()) for name, p in weights.items() if p.grad is not None)
    around = []
    for distance in (1e-6, -1e-6):
        moved = copy.deepcopy(d)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                p += distance * direction.get(name, torch.zeros(()))
        around.append(gradient_penalty(moved, real, fake, None, alpha).item())
    assert slope == pytest.approx((around[0] - around[1]) / 2e-6, rel=1e-4)


def test_lecam_follows_its_definition() -> None:
    lecam = LeCam("standard", 0.3, 0.9, start_iter=3)
    ema_real = ema_fake = 0.0
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        real, fake = torch.randn(2, 5, generator=generator)
        decay = 0.0 if step < 3 else 0.9
        ema_real = decay * ema_real + (1 - decay) * real.mean().item()
        ema_fake = decay * ema_fake + (1 - decay) * fake.mean().item()
        expected = 0.0
        if step > 3:
            expected = 0.3 * (F.relu(real - ema_fake) ** 2).mean() + 0.3 * (F.relu(ema_real - fake) ** 2).mean()
        assert float(lecam.penalty(real, fake, step)) == pytest.approx(float(expected), rel=1e-5), step


def test_lecam_pulls_on_the_logits_only() -> None:
    lecam = LeCam("standard", 0.3, 0.9, start_iter=1)
    real, fake = torch.tensor([2.0, 1.0], requires_grad=True), torch.tensor([-1.0, 0.0], requires_grad=True)
    for step in (1, 2):
        penalty = lecam.penalty(real, fake, step)
    penalty.backward()
    # Anchors are constants: slope 0.3 * 2 * distance / 2.
    torch.testing.assert_close(real.grad, 0.3 * (real.detach() + 0.5))
    torch.testing.assert_close(fake.grad, -0.3 * (1.5 - fake.detach()))


def test_gsrgan_variant_keeps_an_anchor_for_each_place() -> None:
    lecam = LeCam("gsrgan", 0.5, 0.9)
    first = lecam.penalty(REAL, FAKE, 0)
    assert first.item() == pytest.approx(0.5 * float((REAL.relu() ** 2).mean() + (FAKE.relu() ** 2).mean()))
    second = lecam.penalty(REAL, FAKE, 1)
    expected = (F.relu(REAL - 0.1 * FAKE) ** 2).mean() + (F.relu(FAKE - 0.1 * REAL) ** 2).mean()
    assert second.item() == pytest.approx(0.5 * float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", ["standard", "gsrgan"])
def test_lecam_goes_on_where_it_was_saved(kind: str) -> None:
    whole, cut = LeCam(kind, 0.3, 0.9, 1), LeCam(kind, 0.3, 0.9, 1)
    batches = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(1))
    expected = [float(whole.penalty(real, fake, step)) for step, (real, fake) in enumerate(batches)]
    got = [float(cut.penalty(real, fake, step)) for step, (real, fake) in enumerate(batches[:3])]
    resumed = LeCam(kind, 0.3, 0.9, 1)
    resumed.load_state_dict(cut.state_dict())
    got += [float(resumed.penalty(real, fake, step)) for step, (real, fake) in enumerate(batches[3:], start=3)]
    assert got == expected and expected[-1] > 0


def test_lecam_anchors_can_be_averaged_over_ranks() -> None:
    lecam = LeCam("standard", 0.3, 0.9, 1)
    lecam.penalty(REAL, FAKE, 0, mean_over_ranks=lambda local: local + 1)
    expected = {"ema_real": REAL.mean() + 1, "ema_fake": FAKE.mean() + 1}
    torch.testing.assert_close(lecam.state_dict(), expected, check_dtype=False)


def test_nothing_waits_for_the_device() -> None:
    """Reading a value of a meta tensor raises, so whatever would make a GPU wait raises here."""
    real, fake = torch.zeros(4, device="meta"), torch.zeros(4, device="meta")
    for kind in ("standard", "gsrgan"):
        lecam = LeCam(kind, 0.3, 0.9, 1)
        for step in range(3):
            lecam.penalty(real, fake, step)
    for name in ADV_LOSSES:
        d_loss(name, real, fake)


def test_a_decay_that_never_forgets_is_refused() -> None:
    with pytest.raises(UserError, match="lecam_ema_decay: found 1.0, allowed"):
        LeCam("standard", 0.3, 1.0, 1)


# ---- smoothing, R1, similarity ----------------------------------------------------------------------------------


def test_label_smoothing_is_cross_entropy_with_a_softer_target() -> None:
    real, fake = torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.full((16,), 0.9, dtype=torch.float64)
    wanted = F.binary_cross_entropy_with_logits(real, targets) + F.binary_cross_entropy_with_logits(fake, targets * 0)
    torch.testing.assert_close(d_loss("vanilla", real, fake, smoothing=0.1), wanted, rtol=0, atol=1e-12)


def test_r1_is_the_slope_at_real_pictures() -> None:
    """Of D(x) = sum of a x^2 / 2 the slope is a x."""

    class Bowl(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
            return 1.5 * x.flatten(1).square().sum(1)

    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(r1_penalty(Bowl(), x, None), 0.5 * (3 * x).flatten(1).square().sum(1).mean())
    d = ResNetDiscriminator(ArchSpec(32, 32, d_conv_dim=2))
    r1_penalty(d, torch.randn(2, 3, 32, 32), None).backward()
    assert all(p.grad is not None for p in d.blocks.parameters() if p.dim() > 1)


def test_similarity_is_felt_by_pictures_that_are_more_alike_than_their_latents() -> None:
    z = torch.eye(6)
    sides = torch.tensor([[1.0, 0.1, 0, 0], [1, 0, 0.1, 0], [1, 0, 0, 0.1]])
    collapsed = (1 + 0.01 * torch.cat([sides, -sides])).requires_grad_()  # two kinds of pictures, whatever the latent
    loss = similarity_loss(collapsed, z)
    assert float(loss.detach()) > 0.3 and float(similarity_loss(torch.eye(6), z)) < 1e-6
    (slope,) = torch.autograd.grad(loss, collapsed)
    assert float(slope.abs().max()) > 0  # the first seed detached it
    assert float(similarity_loss(collapsed.detach(), torch.ones(6, 3))) < 1e-6  # equal latents may look alike
