"""The trunk has torchvision's names and computes ResNet-18; ImageNet weights are found, fetched and checked."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from harness.features import resnet18
from harness.features.resnet18 import imagenet_state
from harness.networks.resnet18 import ResNet18
from tests.harness.sabotage import Trap
from tests.refusals import refusal_of

FC = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def torchvision_shapes() -> dict[str, tuple[int, ...]]:
    """Parameters of torchvision's resnet18 without its fc, written out from the paper's table 1."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,)}
    before = 64
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            part = f"layer{stage}.{block}"
            shapes[f"{part}.conv1.weight"] = (channels, before if block == 0 else channels, 3, 3)
            shapes[f"{part}.conv2.weight"] = (channels, channels, 3, 3)
            for norm in ("bn1", "bn2"):
                shapes |= {f"{part}.{norm}.weight": (channels,), f"{part}.{norm}.bias": (channels,)}
        if stage > 1:
            part = f"layer{stage}.0.downsample"
            shapes |= {f"{part}.0.weight": (channels, before, 1, 1), f"{part}.1.weight": (channels,)}
            shapes |= {f"{part}.1.bias": (channels,)}
        before = channels
    return shapes


def random_state(width: int = 64, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return ResNet18(width=width).state_dict() | FC


def write_state(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


refusal = partial(refusal_of, imagenet_state)


# ---- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_names_shapes_and_count_are_torchvisions(stem):
    network = ResNet18(stem)
    assert {name: tuple(weight.shape) for name, weight in network.named_parameters()} == torchvision_shapes()
    assert len(torchvision_shapes()) + len(FC) == 62
    count = sum(weight.numel() for weight in network.parameters()) + sum(weight.numel() for weight in FC.values())
    assert count == 11_689_512
    norms = [name.removesuffix(".weight") for name, shape in torchvision_shapes().items() if "bn" in name]
    norms = {n.removesuffix(".bias") for n in norms} | {f"layer{k}.0.downsample.1" for k in (2, 3, 4)}
    buffers = {f"{norm}.{name}" for norm in norms for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(network.state_dict()) == set(torchvision_shapes()) | buffers and len(buffers) == 60


@pytest.mark.parametrize(("stem", "size", "sizes"), [
    ("imagenet", (64, 96), [(16, 24), (8, 12), (4, 6), (2, 3)]),
    ("small", (32, 64), [(16, 32), (8, 16), (4, 8), (2, 4)]),
    ("small", (33, 50), [(17, 25), (9, 13), (5, 7), (3, 4)]),
])  # fmt: skip
def test_maps_have_the_stages_sizes(stem, size, sizes):
    network = ResNet18(stem, width=4).eval()
    maps = network.feature_maps(torch.rand(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(2, 4 << k, *hw) for k, hw in enumerate(sizes)]
    assert torch.equal(network(torch.zeros(1, 3, *size)), network.feature_maps(torch.zeros(1, 3, *size))[-1])


def conv(x: np.ndarray, weight: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """(C, h, w) with (O, C, k, k): the plain sum."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_it_computes_what_the_paper_says(stem):
    torch.manual_seed(3)
    network = ResNet18(stem, width=4).double()
    with torch.no_grad():  # statistics and scales that matter
        for name, value in network.state_dict().items():
            if "running_var" in name or ("bn" in name or "downsample.1" in name) and name.endswith("weight"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and value.dim() == 1:
                value.uniform_(-0.3, 0.3)
    state = {name: value.numpy() for name, value in network.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None] * weight[:, None, None] + bias[
            :, None, None
        ]

    picture = np.random.default_rng(0).uniform(-1, 1, (3, 32, 48))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((picture + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    x = np.maximum(norm(conv(x, state["conv1.weight"], 2, 3), "bn1"), 0)
    if stem == "imagenet":
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((3, 4))
    maps = []
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if stride == 2:
                shortcut = norm(conv(x, state[f"{name}.downsample.0.weight"], 2, 0), f"{name}.downsample.1")
            out = np.maximum(norm(conv(x, state[f"{name}.conv1.weight"], stride, 1), f"{name}.bn1"), 0)
            x = np.maximum(norm(conv(out, state[f"{name}.conv2.weight"], 1, 1), f"{name}.bn2") + shortcut, 0)
        maps.append(x)
    with torch.no_grad():
        found = network.eval().feature_maps(torch.from_numpy(picture)[None])
    for mine, theirs in zip(found, maps, strict=True):
        np.testing.assert_allclose(mine[0].numpy(), theirs, rtol=0, atol=2e-6)  # mean and std are float32


# ---- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_in_torchvisions_names_is_read_whole(suffix, tmp_path):
    state, path = random_state(), tmp_path / f"weights{suffix}"
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else write_state(path, state)
    read = imagenet_state(path)
    assert read.keys() == state.keys() - FC.keys()
    assert all(torch.equal(value, state[name]) for name, value in read.items())
    ResNet18("small").load_state_dict(read)


def test_old_files_without_counters_are_read(tmp_path):
    state = {name: value for name, value in random_state().items() if "num_batches" not in name}
    ResNet18().load_state_dict(imagenet_state(write_state(tmp_path / "old.pth", state)))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    content = write_state(tmp_path / "whole.pth", random_state()).read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("half.pth", "text.pth", "empty.safetensors", "list.pth"):
        assert refusal(tmp_path / name).startswith(str(tmp_path / name))
    assert "found no file" in refusal(tmp_path / "absent.pth")
    assert "found (32, 3, 7, 7) as conv1.weight, allowed (64, 3, 7, 7)" in refusal(
        write_state(tmp_path / "narrow.pth", {**random_state(), "conv1.weight": torch.zeros(32, 3, 7, 7)})
    )
    lacking = {name: value for name, value in random_state().items() if name != "layer2.0.downsample.0.weight"}
    assert "found nothing as layer2.0.downsample.0.weight" in refusal(write_state(tmp_path / "lacking.pth", lacking))
    assert "allowed nothing" in refusal(
        write_state(tmp_path / "deeper.pth", {**random_state(), "layer1.2.x": FC["fc.bias"]})
    )


def test_a_pickled_program_is_not_run(tmp_path):
    torch.save({"conv1.weight": Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    refusal(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """Stands for torchvision's address; caches are empty."""
    path = write_state(tmp_path / "resnet18-f37072fd.pth", random_state())
    sha256 = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    monkeypatch.setattr(resnet18, "WEIGHTS", replace(resnet18.WEIGHTS, url=path.as_uri(), sha256=sha256))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("CARFORGE_WEIGHTS", raising=False)
    return path


def test_damaged_weights_are_refused_and_not_kept(source, tmp_path):
    content = source.read_bytes()
    for damaged in (content[:-1], content + b"x", content[:5000] + b"x" + content[5001:]):
        source.write_bytes(damaged)
        assert "instead of" in refusal("imagenet")
        assert not list((tmp_path / "hub").rglob("*.pth"))
    source.write_bytes(content)
    imagenet_state("imagenet")
    cached = tmp_path / "hub/hub/checkpoints" / source.name
    cached.write_bytes(content[:-1])
    text = refusal("imagenet")
    assert text.startswith(str(cached)) and "found sha256" in text and "remove it" in text
