"""Distances with known values; the features compared; what is refused without weights."""

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import blend.inversion.distances
from blend.generator.styled_generator import load_generator
from blend.inversion.distances import feature_distance, make_features, picture_error, pixel_distance, unit_length
from harness.checkpoints.load import LoadedCheckpoint
from harness.errors import UserError
from harness.features import download_weights, resnet18
from tests.blend.tiny_blend import make_tiny_runs
from tests.refusals import refused


@pytest.fixture
def run(tmp_path: Path) -> LoadedCheckpoint:
    return load_generator(make_tiny_runs(tmp_path), need_tuned=False).base


def pictures(count: int = 2, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_picture_error_is_the_mean_square_of_each_picture():
    x = torch.zeros(2, 3, 4, 8)
    x[1] += 0.5
    x[1, 0, 0, 0] = 1.0
    assert torch.allclose(picture_error(x, torch.zeros_like(x)), torch.tensor([0.0, 0.25 + 0.75 / 96]))


def test_fine_detail_counts_only_at_full_size():
    """A checkerboard of +-1 is flat at half size; a flat difference counts at every size."""
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = (((rows + columns) % 2) * 2.0 - 1).expand(1, 3, 8, 8)
    assert torch.allclose(pixel_distance(board, torch.zeros(1, 3, 8, 8)), torch.tensor([1 / 3]))
    assert torch.allclose(pixel_distance(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)), torch.tensor([1.0]))
    coarse = board.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(pixel_distance(coarse, torch.zeros_like(coarse)), torch.tensor([2 / 3]))


def test_features_have_length_one_and_keep_a_finite_gradient_where_there_are_none():
    maps = torch.tensor([[3.0, 4.0], [0.0, 0.0]])[:, :, None, None].to(torch.bfloat16).requires_grad_(True)
    units = unit_length(maps)
    assert units.dtype == torch.float32
    assert torch.allclose(units.flatten(1), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(units.sum(), maps)
    assert torch.isfinite(gradient).all()


def test_the_distance_of_opposite_features_is_four_and_maps_count_alike():
    one, other = torch.zeros(2, 5, 4, 4), torch.zeros(2, 7, 2, 2)
    one[:, 0], other[:, 0] = 1.0, 1.0
    opposite = [one.clone(), other.clone()]
    opposite[0][1] *= -1
    assert feature_distance([one, other], opposite).tolist() == [0.0, 2.0]


def test_the_discriminator_gives_features_and_is_not_changed(run: LoadedCheckpoint):
    x = pictures().requires_grad_(True)
    maps = make_features("discriminator", run)(x)
    assert len(maps) == len(run.discriminator.blocks)
    for found, raw in zip(maps, run.discriminator.feature_maps(x), strict=True):
        assert torch.allclose(found, F.normalize(raw, dim=1), atol=1e-4)
    feature_distance(maps, [m.detach() * 0 for m in maps]).sum().backward()
    assert x.grad is not None
    assert all(weight.grad is None for weight in run.discriminator.parameters())


def test_imagenet_features(run: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    whole = resnet18.ResNet18()
    monkeypatch.setattr(blend.inversion.distances, "imagenet_state", lambda name: whole.state_dict())
    maps = make_features("resnet18", run)(pictures())
    small = resnet18.ResNet18("small").eval()
    small.load_state_dict(whole.state_dict())
    expected = small.feature_maps(pictures())
    assert [m.shape for m in maps] == [m.shape for m in expected] and maps[0].shape[2:] == (16, 16)
    for found, raw in zip(maps, expected, strict=True):
        assert torch.allclose(found, F.normalize(raw, dim=1), atol=1e-4)


def test_missing_imagenet_weights_are_refused(run: LoadedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    unreachable = Mock(side_effect=OSError("network is unreachable"))
    monkeypatch.setattr(download_weights.urllib.request, "urlopen", unreachable)
    with refused("CARFORGE_WEIGHTS"):
        make_features("resnet18", run)


def test_an_absent_lpips_is_refused(run: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with refused("inversion.features: found lpips", "try discriminator"):
        make_features("lpips", run)


class StandInLpips(nn.Module):
    """As the package is built: scaled pictures, unit-length maps, weighted squares, the sum of their means."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        assert (net, verbose) == ("alex", False)
        rng = torch.Generator().manual_seed(0)
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(3, 6, 5)])
        self.lins = nn.ModuleList()
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            conv.weight.data = torch.randn(conv.weight.shape, generator=rng)
            conv.bias.data.zero_()
            lin, weights = nn.Module(), nn.Conv2d(len(conv.weight), 1, 1, bias=False)
            weights.weight.data = torch.rand(weights.weight.shape, generator=rng)
            lin.model = nn.Sequential(nn.Dropout(), weights)
            self.lins.append(lin)

    def scaling_layer(self, x: Tensor) -> Tensor:
        return (x + 0.1) / 0.5

    def net(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv in self.convs]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(len(a))
        for m, n, lin in zip(self.net(self.scaling_layer(a)), self.net(self.scaling_layer(b)), self.lins, strict=True):
            squares = (F.normalize(m, dim=1) - F.normalize(n, dim=1)) ** 2
            assert isinstance(lin.model, nn.Sequential)
            total = total + lin.model(squares).mean((1, 2, 3))
        return total


def test_lpips_is_the_packages_own_distance(run: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=StandInLpips))
    features = make_features("lpips", run)
    a, b = pictures(seed=1), pictures(seed=2)
    expected = StandInLpips("alex", False).eval()(a, b)
    assert torch.allclose(feature_distance(features(a), features(b)), expected, rtol=1e-4)
    assert len(set(expected.tolist())) == 2


def test_lpips_without_its_weights_is_refused(run: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Mock(side_effect=OSError("cannot download"))))
    with pytest.raises(UserError, match="weights cannot be loaded"):
        make_features("lpips", run)
