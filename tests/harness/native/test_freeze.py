"""FreezeD: frozen blocks stay bit for bit, all others train."""

import copy

import pytest
import torch

from harness.errors import UserError
from harness.native.freeze import freeze_discriminator, set_trainable, trainable_parameters
from harness.native.losses import d_loss
from harness.networks.arch import ArchSpec
from harness.networks.resnet import ResNetDiscriminator

SPEC = ArchSpec(32, 32, z_dim=8, g_conv_dim=4, d_conv_dim=8)


def train(d: ResNetDiscriminator, steps: int) -> None:
    """D updates as training does them, each followed by what G's update does to D."""
    adam = torch.optim.Adam(d.parameters(), 1e-2, (0.0, 0.9))
    for _ in range(steps):
        set_trainable(d, True)
        adam.zero_grad()
        d_loss("hinge", d(torch.randn(4, 3, 32, 32)), d(torch.randn(4, 3, 32, 32))).backward()
        adam.step()
        set_trainable(d, False)
        assert not any(p.requires_grad for p in d.parameters())
        d(torch.randn(4, 3, 32, 32))


@pytest.mark.parametrize("sn", [True, False], ids=["spectral-norm", "batch-norm"])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_frozen_blocks_stay_bitwise_and_the_others_move(n: int, sn: bool) -> None:
    d = ResNetDiscriminator(ArchSpec(**{**SPEC.__dict__, "apply_d_sn": sn, "apply_attn": True}))
    train(d, 1)
    freeze_discriminator(d, n)
    before = {name: value.clone() for name, value in d.state_dict().items()}
    train(d, 3)
    for name, value in d.state_dict().items():
        if name == "linear1.weight_u":
            continue  # a unit vector of one number, always 1 or -1
        frozen = name.startswith(tuple(f"blocks.{k}." for k in range(n)))
        assert torch.equal(value, before[name]) == frozen, name
    names = {id(p): name for name, p in d.named_parameters()}
    assert not [names[id(p)] for p in trainable_parameters(d) if names[id(p)].startswith("blocks.0.")]


def test_a_copy_is_frozen_too() -> None:
    d = ResNetDiscriminator(SPEC)
    freeze_discriminator(d, 2)
    copied = copy.deepcopy(d)
    before = {name: value.clone() for name, value in copied.blocks[:2].state_dict().items()}
    train(copied, 2)
    assert all(torch.equal(value, before[name]) for name, value in copied.blocks[:2].state_dict().items())


@pytest.mark.parametrize("n", [0, 4, 5, -1])
def test_a_count_that_freezes_nothing_or_everything_is_refused(n: int) -> None:
    d = ResNetDiscriminator(SPEC)
    with pytest.raises(UserError, match=f"freeze_layers: found {n}, allowed 1 to 3 .* try"):
        freeze_discriminator(d, n)
    assert len(trainable_parameters(d)) == len(list(d.parameters()))


def test_without_freezing_everything_is_trainable() -> None:
    d = ResNetDiscriminator(SPEC)
    set_trainable(d, False)
    set_trainable(d, True)
    assert all(p.requires_grad for p in d.parameters())
