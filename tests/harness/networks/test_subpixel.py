"""The sub-pixel backbone: sizes, initialisation without a grid, one picture per latent, classes."""

import pytest
import torch

from harness.networks.arch import ArchSpec
from harness.networks.build import spec_to_networks
from harness.networks.subpixel import (
    SubpixelDiscriminator,
    SubpixelGenerator,
    SubpixelGeneratorBlock,
    g_channels,
    pixel_factor,
)


def networks(height: int = 64, width: int = 128, **more) -> tuple[SubpixelGenerator, SubpixelDiscriminator]:
    torch.manual_seed(0)
    spec = ArchSpec(height, width, "subpixel", z_dim=8, g_conv_dim=12, d_conv_dim=8, **more)
    generator, discriminator = spec_to_networks(spec)
    assert isinstance(generator, SubpixelGenerator) and isinstance(discriminator, SubpixelDiscriminator)
    return generator, discriminator


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 96), (128, 256), (256, 256)])
def test_every_size_works(size):
    generator, discriminator = networks(*size)
    x = generator(torch.randn(2, 8))
    assert x.shape == (2, 3, *size) and x.dtype == torch.float32 and x.abs().max() <= 1
    output = discriminator.output(x)
    assert output.logits.shape == (2,) and output.features.shape == (2, output.features.shape[1])
    maps = discriminator.feature_maps(x)
    assert [tuple(part.shape[2:]) for part in maps] == [
        (size[0] // pixel_factor(size[0]) // 2 ** (k + 1), size[1] // pixel_factor(size[0]) // 2 ** (k + 1))
        for k in range(len(maps))
    ]


def test_nothing_is_computed_on_maps_as_large_as_the_picture():
    generator, _ = networks(128, 256)
    largest = 0

    def look(module, inputs, output):
        nonlocal largest
        largest = max(largest, inputs[0].shape[2])

    for layer in generator.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(look)
    generator(torch.randn(1, 8))
    assert largest == 64, "the last convolution makes four pixels of each place"
    assert g_channels(128, 48) == [128, 128, 64, 48]


def test_the_start_shows_no_grid():
    generator, _ = networks(128, 256)
    x = generator(torch.randn(2, 8))
    for down, across in ((0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(x[:, :, down::2, across::2], x[:, :, ::2, ::2])


def test_one_latent_gives_one_picture_in_any_batch_while_training():
    generator, _ = networks()
    z = torch.randn(5, 8)
    together, alone = generator(z), generator(z[2:3])
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-5)


def test_every_block_depends_on_the_latent():
    generator, _ = networks()
    blocks = [module for module in generator.modules() if isinstance(module, SubpixelGeneratorBlock)]
    for block in blocks:
        x = torch.randn(1, block.conv1.in_channels, 4, 8)
        one, other = (block(x, z) for z in torch.randn(2, 1, 8))
        assert not torch.allclose(one, other)
    assert len(blocks) == 4


def test_classes_change_pictures_and_logits():
    generator, discriminator = networks(g_cond_mtd="concat", d_cond_mtd="PD", num_classes=3, class_embed_dim=4)
    z = torch.randn(1, 8).expand(3, -1)
    x = generator(z, torch.arange(3))
    assert not torch.allclose(x[0], x[1]) and not torch.allclose(x[1], x[2])
    same = x[:1].expand(3, -1, -1, -1)
    assert len(set(discriminator.output(same, torch.arange(3)).logits.tolist())) == 3


def test_fused_resampling_is_the_same_function():
    (plain, plain_d), (fused, fused_d) = networks(fuse_resampling=False), networks(fuse_resampling=True)
    fused.load_state_dict(plain.state_dict())
    fused_d.load_state_dict(plain_d.state_dict())
    for network in (plain, fused, plain_d, fused_d):
        network.double().eval()
    z = torch.randn(16, 8, dtype=torch.float64)
    x = plain(z)
    torch.testing.assert_close(fused(z), x)
    torch.testing.assert_close(fused_d(x), plain_d(x))
