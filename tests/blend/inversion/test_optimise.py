"""Targets of a batch are refined as each alone, and the best latent is kept."""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from blend.inversion.distances import FeatureMaps, picture_error, unit_length
from blend.inversion.optimise import Inverted, invert, make_objective
from harness.checkpoints.sampling import standing_copy
from harness.config.experiment import Inversion, load_config
from harness.networks.arch import ArchSpec
from harness.networks.base import Generator
from harness.networks.resnet import ResNetDiscriminator, ResNetGenerator
from harness.runtime.latent_space import LatentSpace
from tests.blend.tiny_blend import BASE

Z_DIM, SIZE = 16, 32


def settings_of(**changes: Any) -> Inversion:
    values = {"steps": 100, "lr": 0.1, "batch_size": 64, "prior_lambda": 0.05, "features_lambda": 0.2, **changes}
    return load_config(BASE, [f"inversion.{key}={json.dumps(value)}" for key, value in values.items()]).inversion


def networks(dtype: torch.dtype, num_classes: int = 0) -> tuple[Generator, FeatureMaps]:
    """A generator with statistics of its own, whose pictures fill the range, and the features of a discriminator."""
    conditional = {"num_classes": num_classes, "g_cond_mtd": "cBN", "d_cond_mtd": "PD"} if num_classes else {}
    spec = ArchSpec(SIZE, SIZE, z_dim=Z_DIM, g_conv_dim=4, d_conv_dim=4, **conditional)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        generator, discriminator = (
            ResNetGenerator(spec),
            ResNetDiscriminator(spec).requires_grad_(False).eval().to(dtype),
        )
    with torch.no_grad():
        generator.conv2d5.weight.mul_(3)
    network = standing_copy(generator).requires_grad_(False).to(dtype)
    return network, lambda x: [unit_length(m) for m in discriminator.feature_maps(x)]


