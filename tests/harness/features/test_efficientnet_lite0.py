"""EfficientNet-Lite0: the installed weights in our network, the same maps as the published layers give, and faults."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.procedural.sets import render_many
from harness.errors import UserError
from harness.features import efficientnet_lite0
from harness.features.efficientnet_lite0 import CHANNELS, STAGES, find_weights, load_efficientnet_lite0
from harness.features.featurizer import pictures_to_input
from harness.features.frozen_maps import LITE0_BLOCKS, load_frozen_maps
from tests.refusals import refusal_of

# ImageNet's classes of road vehicles and their parts, numbered from 0: wagon, cab, wheel, convertible, grille, jeep,
# limousine, minivan, racer, sports car.
CARS = {436, 468, 479, 511, 581, 609, 627, 656, 751, 817}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    path = find_weights()
    assert path is not None, "a dependency of the core: make setup installs it"
    return torch.load(path, weights_only=True)


def layer(
    state: dict[str, Tensor], x: Tensor, convolution: str, norm: str, stride: int = 1, active: bool = True
) -> Tensor:
    """Convolution with TensorFlow's padding, batch norm, ReLU6, none of them folded."""
    weight = state[f"{convolution}.weight"]
    kernel = weight.shape[2]
    down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
    x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
    x = F.conv2d(x, weight, None, stride, groups=x.shape[1] // weight.shape[1])
    parts = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    x = F.batch_norm(x, *parts, training=False, eps=1e-3)
    return F.relu6(x) if active else x


def plain_maps(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The output of each block, as the paper has them."""
    x, maps, number = layer(state, x, "_conv_stem", "_bn0", 2), [], 0
    for count, _, stride, expansion, _ in STAGES:
        for repeat in range(count):
            name, before = f"_blocks.{number}", x
            if expansion > 1:
                x = layer(state, x, f"{name}._expand_conv", f"{name}._bn0")
            x = layer(state, x, f"{name}._depthwise_conv", f"{name}._bn1", stride if repeat == 0 else 1)
            x = layer(state, x, f"{name}._project_conv", f"{name}._bn2", active=False)
            x = x + before if repeat else x
            maps.append(x)
            number += 1
    return maps


@pytest.mark.parametrize("size", [(64, 128), (65, 97)])
def test_maps_are_those_of_the_published_layers(published, size):
    kept = tuple(range(len(CHANNELS)))
    network, sha256 = load_efficientnet_lite0(kept)
    x = torch.rand(2, 3, *size) * 2 - 1
    maps, expected = network(x), plain_maps(published, x)
    assert [part.shape[1] for part in maps] == list(CHANNELS) and sha256.startswith("57934424")
    for ours, theirs in zip(maps, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_drawn_cars_are_cars_to_it(published):
    network, _ = load_efficientnet_lite0((15,))
    pictures = np.stack([picture for _, _, picture in render_many("ordinary", 12, 5, (128, 256))])
    with torch.no_grad():
        (last,) = network(pictures_to_input(pictures, 224))
        features = layer(published, last, "_conv_head", "_bn1").mean((2, 3))
        top = (features @ published["_fc.weight"].t() + published["_fc.bias"]).topk(3).indices
    assert sum(bool(CARS & set(row.tolist())) for row in top) >= 10


def test_only_what_is_looked_at_is_computed():
    network, _ = load_efficientnet_lite0((2,))
    assert len(network.blocks) == 3 and not any(p.requires_grad for p in network.parameters())


def test_a_missing_package_is_told_and_the_reader_serves(monkeypatch, capsys):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "no_such_package")
    said = refusal_of(load_efficientnet_lite0, (2,))
    assert "found no package no_such_package" in said and "make setup" in said
    maps = load_frozen_maps("efficientnet_lite0", torch.device("cpu"))
    assert maps.name == "reader" and "using the reader instead" in capsys.readouterr().err


def test_weights_of_another_content_are_refused(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"other")
    monkeypatch.setattr(efficientnet_lite0, "find_weights", lambda: tmp_path / "weights.pth")
    with pytest.raises(UserError, match="found sha256 .*, allowed 57934424"):
        load_efficientnet_lite0((2,))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "reader"])
def test_frozen_maps_carry_gradients_to_the_picture(name):
    maps = load_frozen_maps(name, torch.device("cpu"))
    x = torch.rand(2, 3, 128, 256, requires_grad=True)
    found = maps(x)
    assert [part.shape[1] for part in found] == list(maps.channels) and len(found) == len(LITE0_BLOCKS)
    torch.stack([part.square().mean() for part in found]).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    assert all(p.grad is None for p in maps.parameters())
