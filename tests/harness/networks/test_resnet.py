"""The ResNet backbone: the first seed's parameters and FLOPs, any size, fused forms compute the same function."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.config import checks
from harness.config.experiment import load_config
from harness.errors import UserError
from harness.native.losses import d_loss, g_loss
from harness.networks.arch import ArchSpec
from harness.networks.build import config_to_spec
from harness.networks.resnet import (
    ResNetDiscriminator,
    ResNetDiscriminatorBlock,
    ResNetGenerator,
    d_block_channels,
    g_block_channels,
)
from harness.studiogan.checkout import ROOT

SMALL = ArchSpec(32, 32, z_dim=8, g_conv_dim=4, d_conv_dim=4)
FULL = replace(
    SMALL, img_height=64, img_width=112, num_classes=3, g_cond_mtd="cBN", d_cond_mtd="PD", apply_g_sn=True,
    apply_attn=True, g_conv_dim=8, d_conv_dim=8,
)  # fmt: skip


def cars128() -> ArchSpec:
    return config_to_spec(load_config(ROOT / "configs" / "cars128.yaml"), num_classes=0)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_cars128_has_the_seeds_parameters() -> None:
    with torch.device("meta"):
        assert count(ResNetGenerator(cars128())) == 32_150_787
        assert count(ResNetDiscriminator(cars128())) == 38_419_137


@pytest.mark.parametrize(
    ("commute", "fuse", "teraflops"), [(False, False, 28.43), (True, False, 27.48), (True, True, 17.61)]
)
def test_flops_of_a_cars128_step(commute: bool, fuse: bool, teraflops: float) -> None:
    """Two D updates and one G update at batch 128, 1 multiply-add = 2; on the meta device, so nothing is computed."""
    spec = replace(cars128(), commute_1x1=commute, fuse_resampling=fuse)
    with torch.device("meta"):
        g, d = ResNetGenerator(spec), ResNetDiscriminator(spec)
        z, real = torch.empty(128, spec.z_dim), torch.empty(128, 3, 128, 128)
    with FlopCounterMode(display=False) as counter:
        for _ in range(2):
            with torch.no_grad():
                fake = g(z)
            d_loss("hinge", *d(torch.cat([real, fake])).chunk(2)).backward()
        d.requires_grad_(False)
        g_loss("hinge", d(g(z))).backward()
    assert counter.get_total_flops() / 1e12 == pytest.approx(teraflops, abs=0.005)


@pytest.mark.parametrize("size", [(32, 32), (64, 112), (96, 96), (128, 224), (64, 64)])
def test_sizes(size: tuple[int, int]) -> None:
    spec = replace(SMALL, img_height=size[0], img_width=size[1])
    x = ResNetGenerator(spec)(torch.randn(2, 8))
    assert x.shape == (2, 3, *size) and x.dtype == torch.float32 and x.abs().max() <= 1
    assert ResNetDiscriminator(spec)(x).shape == (2,)


@pytest.mark.parametrize("size", [(16, 16), (48, 44), (60, 60), (128, 200), (1024, 1024), (0, 0), (32, 0), (33, 32)])
def test_a_size_that_cannot_be_built_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(AssertionError):
        replace(SMALL, img_height=size[0], img_width=size[1])


def test_a_conditional_model_needs_classes() -> None:
    with pytest.raises(UserError, match="model.g_cond_mtd"):
        replace(SMALL, g_cond_mtd="cBN")


def test_block_tables() -> None:
    assert g_block_channels(64, 2) == [(32, 16), (16, 8), (8, 4), (4, 2)]
    assert g_block_channels(96, 2) == g_block_channels(64, 2)  # from a base of 6 x 6
    assert d_block_channels(32, 2) == [(3, 4, True), (4, 4, True), (4, 4, False), (4, 4, False)]
    for height in (32, 64, 96, 128, 256, 512):
        assert len(g_block_channels(height, 1)) + 1 == len(d_block_channels(height, 1))


@pytest.mark.parametrize("height", [32, 64, 128, 256])
@pytest.mark.parametrize("attention", [False, True])
def test_block_count_is_what_the_config_check_assumes(height: int, attention: bool) -> None:
    spec = replace(SMALL, img_height=height, img_width=height, apply_attn=attention, g_conv_dim=8, d_conv_dim=8)
    settings = [f"data.img_size={height}", f"model.apply_attn={str(attention).lower()}"]
    config = load_config(ROOT / "configs" / "cars128.yaml", settings)
    with torch.device("meta"):
        assert len(ResNetDiscriminator(spec).blocks) == checks.d_block_count(config)


@pytest.mark.usefixtures("fuse_small_maps_too")
@pytest.mark.parametrize("spec", [SMALL, FULL, replace(SMALL, apply_d_sn=False)], ids=["small", "full", "no-sn"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cheaper_ways_compute_the_same_function(spec: ArchSpec, layout: torch.memory_format) -> None:
    results = []
    for commute, fuse in ((False, False), (True, False), (True, True)):
        torch.manual_seed(0)
        way = replace(spec, commute_1x1=commute, fuse_resampling=fuse)
        g, d = ResNetGenerator(way).double(), ResNetDiscriminator(way).double()
        for network in (g, d):
            network.to(memory_format=layout)  # type: ignore[call-overload]
            for name, p in network.named_parameters():  # biases and attention start at 0 and would hide mistakes
                if p.dim() == 1:
                    nn.init.normal_(p, 1.0 if name.endswith("weight") else 0.0, 0.3)
        x = g(torch.randn(3, 8).double(), torch.tensor([0, 1, 2]))
        logits = d(x, torch.tensor([0, 1, 2]))
        (logits * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        gradients = [p.grad for network in (g, d) for p in network.parameters()]
        results.append([x, logits, *gradients, *g.state_dict().values(), *d.state_dict().values()])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-9, atol=1e-9)


def test_bf16_stays_near_float32_and_ends_in_float32() -> None:
    torch.manual_seed(0)
    d = ResNetDiscriminator(SMALL).eval()
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        cast = d(x)
        assert ResNetGenerator(SMALL)(torch.randn(2, 8)).dtype == torch.float32
    assert cast.dtype == torch.float32
    assert (cast - d(x)).norm() / d(x).norm() < 0.03


def test_the_shortcut_sees_the_rectified_map() -> None:
    """StudioGAN's in-place ReLU: a block without projection adds relu(x), not x."""
    block = ResNetDiscriminatorBlock(4, 4, halves=False, first=False, spec=SMALL).eval()
    nn.init.zeros_(block.conv2d2.bias)  # type: ignore[arg-type]
    nn.init.zeros_(block.conv2d2.weight_orig)  # type: ignore[union-attr]
    block.conv2d2.weight_u.fill_(1.0)  # type: ignore[union-attr]  # sigma of a zero matrix is 0: keep 0/0 out
    with torch.no_grad():
        block.conv2d2.weight_orig[0, 0, 0, 0] = 1e-30  # type: ignore[index]
        block.conv2d2.weight_u.copy_(torch.eye(4)[0])  # type: ignore[union-attr]
        block.conv2d2.weight_v.copy_(torch.eye(36)[0])  # type: ignore[union-attr]
    x = torch.randn(1, 4, 6, 6)
    before = x.clone()
    out = block(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(out[:, 1:], x.relu()[:, 1:])


def test_one_picture_gives_one_logit_and_features_their_last_sum() -> None:
    d = ResNetDiscriminator(SMALL).eval()
    x = torch.randn(1, 3, 32, 32)
    assert d(x).shape == (1,)
    maps = d.feature_maps(x)
    assert [m.shape[1:] for m in maps] == [(8, 16, 16), (8, 8, 8), (8, 8, 8), (8, 8, 8)]
    torch.testing.assert_close(d.features(x), maps[-1].relu().sum((2, 3)))


def test_networks_are_a_function_of_the_seed() -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [*ResNetGenerator(FULL).state_dict().values(), *ResNetDiscriminator(FULL).state_dict().values()]

    assert all(torch.equal(a, b) for a, b in zip(drawn(1), drawn(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn(1), drawn(2), strict=True))


def test_both_networks_trace_whole() -> None:
    """No graph break, and the power iteration moves on in a traced network too."""
    torch._dynamo.reset()
    d, g = ResNetDiscriminator(SMALL), ResNetGenerator(SMALL)
    x = torch.compile(g, backend="eager", fullgraph=True)(torch.randn(2, 8))
    before = {name: value.clone() for name, value in d.state_dict().items()}
    traced = torch.compile(d, backend="eager", fullgraph=True)(x.detach())
    moved = {name: value.clone() for name, value in d.state_dict().items()}
    assert not torch.equal(before["linear1.weight_v"], moved["linear1.weight_v"])
    d.load_state_dict(before)
    torch.testing.assert_close(traced, d(x.detach()))
    torch.testing.assert_close(dict(d.state_dict()), moved)


def test_logits_by_class_are_those_under_each_name() -> None:
    d = ResNetDiscriminator(FULL).eval()
    x = torch.randn(2, 3, 64, 112)
    with torch.no_grad():
        under_each_name = torch.stack([d(x, torch.full((2,), name)) for name in range(3)], dim=1)
        torch.testing.assert_close(d.logits_by_class(d.features(x)), under_each_name)
