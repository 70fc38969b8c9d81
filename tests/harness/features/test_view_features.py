"""View features swap their sided parts when a picture is mirrored; a damaged weights file is refused."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import UserError
from harness.features import mobilenet_v2
from harness.features.mobilenet_v2 import FOLDED_NAME, MobileNetV2
from harness.features.view_features import CAR_CLASSES, VIEW_FEATURIZERS, has_weights, load_view_features
from harness.features.view_net import VIEW_NET_PATH, ViewNet, layout, load_view_net


def random_pictures(count: int, input_px: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.repeat(np.repeat(coarse, input_px // 8, 1), input_px // 8, 2)


class Trunk(nn.Module):
    """Stands for a vision transformer: a token for the class, then one for each of 7 x 7 patches of 16 px."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        assert patches.shape[1:] == (49, 8)
        return SimpleNamespace(last_hidden_state=torch.cat([1e6 + torch.zeros(len(patches), 1, 8), patches], 1))


def place_transformer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(path: str, local_files_only: bool) -> nn.Module:
        assert path == str(folder) and local_files_only
        whole: Any = nn.Module()
        whole.vision_model = Trunk()
        whole.config = SimpleNamespace(vision_config=SimpleNamespace(image_size=112, hidden_size=8))
        return whole

    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("CARFORGE_CLIP", str(folder))
    package = SimpleNamespace(AutoModel=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", package)


@pytest.fixture(params=VIEW_FEATURIZERS)
def featurizer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each one; those of ImageNet with drawn weights."""
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    if request.param == "mobilenet_v2":
        # as strong as layers with ReLUs must be for their activations to reach the end
        state = {name: 2.4 * value if value.ndim == 4 else value for name, value in MobileNetV2().state_dict().items()}
        torch.save(state, tmp_path / FOLDED_NAME)
        monkeypatch.setattr(
            mobilenet_v2,
            "WEIGHTS",
            replace(mobilenet_v2.WEIGHTS, sha256={FOLDED_NAME: ""}, names=(FOLDED_NAME,)),
        )
    elif request.param == "clip":
        place_transformer(tmp_path, monkeypatch)
    elif request.param == "resnet18":
        from harness.features import resnet18

        monkeypatch.setattr(resnet18, "load_network", lambda: resnet18.ResNet18().eval().requires_grad_(False))
    return load_view_features(request.param)


def test_mirroring_swaps_the_sided_parts(featurizer) -> None:
    pictures = random_pictures(3, featurizer.input_px)
    features, mirrored = featurizer(pictures), featurizer(pictures[:, :, ::-1])
    assert features.shape == (3, featurizer.dim) and features.dtype == np.float32
    scale = np.abs(features).max()
    even, here, turned = featurizer.split(features)
    np.testing.assert_allclose(np.concatenate([even, turned, here], 1), mirrored, atol=1e-4 * scale)
    assert np.abs(features - mirrored).max() > 1e-2 * scale
    assert featurizer(pictures[:0]).shape == (0, featurizer.dim)
    np.testing.assert_allclose(featurizer(pictures[1:]), features[1:], atol=1e-4 * scale)


def test_the_share_of_cars_is_a_share_of_all_classes(featurizer) -> None:
    if featurizer.name != "mobilenet_v2":
        assert featurizer.car_share is None
        return
    network = mobilenet_v2.load_network()[0]
    even = np.random.default_rng(0).random((4, 1280), np.float32)
    logits = network.classifier(torch.from_numpy(even)).softmax(1).numpy()
    np.testing.assert_allclose(featurizer.car_share(even), logits[:, [n + 1 for n in CAR_CLASSES]].sum(1), rtol=1e-4)


def test_layout_separates_edges_by_direction_and_place() -> None:
    x = torch.full((1, 3, 64, 64), -1.0)
    x[..., 20:] = 1.0  # brighter from column 20 on
    edges = layout(x)[0, : 8 * 8 * 8].reshape(8, 8, 8)
    assert edges.argmax() // 64 == 0 and edges[0, :, 2].min() > 0.5  # direction 0 = brighter to the right, third cell
    assert layout(x.flip(3))[0, : 8 * 8 * 8].argmax() // 64 == 4  # the other way round
    assert edges.shape.numel() + 48 == layout(x).shape[1] == ViewNet.SIDED - ViewNet.DIM


def test_has_weights_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert has_weights("reader") and not has_weights("mobilenet_v2") and not has_weights("resnet18")
    (tmp_path / FOLDED_NAME).write_bytes(b"")
    assert has_weights("mobilenet_v2")


def test_a_transformer_needs_its_folder_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARFORGE_CLIP", raising=False)
    with pytest.raises(UserError, match="CARFORGE_CLIP: name the folder .*; found nothing"):
        load_view_features("clip")
    place_transformer(tmp_path, monkeypatch)
    assert has_weights("clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers cannot be imported .*carforge\[clip\]"):
        load_view_features("clip")


# ---- the view network's weights file -----------------------------------------------------------------------------


def test_the_shipped_network_is_small() -> None:
    assert VIEW_NET_PATH.stat().st_size <= 1_000_000
    network, sha256 = load_view_net()
    assert len(sha256) == 64 and not network.training
