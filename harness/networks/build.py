"""Builds networks from a config."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from harness.config.experiment import Config
from harness.networks.arch import ArchSpec
from harness.networks.base import Discriminator, Generator
from harness.networks.conv import ConvDiscriminator, ConvGenerator
from harness.networks.encoder import Encoder
from harness.networks.feature_heads import FeatureHeads
from harness.networks.layers import round_as_studiogan
from harness.networks.progressive_latents import active_size, zero_unused_columns
from harness.networks.resnet import ResNetDiscriminator, ResNetGenerator
from harness.networks.resnet18 import ResNet18
from harness.networks.subpixel import SubpixelDiscriminator, SubpixelGenerator, pixel_factor
from harness.runtime.device import one_thread
from harness.runtime.latent_space import LatentSpace
from harness.runtime.rng import seed_for

N = TypeVar("N", bound=nn.Module)


def config_to_spec(config: Config, num_classes: int) -> ArchSpec:
    """The architecture of a config; `num_classes` 0 = unconditional."""
    model, train, (height, width) = config.model, config.train.applied, config.data.img_size
    names = set(ArchSpec.__dataclass_fields__) & set(type(model).model_fields)
    return ArchSpec(
        img_height=height, img_width=width, num_classes=num_classes, commute_1x1=train.commute_1x1,
        fuse_resampling=train.fuse_resampling,
        **{name: getattr(model, name) for name in names},
    )  # fmt: skip


def build_networks(config: Config, num_classes: int, device: torch.device) -> tuple[Generator, Discriminator]:
    """Initialised networks, a function of config.seed alone, for any number of threads."""
    spec = config_to_spec(config, num_classes)
    with one_thread(), torch.random.fork_rng(devices=[]):  # an orthogonal matrix depends on the threads
        torch.manual_seed(seed_for(config.seed, "weights"))
        generator, discriminator = spec_to_networks(spec)
    zero_unused_columns(generator, active_size(config.optim, spec.z_dim, step=0))
    for network in (generator, discriminator):
        if config.train.as_studiogan:
            round_as_studiogan(network)
    return to_device(generator, config, device).train(), to_device(discriminator, config, device).train()


def to_device(network: N, config: Config, device: torch.device) -> N:
    """Moves a network to the device, in the config's memory layout."""
    layout = torch.channels_last if config.train.applied.channels_last else torch.contiguous_format
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def build_encoder_and_heads(
    config: Config, num_classes: int, map_channels: Sequence[int], device: torch.device
) -> tuple[Encoder, FeatureHeads]:
    """Initialised encoder and heads, a function of config.seed alone, for any number of threads."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "reconstruction.weights"))
        encoder = make_encoder(config, num_classes)
        heads = FeatureHeads(map_channels)
    return to_device(encoder, config, device).train(), to_device(heads, config, device).train()


def make_encoder(config: Config, num_classes: int) -> Encoder:
    """The encoder of joint training, untrained."""
    height, width = config.data.img_size
    trunk = ResNet18(f"unshuffle{pixel_factor(height)}", config.reconstruction.encoder_width)
    return Encoder(trunk, LatentSpace(config.model.z_dim, num_classes), height, width, standardised=True)


def spec_to_networks(spec: ArchSpec) -> tuple[Generator, Discriminator]:
    if spec.backbone == "conv":
        return ConvGenerator(spec), ConvDiscriminator(spec)
    if spec.backbone == "subpixel":
        return SubpixelGenerator(spec), SubpixelDiscriminator(spec)
    return ResNetGenerator(spec), ResNetDiscriminator(spec)
