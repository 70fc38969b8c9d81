"""The latent space: mixing, latents by seed, truncation."""

import math

import pytest
import torch

from harness.runtime.latent_space import LatentSpace

LATENTS = LatentSpace(64)


def test_linear_is_the_weighted_average():
    a, b = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[3.0, 6.0], [8.0, 0.0]])
    mixed = LATENTS.mix(a, b, torch.tensor([0.25, 1.0]))
    assert mixed.tolist() == [[1.5, 3.0], [8.0, 0.0]]


def test_slerp_keeps_to_the_arc():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    third = LATENTS.mix(a, b, torch.tensor([1 / 3]), "slerp")
    assert third[0].tolist() == pytest.approx([2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)], abs=1e-6)
    z = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    lengths = LATENTS.mix(z[:25], z[25:], torch.full((25,), 0.5), "slerp").norm(dim=1)
    torch.testing.assert_close(lengths, (z[:25].norm(dim=1) + z[25:].norm(dim=1)) / 2)
    for weight, end in ((0.0, z[:25]), (1.0, z[25:])):
        torch.testing.assert_close(LATENTS.mix(z[:25], z[25:], torch.full((25,), weight), "slerp"), end)


def test_slerp_of_equal_and_of_zero_latents_is_finite():
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LATENTS.mix(z, z, torch.full((3,), 0.3), "slerp"), z)
    assert LATENTS.mix(torch.zeros(3, 8), z, torch.full((3,), 0.3), "slerp").isfinite().all()


def test_a_seed_gives_its_latent_whatever_stands_beside_it():
    z, y = LatentSpace(16, 3).draw_by_seed("design", [4, 7, 9])
    again, label = LatentSpace(16, 3).draw_by_seed("design", [7])
    assert (z[1] == again[0]).all() and y is not None and label is not None and y[1] == label[0]
    assert len({tuple(row.tolist()) for row in z}) == 3
    assert LatentSpace(16).draw_by_seed("design", [1])[1] is None


def test_truncation_goes_towards_the_mean_latent():
    z = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LATENTS.truncate(z, 1.0), z)
    torch.testing.assert_close(LATENTS.truncate(z, 0.5), z / 2)
    assert torch.equal(LATENTS.truncate(z, 0.0), LATENTS.mean.expand(3, 64))


def test_the_prior_distance_is_about_length_alone():
    z = torch.nn.functional.normalize(torch.randn(4, 64), dim=1) * torch.tensor([8.0, 0.0, 16.0, 4.0])[:, None]
    torch.testing.assert_close(LATENTS.prior_distance(z), torch.tensor([0.0, 1.0, 1.0, 0.25]), atol=1e-6, rtol=0)


def test_numbers_of_another_length_are_no_latent():
    assert LatentSpace(2).from_numbers([0.1, 2.0]).tolist() == [[pytest.approx(0.1), 2.0]]
    with pytest.raises(ValueError, match="3 numbers, not 2"):
        LatentSpace(2).from_numbers([0.0, 1.0, 2.0])
