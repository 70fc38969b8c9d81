"""A picture has one latent in any batch; an encoder is loaded only for its own generator."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blend.encoder.model import build_encoder, encode, load_encoder
from blend.encoder.train import train_encoder
from blend.generator.styled_generator import load_generator
from harness.config.experiment import Config, finetune_config
from harness.errors import UserError
from harness.networks.encoder import Encoder
from harness.networks.resnet18 import ResNet18
from harness.runtime.latent_space import LatentSpace
from tests.blend.tiny_blend import CONDITIONAL, SIZE, Z_DIM, make_tiny_runs, quick_work, tiny_config, write_run
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("quick")
SHORT: dict[str, Any] = {
    "encoder__total_steps": 2,
    "encoder__valid_count": 16,
    "encoder__save_every_steps": 1,
    "encoder__real_pictures": False,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny runs and an encoder of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    with quick_work(folder):
        train_encoder(make_tiny_runs(folder, **SHORT))
    return folder


@pytest.fixture
def workplace(trained: Path) -> Config:
    shutil.copytree(trained / "runs", "runs")
    return tiny_config(**SHORT)


def pictures_of(count: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def assert_refused(config: Config, *words: str) -> None:
    with refused(*words):
        load_encoder(config, load_generator(config, need_tuned=False))


# ---- the network ------------------------------------------------------------------------------------------------


def tiny_encoder(num_classes: int = 0) -> Encoder:
    settings = tiny_config().encoder
    trunk = ResNet18(settings.stem, settings.width)
    return Encoder(trunk, LatentSpace(Z_DIM, num_classes), SIZE, SIZE, settings.head_dims)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("size", [(32, 32), (32, 64), (48, 40)])
@pytest.mark.parametrize("head_dims", [[], [12, 6]])
def test_any_size_and_head_gives_latents_and_logits(stem, size, head_dims):
    settings = tiny_config(encoder__stem=stem, encoder__head_dims=head_dims).encoder
    for num_classes in (0, 3):
        trunk = ResNet18(settings.stem, settings.width)
        encoder = Encoder(trunk, LatentSpace(Z_DIM, num_classes), size[0], size[1], settings.head_dims)
        z, logits = encoder(torch.rand(2, 3, *size))
        assert z.shape == (2, Z_DIM) and z.dtype == torch.float32
        assert (logits is None) if not num_classes else (logits is not None and logits.shape == (2, 3))
    assert sum(isinstance(layer, torch.nn.Linear) for layer in encoder.hidden) == len(head_dims)


def test_a_picture_has_one_latent_alone_and_beside_others():
    encoder = tiny_encoder(2)
    encoder.train()
    pictures = pictures_of(70)
    z, y = encode(encoder, pictures)
    assert encoder.training and z.shape == (70, Z_DIM) and not z.requires_grad
    assert y is not None and y.shape == (70,) and y.dtype == torch.int64
    for row in (0, 69):
        alone, _ = encode(encoder, pictures[row : row + 1])
        torch.testing.assert_close(alone[0], z[row], rtol=0, atol=1e-5)
    again, _ = encode(encoder, pictures)
    assert torch.equal(again, z), "encoding moved the batch-norm statistics"
    encoder.eval()
    x = torch.from_numpy(pictures[:2]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        mine, logits = encoder(x)
    torch.testing.assert_close(mine, z[:2], rtol=0, atol=1e-5)
    assert torch.equal(logits.argmax(1), y[:2])
    assert encode(tiny_encoder(), pictures[:1])[1] is None


# ---- new ones -------------------------------------------------------------------------------------------------


def test_a_new_encoder_depends_only_on_the_seed(workplace):
    generator = load_generator(workplace)
    torch.manual_seed(1)
    first = build_encoder(workplace, generator).state_dict()
    torch.manual_seed(2)
    second = build_encoder(workplace, generator).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_encoder(tiny_config(seed=43), generator).state_dict()
    assert not torch.equal(first["hidden.0.weight"], other["hidden.0.weight"])


def test_imagenet_weights_start_the_trunk(workplace, tmp_path):
    torch.manual_seed(5)
    state = ResNet18().state_dict()
    torch.save(state, tmp_path / "imagenet.pth")
    generator = load_generator(workplace)
    wide, narrow = (tiny_config(encoder__weights=str(tmp_path / "imagenet.pth"), encoder__width=w) for w in (64, 8))
    encoder = build_encoder(wide, generator)
    assert torch.equal(encoder.trunk.get_parameter("conv1.weight"), state["conv1.weight"])
    with pytest.raises(UserError, match="encoder.width: found 8, allowed 64"):
        build_encoder(narrow, generator)


# ---- loaded ------------------------------------------------------------------------------------------------


def test_the_newest_checkpoint_is_loaded_as_it_is(workplace, tmp_path):
    generator = load_generator(workplace)
    encoder = load_encoder(workplace, generator)
    folder = tmp_path / "runs/tiny/encoder/checkpoints/step-00000002"
    stored = (folder / "encoder.safetensors").read_bytes()
    assert encoder.step == 2 and encoder.sha256 == hashlib.sha256(stored).hexdigest()
    assert not encoder.training and not any(weight.requires_grad for weight in encoder.parameters())
    first = encode(encoder, pictures_of(3))[0]
    # The stored encoder keeps its own shape, whatever the config has by now.
    wider = tiny_config(**SHORT, encoder__width=16, encoder__head_dims=[])
    assert torch.equal(encode(load_encoder(wider, generator), pictures_of(3))[0], first)


def test_an_unfinished_encoder_is_reported(workplace, tmp_path, capsys):
    generator = load_generator(workplace)
    load_encoder(workplace, generator)
    assert "unfinished" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs/tiny/encoder/checkpoints/step-00000002")
    assert load_encoder(workplace, generator).step == 1
    assert "1 of 2 steps" in capsys.readouterr().err


def test_a_missing_encoder_is_refused(workplace, tmp_path):
    shutil.rmtree(tmp_path / "runs/tiny/encoder")
    assert_refused(workplace, "encoder: found none in runs/tiny/encoder", "make encoder")


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_an_encoder_of_another_generator_is_refused(which, workplace, tmp_path):
    config = workplace if which == "base" else finetune_config(workplace)
    kept = shutil.move(tmp_path / "runs/tiny/encoder", tmp_path / "kept")
    shutil.rmtree(tmp_path / "runs" / config.name)
    write_run(tmp_path, config, workplace, moved_by=0.2)
    shutil.move(kept, tmp_path / "runs/tiny/encoder")
    assert_refused(workplace, "another generator", "make encoder", "runs/tiny/encoder away")


def test_without_the_fine_tuned_run_the_encoder_serves_the_base(workplace, tmp_path):
    shutil.rmtree(tmp_path / "runs/tiny-freezed")
    assert load_encoder(workplace, load_generator(workplace, need_tuned=False)).step == 2


def test_damaged_encoders_are_refused(workplace, tmp_path):
    for folder in (tmp_path / "runs/tiny/encoder/checkpoints").iterdir():
        (folder / "encoder.safetensors").write_bytes(b"")
    assert_refused(workplace, "damaged")


def test_a_conditional_encoder_is_loaded_with_its_classes(tmp_path):
    config = make_tiny_runs(tmp_path, **CONDITIONAL, **SHORT)
    train_encoder(config)
    z, y = encode(load_encoder(config, load_generator(config)), pictures_of(5))
    assert z.shape == (5, Z_DIM) and y is not None and set(y.tolist()) <= {0, 1}