def latents(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, Z_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def targets_of(network: nn.Module, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Drawn ones with noise on top, so that none can be reached."""
    noise = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return (network(latents(count, 2, dtype)) + 0.1 * noise.to(dtype)).clamp(-1, 1)


def one_by_one(targets: Tensor, first: Tensor, run: Callable[[Tensor, Tensor], Inverted]) -> list[Inverted]:
    return [run(targets[k : k + 1], first[k : k + 1]) for k in range(len(targets))]


def test_batched_equals_one_by_one_in_double_precision():
    network, features = networks(torch.float64)
    targets, first = targets_of(network, 3, torch.float64), latents(3, 3, torch.float64)

    def run(some: Tensor, z: Tensor) -> Inverted:
        return invert(some, network, z, settings_of(), features)

    batched, alone = run(targets, first), one_by_one(targets, first, run)
    assert batched.z.dtype == torch.float64
    for k, single in enumerate(alone):
        for name in ("z", "error", "first_error"):
            difference = getattr(batched, name)[k] - getattr(single, name)[0]
            assert difference.abs().max() <= 1e-9, name
    assert (batched.z - first).norm(dim=1).min() > 0.5, "nothing moved, so nothing was compared"


def test_the_number_at_once_changes_nothing():
    network, features = networks(torch.float64)
    targets, first = targets_of(network, 5, torch.float64), latents(5, 3, torch.float64)
    whole, in_twos = (
        invert(targets, network, first, settings_of(steps=4, batch_size=size), features) for size in (64, 2)
    )
    for name in ("z", "z_first", "error", "first_error"):
        a, b = getattr(whole, name), getattr(in_twos, name)
        assert a.shape == b.shape and (a - b).abs().max() <= 1e-9, name


def test_batched_and_alone_agree_in_single_precision():
    network, features = networks(torch.float32)
    targets, first, settings = targets_of(network, 3), latents(3, 3), settings_of(steps=25)

    def first_gradient(some: Tensor, z: Tensor) -> Tensor:
        z = z.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(make_objective(some, network, settings, features)(z).sum(), z)
        return gradient

    together = first_gradient(targets, first)
    for k in range(3):
        alone = first_gradient(targets[k : k + 1], first[k : k + 1])[0]
        assert (together[k] - alone).abs().max() <= 1e-5 * alone.abs().max()
    batched = invert(targets, network, first, settings, features)
    alone = one_by_one(targets, first, lambda some, z: invert(some, network, z, settings, features))
    for k, single in enumerate(
        alone
    ):  # after 60 steps, with an error of 3 % of the first one, rounding tells: 25 % apart
        assert abs(batched.error[k] / single.error[0] - 1) < 0.05
    assert (batched.error < 0.9 * batched.first_error).all()


def test_targets_are_reached_and_errors_are_those_of_the_latents():
    network, features = networks(torch.float32)
    truth = latents(4, 2)
    found = invert(
        network(truth), network, truth + 0.3 * latents(4, 3), settings_of(prior_lambda=0.0, steps=40), features
    )
    assert (found.error < 0.1 * found.first_error).all()
    assert torch.allclose(found.error, picture_error(network(found.z), network(truth)))
    assert torch.allclose(found.first_error, picture_error(network(found.z_first), network(truth)))


class Wavy(nn.Module):
    """Flat pictures with a sine of the latent as brightness: a large step jumps between minima. Keeps its latents."""

    latents = LatentSpace(3)

    def __init__(self) -> None:
        super().__init__()
        self.visited: list[Tensor] = []

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        self.visited.append(z.detach().clone())
        return torch.sin(7 * z[:, :1, None, None]).expand(-1, 3, 4, 4)


def test_the_best_latent_of_each_target_is_kept():
    targets, network = torch.linspace(-0.9, 0.9, 6)[:, None, None, None].expand(-1, 3, 4, 4), Wavy().eval()
    settings = settings_of(steps=30, lr=1.0, prior_lambda=0.0, features_lambda=0.0)
    found = invert(targets, network, latents(6, 3), settings, lambda x: [])
    objective = make_objective(targets, network, settings, lambda x: [])
    history = torch.stack([objective(z) for z in network.visited[: settings.steps + 1]])
    best = history.min(0)
    assert torch.allclose(objective(found.z), best.values, atol=1e-6) and len(set(best.indices.tolist())) > 2
    assert (history[-1] > 2 * best.values).any(), "the last was best everywhere, so nothing was tested"


def test_a_first_guess_that_cannot_be_improved_stays():
    network, features = networks(torch.float32)
    truth = latents(3, 2)
    truth = truth / truth.norm(dim=1, keepdim=True) * Z_DIM**0.5
    with torch.no_grad():
        targets = network(truth)
    found = invert(targets, network, truth, settings_of(steps=5), features)
    assert torch.equal(found.z, truth)
    assert torch.equal(invert(targets, network, truth + 1, settings_of(steps=0), features).z, truth + 1)


def test_nan_affects_only_its_own_target():
    network, features = networks(torch.float32)
    targets, first = targets_of(network, 3), latents(3, 3)
    clean = invert(targets, network, first, settings_of(steps=5), features)
    targets[1, 0, 0, 0] = float("nan")
    found = invert(targets, network, first, settings_of(steps=5), features)
    assert torch.equal(found.z[1], first[1])
    assert torch.allclose(found.z[[0, 2]], clean.z[[0, 2]], atol=1e-4)


def test_the_prior_keeps_the_length_that_latents_have_in_training():
    network, features = networks(torch.float32)
    targets, first = targets_of(network, 4), 3 * latents(4, 3)
    lengths = [
        invert(targets, network, first, settings_of(prior_lambda=weight, steps=30, lr=0.3), features).z.norm(dim=1)
        / Z_DIM**0.5
        for weight in (0.0, 50.0)
    ]
    assert (lengths[1] - 1).abs().max() < 0.1 < (lengths[0] - 1).abs().max()


def test_each_weight_switches_its_part_on():
    network, features = networks(torch.float32)
    targets, z = targets_of(network, 3), 2 * latents(3, 3)
    off = {"prior_lambda": 0.0, "pixel_lambda": 0.0, "features_lambda": 0.0}
    parts = [
        make_objective(targets, network, settings_of(**off | {name: 2.0}), features)(z)
        for name in ("prior_lambda", "pixel_lambda", "features_lambda")
    ]
    whole = make_objective(targets, network, settings_of(**{name: 2.0 for name in off}), features)(z)
    assert torch.allclose(sum(parts, torch.zeros(3)), whole) and all((part > 0.01).all() for part in parts)
    assert torch.allclose(parts[0], 2 * (z.norm(dim=1) / 4 - 1) ** 2)


def test_classes_belong_to_their_targets():
    network, features = networks(torch.float32, num_classes=2)
    y, truth = torch.tensor([0, 1, 1]), latents(3, 2)
    targets = network(truth, y)
    start = truth + 0.2 * latents(3, 3)
    right = invert(targets, network, start, settings_of(batch_size=2, steps=20), features, y)
    wrong = invert(targets, network, start, settings_of(batch_size=2, steps=20), features, 1 - y)
    assert torch.allclose(right.error, picture_error(network(right.z, y), targets))
    assert (right.error < wrong.error).all()


def test_errors_are_measured_outside_of_autocast():
    network, features = networks(torch.float32)
    targets, first = targets_of(network, 2), latents(2, 3)

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    settings = settings_of(steps=3, features_lambda=0.0)
    found = invert(targets, network, first, settings, features, autocast=autocast)
    plain = invert(targets, network, first, settings, features)
    assert not torch.equal(found.z, plain.z), "the search was not in bf16"
    assert torch.equal(found.first_error, plain.first_error)
    assert torch.allclose(found.error, picture_error(network(found.z), targets))
