"""The conv backbone: shapes at any size, the first seed's channels, spectral norm, every kind of conditioning."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.config import checks
from harness.config.experiment import load_config
from harness.native.freeze import freeze_discriminator
from harness.networks.arch import ACTIVATIONS, ArchSpec
from harness.networks.base import Discriminator, DiscriminatorOutput, Generator
from harness.networks.build import config_to_spec, spec_to_networks
from harness.networks.conv import ConvDiscriminator, ConvGenerator, block_channels
from harness.networks.layers import SNConvTranspose2d
from harness.studiogan.checkout import ROOT

SMALL = ArchSpec(32, 32, backbone="conv", z_dim=8, g_conv_dim=8, d_conv_dim=8, num_classes=3, apply_g_sn=True)
WAYS = [(None, None), ("cBN", "PD"), ("concat", "concat"), ("concat", "acgan"), ("cBN", "acgan")]


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_the_seeds_maps_at_128_by_224() -> None:
    spec = replace(SMALL, img_height=128, img_width=224, g_conv_dim=64, d_conv_dim=64)
    assert block_channels(128, 64) == [64, 64, 128, 256, 512]
    g, d = spec_to_networks(spec)
    assert isinstance(g, ConvGenerator) and isinstance(d, ConvDiscriminator)
    assert g.base_shape == (512, 4, 7)
    with torch.no_grad():
        x = g(torch.randn(1, 8))
        maps = [tuple(part.shape[1:]) for part in d.feature_maps(x)]
    assert x.shape == (1, 3, 128, 224) and float(x.abs().max()) <= 1
    assert maps == [(64, 64, 112), (64, 32, 56), (128, 16, 28), (256, 8, 14), (512, 4, 7)]


def settled(spec: ArchSpec, y: torch.Tensor | None) -> tuple[Generator, Discriminator]:
    """Networks in eval mode whose spectral norms and batch statistics have found what belongs to the weights."""
    g, d = spec_to_networks(spec)
    with torch.no_grad():
        for _ in range(20):
            d(g(torch.randn(6, 8), y), y)
    return g.eval(), d.eval()


@pytest.mark.parametrize("backbone", ["conv", "resnet"])
@pytest.mark.parametrize("size", [(32, 32), (64, 112), (96, 64)])
@pytest.mark.parametrize("way", WAYS)
def test_sizes_and_conditioning(backbone: str, size: tuple[int, int], way: tuple[str | None, str | None]) -> None:
    conditioning = {"g_cond_mtd": way[0], "d_cond_mtd": way[1]}
    y = torch.tensor([0, 1, 2, 0, 1, 2]) if way[0] else None
    g, d = settled(replace(SMALL, backbone=backbone, img_height=size[0], img_width=size[1], **conditioning), y)
    z = torch.randn(6, 8)
    x = g(z, y)
    output = d.output(x, y)
    assert x.shape == (6, 3, *size) and output.logits.shape == (6,)
    assert torch.equal(d(x, y), output.logits)
    assert (output.class_logits is not None) == (way[1] == "acgan")
    if y is not None:
        assert not torch.equal(x, g(z, y.roll(1))), "the class does not reach the picture"
        assert torch.equal(output.logits, d(x, y.roll(1))) == (way[1] == "acgan")


def test_concat_adds_a_constant_for_each_class_and_projection_does_not() -> None:
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    x, classes = torch.rand(4, 3, 32, 32) * 2 - 1, [torch.full((4,), label) for label in (0, 1)]
    spread = {}
    for how, g_how in (("concat", "concat"), ("PD", "cBN")):
        _, d = settled(replace(SMALL, g_cond_mtd=g_how, d_cond_mtd=how), y)
        spread[how] = float((d(x, classes[1]) - d(x, classes[0])).detach().std())
    assert spread["concat"] < 1e-6 < 1e-4 < spread["PD"]


def test_activations_are_those_asked_for() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0])
    found = {name: act(x).tolist() for name, act in ACTIVATIONS.items()}
    assert found["ReLU"] == [0, 0, 3] and found["Leaky_ReLU"] == pytest.approx([-0.4, 0, 3])
    assert found["Mish"] == pytest.approx((x * torch.tanh(torch.log1p(x.exp()))).tolist(), abs=1e-6)
    pictures = [spec_to_networks_picture(replace(SMALL, g_act_fn=name)) for name in ACTIVATIONS]
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[1], pictures[2])


def spec_to_networks_picture(spec: ArchSpec) -> torch.Tensor:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        return spec_to_networks(spec)[0].eval()(torch.ones(1, 8))


def test_transposed_convolution_is_divided_by_the_norm_of_its_adjoint() -> None:
    layer = SNConvTranspose2d(5, 4, 4, stride=2, padding=1).double().train()
    with torch.no_grad():  # one singular value far above the others, which power iteration finds in a few rounds
        layer.weight_orig.add_(torch.ones_like(layer.weight_orig))
    x = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    for _ in range(100):
        layer(x)
    sigma = torch.linalg.matrix_norm(layer.weight_orig.flatten(1), 2)
    plain = nn.ConvTranspose2d(5, 4, 4, stride=2, padding=1).double()
    plain.load_state_dict({"weight": layer.weight_orig / sigma, "bias": layer.bias})
    torch.testing.assert_close(layer.eval()(x), plain(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_channels_last_changes_nothing(memory_format: torch.memory_format) -> None:
    z, y = torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    g, d = settled(replace(SMALL, g_cond_mtd="cBN", d_cond_mtd="PD"), y)
    wanted = d(g(z, y), y)
    for network in (g, d):
        network.to(memory_format=memory_format)  # type: ignore[call-overload]
    torch.testing.assert_close(d(g(z, y), y), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("height", [32, 64, 128, 256])
@pytest.mark.parametrize("attention", [False, True])
def test_block_count_and_attention_are_what_the_config_check_assumes(height: int, attention: bool) -> None:
    settings = [f"data.img_size={height}", f"model.apply_attn={str(attention).lower()}", "model.backbone=conv"]
    config = load_config(ROOT / "configs" / "cars128.yaml", settings)
    with torch.device("meta"):
        g, d = spec_to_networks(config_to_spec(config, 0))
    assert checks.d_block_count(config) == len(d.blocks)
    assert len(g.blocks) == len(block_channels(height, 1)) + attention


def test_frozen_blocks_stay() -> None:
    _, d = spec_to_networks(SMALL)
    freeze_discriminator(d, 2)
    before = {name: value.clone() for name, value in d.state_dict().items()}
    d.train()(torch.randn(4, 3, 32, 32)).sum().backward()
    torch.optim.SGD([p for p in d.parameters() if p.requires_grad], 0.1).step()
    moved = {name.split(".")[1] for name, value in d.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"2", "weight_orig", "weight_u", "weight_v", "bias"}  # the third block, conv and linear1


def test_an_output_is_split_in_halves() -> None:
    real, fake = DiscriminatorOutput(torch.arange(4.0), torch.arange(8.0).view(4, 2), None).chunk()
    assert real.logits.tolist() == [0, 1] and fake.features.tolist() == [[4, 5], [6, 7]] and fake.class_logits is None
