"""Mixing latents, latents by seed, and reading lists of seeds."""

import math

import pytest
import torch

from blend.generator.latents import mix_latents, seeds_to_latents, text_to_seeds
from harness.errors import UserError


def test_linear_is_the_weighted_average():
    a, b = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[3.0, 6.0], [8.0, 0.0]])
    mixed = mix_latents(a, b, torch.tensor([0.25, 1.0]))
    assert mixed.tolist() == [[1.5, 3.0], [8.0, 0.0]]


def test_slerp_keeps_to_the_arc():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    third = mix_latents(a, b, torch.tensor([1 / 3]), "slerp")
    assert third[0].tolist() == pytest.approx([2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)], abs=1e-6)
    z = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    lengths = mix_latents(z[:25], z[25:], torch.full((25,), 0.5), "slerp").norm(dim=1)
    torch.testing.assert_close(lengths, (z[:25].norm(dim=1) + z[25:].norm(dim=1)) / 2)
    for weight, end in ((0.0, z[:25]), (1.0, z[25:])):
        torch.testing.assert_close(mix_latents(z[:25], z[25:], torch.full((25,), weight), "slerp"), end)


def test_slerp_of_equal_and_of_zero_latents_is_finite():
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mix_latents(z, z, torch.full((3,), 0.3), "slerp"), z)
    assert mix_latents(torch.zeros(3, 8), z, torch.full((3,), 0.3), "slerp").isfinite().all()


def test_a_seed_gives_its_latent_whatever_stands_beside_it():
    z, y = seeds_to_latents([4, 7, 9], 16, 3)
    again, label = seeds_to_latents([7], 16, 3)
    assert (z[1] == again[0]).all() and y is not None and label is not None and y[1] == label[0]
    assert len({tuple(row.tolist()) for row in z}) == 3
    assert seeds_to_latents([1], 16, 0)[1] is None


@pytest.mark.parametrize(("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("5", [5]), ("8, 1-2,4", [8, 1, 2, 4])])
def test_lists_of_seeds(text, seeds):
    assert text_to_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,1", "0-99999999", "1.5", "1-2-3"])
def test_what_is_no_list_of_seeds_is_told(text):
    with pytest.raises(UserError, match="^seeds: found .*, try --seeds 0-31"):
        text_to_seeds(text)
