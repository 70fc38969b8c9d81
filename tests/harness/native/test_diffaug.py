"""DiffAugment follows its formulas, is differentiable, and depends on its generator alone."""

import pytest
import torch
from torch import Tensor

from harness.errors import UserError
from harness.native.diffaug import apply_diffaug, draw_diffaug, slice_draws

ALL = ("color", "translation", "cutout")


def draws_of(shape: tuple[int, ...], policy: tuple[str, ...] = ALL, seed: int = 0) -> dict[str, Tensor]:
    return draw_diffaug(shape, policy, torch.Generator().manual_seed(seed), "cpu", torch.float64)


def one_by_one(x: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """The paper's description, a picture and a pixel at a time."""
    out = x.clone()
    height, width = x.shape[2:]
    for k, picture in enumerate(out):
        picture += draws["brightness"][k]
        grey = picture.mean(0, keepdim=True).clone()
        picture.sub_(grey).mul_(draws["saturation"][k]).add_(grey)
        mean = picture.mean().clone()
        picture.sub_(mean).mul_(draws["contrast"][k]).add_(mean)
        source = picture.clone()
        down, right = draws["translation"][k].tolist()
        row, column = (c - s // 2 for c, s in zip(draws["cutout"][k].tolist(), (height // 2, width // 2), strict=True))
        for i in range(height):
            for j in range(width):
                inside = 0 <= i + down < height and 0 <= j + right < width
                erased = row <= i < row + height // 2 and column <= j < column + width // 2
                picture[:, i, j] = source[:, i + down, j + right] if inside and not erased else 0
    return out


@pytest.mark.parametrize("shape", [(6, 3, 16, 16), (5, 3, 16, 28)])
def test_equals_the_description(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    draws = draws_of(shape)
    channels_last = x.to(memory_format=torch.channels_last)
    for found in (apply_diffaug(x, draws), apply_diffaug(x, draws, stepwise=True), apply_diffaug(channels_last, draws)):
        torch.testing.assert_close(found, one_by_one(x, draws))


def test_draws_cover_their_ranges() -> None:
    draws = draws_of((4000, 3, 32, 64))
    for name, low, high in (("brightness", -0.5, 0.5), ("saturation", 0, 2), ("contrast", 0.5, 1.5)):
        values = draws[name]
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() < high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03)
    for axis, size in enumerate((32, 64)):
        shifts, counts = draws["translation"][:, axis].unique(return_counts=True)
        assert shifts.tolist() == list(range(-size // 8, size // 8 + 1))
        assert counts.min() > 0.6 * 4000 / len(shifts)
        assert draws["cutout"][:, axis].unique().tolist() == list(range(size + 1))  # the side is even: 0..size


def test_a_quarter_is_erased_where_it_fits() -> None:
    draws = {"cutout": torch.tensor([[8, 8], [0, 0], [16, 8]])}
    erased = (apply_diffaug(torch.ones(3, 3, 16, 16), draws) == 0).sum((1, 2, 3)) / 3
    assert erased.tolist() == [64, 16, 32]


def test_gradients() -> None:
    shape = (2, 3, 8, 8)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    draws = draws_of(shape, seed=3)
    for stepwise in (False, True):
        assert torch.autograd.gradcheck(lambda x, way=stepwise: apply_diffaug(x, draws, way), (x,))
        assert torch.autograd.gradgradcheck(lambda x, way=stepwise: apply_diffaug(x, draws, way).square(), (x,))


@pytest.mark.parametrize("policy", [(), ("color",), ("cutout",), ("cutout", "color"), ("translation", "cutout")])
def test_policies(policy: tuple[str, ...]) -> None:
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64) + 1
    out = apply_diffaug(x, draws_of((4, 3, 16, 16), policy))
    assert (not policy) == torch.equal(out, x)
    erases = "translation" in policy or "cutout" in policy
    assert bool((out == 0).any()) == (erases and policy != ("cutout", "color"))  # colour comes after the cut there


def test_an_unknown_policy_is_refused() -> None:
    for policy in (("colour",), ("color", "color")):
        with pytest.raises(UserError, match="augment.diffaug_policy: found .* allowed each of"):
            draws_of((2, 3, 8, 8), policy)


def test_a_slice_of_the_draws_augments_a_slice_of_the_batch() -> None:
    x = torch.randn(6, 3, 16, 16, dtype=torch.float64)
    draws = draws_of((6, 3, 16, 16))
    whole = apply_diffaug(x, draws)
    assert torch.equal(apply_diffaug(x[2:5], slice_draws(draws, 2, 5)), whole[2:5])


def test_draws_depend_on_the_generator_alone() -> None:
    first, again, other = (draws_of((4, 3, 16, 16), seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["brightness"], other["brightness"])
