"""MobileNetV2 computes what torchvision's network does; its published files are found, checked and refused."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError
from harness.features import load_featurizer, mobilenet_v2
from harness.features.mobilenet_v2 import FOLDED_NAME, STAGES, TORCHVISION_NAME, MobileNetV2, fold_torchvision


def torchvision_state(seed: int = 0) -> dict[str, Tensor]:
    """Drawn weights in torchvision's names and shapes."""
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def layer(convolution: str, norm: str, outside: int, inside: int, kernel: int) -> None:
        fan = inside * kernel * kernel
        state[f"{convolution}.weight"] = torch.randn(outside, inside, kernel, kernel, generator=rng) * (2 / fan) ** 0.5
        state[f"{norm}.weight"] = 1 + 0.2 * torch.randn(outside, generator=rng)
        state[f"{norm}.running_var"] = 1 + 0.3 * torch.rand(outside, generator=rng)
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = 0.2 * torch.randn(outside, generator=rng)

    layer("features.0.0", "features.0.1", 32, 3, 3)
    number, inside = 1, 32
    for count, _, _, expansion, outside in STAGES:
        for _ in range(count):
            block, width = f"features.{number}.conv", inside * expansion
            if expansion > 1:
                layer(f"{block}.0.0", f"{block}.0.1", width, inside, 1)
            step = 1 if expansion > 1 else 0
            layer(f"{block}.{step}.0", f"{block}.{step}.1", width, 1, 3)
            layer(f"{block}.{step + 1}", f"{block}.{step + 2}", outside, width, 1)
            number, inside = number + 1, outside
    layer("features.18.0", "features.18.1", 1280, 320, 1)
    classifier = {"weight": torch.randn(1000, 1280, generator=rng) / 30, "bias": torch.zeros(1000)}
    return state | {f"classifier.1.{name}": value for name, value in classifier.items()}


def plain_forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """torchvision's network, step by step, batch norms and all; x in [0, 1] → logits."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]

    def layer(x: Tensor, convolution: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        weight = state[f"{convolution}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, x.shape[1] // weight.shape[1])
        parts = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *parts, training=False, eps=1e-5)
        return x.clamp(0, 6) if active else x

    x = layer(x, "features.0.0", "features.0.1", 2)
    number = 1
    for count, _, stride, expansion, _ in STAGES:
        for index in range(count):
            block, before, step = f"features.{number}.conv", x, 1 if expansion > 1 else 0
            if expansion > 1:
                x = layer(x, f"{block}.0.0", f"{block}.0.1")
            x = layer(x, f"{block}.{step}.0", f"{block}.{step}.1", stride if index == 0 else 1)
            x = layer(x, f"{block}.{step + 1}", f"{block}.{step + 2}", active=False)
            x = x + before if index else x
            number += 1
    x = layer(x, "features.18.0", "features.18.1").mean((2, 3))
    return F.linear(x, state["classifier.1.weight"], state["classifier.1.bias"])


@pytest.fixture(autouse=True)
def no_weights_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    nowhere = (tmp_path / "nowhere").as_uri()
    monkeypatch.setattr(mobilenet_v2, "WEIGHTS", replace(mobilenet_v2.WEIGHTS, url=nowhere))


def place(folder: Path, name: str, state: dict, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that passes for the published one of this name."""
    torch.save(state, folder / name)
    begins = hashlib.sha256((folder / name).read_bytes()).hexdigest()[:8]
    published = replace(mobilenet_v2.WEIGHTS, sha256={**mobilenet_v2.WEIGHTS.sha256, name: begins})
    monkeypatch.setattr(mobilenet_v2, "WEIGHTS", published)
    return folder / name


@torch.inference_mode()
def test_torchvisions_weights_give_torchvisions_logits() -> None:
    state, x = torchvision_state(), torch.rand(2, 3, 65, 96, generator=torch.Generator().manual_seed(1))
    network = MobileNetV2(1000, same=False).eval()
    network.load_state_dict(fold_torchvision(state))
    found, wanted = network.classifier(network(2 * x - 1)), plain_forward(state, x)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)


@torch.inference_mode()
def test_tensorflows_padding_puts_more_behind() -> None:
    network = MobileNetV2()
    weight = torch.zeros_like(network.stem.weight)
    weight[0, 0, 0, 0] = 1.0  # sees the first pixel of its window
    network.stem.weight = torch.nn.Parameter(weight, requires_grad=False)
    network.stem.bias = torch.nn.Parameter(torch.zeros(32), requires_grad=False)
    columns = torch.arange(65).float()
    for width, wanted in ((64, columns[0:64:2]), (65, torch.cat([torch.zeros(1), columns[1:64:2]]))):
        x = torch.zeros(1, 3, width, width)
        x[0, 0] = columns[:width]  # 64 is padded behind alone, so windows start at 0; 65 by one on each side
        torch.testing.assert_close(network.stem(x)[0, 0, 1], wanted)
        torch.testing.assert_close(network.stem(x.transpose(2, 3))[0, 0, :, 1], wanted)


def test_maps_have_the_papers_shapes() -> None:
    with torch.device("meta"):
        maps = MobileNetV2().maps(torch.zeros(1, 3, 224, 224))
    assert [tuple(m.shape) for m in maps] == [(1, 96, 14, 14), (1, 160, 7, 7), (1, 1280)]
    with torch.device("meta"):
        assert sum(p.numel() for p in MobileNetV2(1000).parameters()) == 3_504_872 - 17_056  # the paper's 3.5 million


@pytest.mark.parametrize("name", [FOLDED_NAME, TORCHVISION_NAME])
def test_a_placed_file_is_a_featurizer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folded = name == FOLDED_NAME
    place(tmp_path / "mine", name, MobileNetV2().state_dict() if folded else torchvision_state(), monkeypatch)
    featurizer = load_featurizer("mobilenet_v2")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    features = featurizer(pictures)
    logits = featurizer.logits(features)
    assert features.shape == (2, 1280) and logits is not None and logits.shape == (2, 1001 if folded else 1000)
    np.testing.assert_allclose(featurizer(pictures[:, :, ::-1]), features, atol=1e-4)


def test_a_file_of_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / FOLDED_NAME).write_bytes(b"something else")
    with pytest.raises(UserError, match="found sha256 .* allowed cbee47c5…; remove it"):
        load_featurizer("mobilenet_v2")
    place(tmp_path / "mine", FOLDED_NAME, {"stem.weight": torch.zeros(3)}, monkeypatch)
    with pytest.raises(UserError, match="is not a file of MobileNetV2"):
        load_featurizer("mobilenet_v2")
