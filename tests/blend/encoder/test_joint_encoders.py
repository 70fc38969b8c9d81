"""Runs whose encoder was trained together with the generator: each reads its kind of pictures, up to designs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from blend.designs.commands import invert_command, measure_command
from blend.designs.generate import Request, blend_command
from blend.designs.parents import ParentStore
from blend.encoder.model import encode, load_encoders
from blend.encoder.train import train_encoder
from blend.generator.styled_generator import load_generator
from harness.config.experiment import Config
from harness.networks.encoder import Encoder
from harness.storage.rundir import RunDir
from tests.blend.tiny_blend import JOINT, coarse_pictures, make_tiny_runs

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_tiny_runs(tmp_path, **JOINT)


def test_each_kind_is_read_by_the_encoder_of_its_run(config: Config):
    encoders = load_encoders(config, load_generator(config))
    pictures = np.stack(list(coarse_pictures(3, 0, 32, 32)))
    (ordinary, _), (concept, _) = (encode(encoders.of(kind), pictures) for kind in ("ordinary", "concept"))
    assert ordinary.shape == (3, 8) and not torch.allclose(ordinary, concept)
    assert encoders.ordinary.sha256 and encoders.ordinary.sha256 != encoders.concept.sha256


def test_without_a_fine_tuned_run_one_encoder_reads_both(tmp_path: Path):
    config = make_tiny_runs(tmp_path, tuned=False, **JOINT)
    encoders = load_encoders(config, load_generator(config, need_tuned=False))
    assert encoders.ordinary is encoders.concept


def test_cars_by_seed_are_samples_of_the_base_run(tmp_path: Path):
    config = make_tiny_runs(tmp_path, **JOINT, reconstruction__sample_passes=1)
    generator = load_generator(config)
    z, _ = generator.draw_by_seed([4, 7])
    drawn = generator.draw(generator.latents.draw_by_seed("design", [4, 7])[0], 0.0)
    torch.testing.assert_close(z, encode(load_encoders(config, generator).ordinary, drawn)[0])
    torch.testing.assert_close(generator.draw_by_seed([7])[0], z[1:])


def polishing(config: Config, steps: int) -> Config:
    return config.model_copy(update={"encoder": config.encoder.model_copy(update={"polish_steps": steps})})


def test_an_encoder_is_polished_where_it_helps(config: Config, capsys):
    generator = load_generator(config)
    before = load_encoders(config, generator)
    train_encoder(polishing(config, 40))
    assert capsys.readouterr().err.count(", used") == 2
    after = load_encoders(config, generator)
    assert len({each.sha256 for each in (before.ordinary, before.concept, after.ordinary, after.concept)}) == 4
    pictures = np.stack(list(coarse_pictures(32, 3, 32, 32)))

    def error(encoder: Encoder) -> float:
        drawn = generator.draw(encode(encoder, pictures)[0], 0.0)
        return float(np.square(drawn.astype(float) - pictures).mean())

    assert error(after.ordinary) < error(before.ordinary)
    train_encoder(polishing(config, 1))  # polished before, so it stays
    assert load_encoders(config, generator).ordinary.sha256 == after.ordinary.sha256


def test_a_polished_encoder_that_is_worse_is_not_used(config: Config, capsys, monkeypatch):
    monkeypatch.setattr("blend.encoder.polish.LR", 10.0)
    before = load_encoders(config, load_generator(config))
    train_encoder(polishing(config, 3))
    assert capsys.readouterr().err.count(", not used") == 2
    assert load_encoders(config, load_generator(config)).ordinary.sha256 == before.ordinary.sha256


def test_a_joint_encoder_is_only_measured(config: Config, capsys):
    assert train_encoder(config) == Path("runs/tiny")
    figures = RunDir(Path("runs/tiny")).read_metrics()["encoder"]
    assert set(figures["latent_mse_styles"]) == {"0", "1"} and figures["steps"] == 4
    assert 0 < figures["picture_error"] < 4 and figures["picture_error"] != figures["picture_error_concept"]
    message = f"picture error of held-out pictures in one pass {figures['picture_error']:.4f}"
    assert f"its encoder was trained together with it; {message}" in capsys.readouterr().err
    assert not Path("runs/tiny/encoder").exists() and not Path("runs/tiny/polished").exists()


def test_from_inversion_to_designs(config: Config):
    sheets = invert_command(config, None, "ordinary")
    assert len(sheets) == 2 and all(sheet.is_file() for sheet in sheets)
    measure_command(config)
    metrics = RunDir(Path("runs/tiny")).read_metrics()
    assert {"inversion", "blend"} <= metrics.keys()
    train_encoder(config)
    one_pass = RunDir(Path("runs/tiny")).read_metrics()["encoder"]["picture_error"]
    assert one_pass == pytest.approx(metrics["inversion"]["encoder_error"], rel=1e-2)  # which is of unrounded pictures
    folder = blend_command(config, Request(intensity=0.5))
    assert len(list(folder.glob("0*.png"))) == 16


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_latent_is_refined_twice_only_if_the_style_moves_it(tmp_path: Path, share: float):
    config = make_tiny_runs(tmp_path, **JOINT, blend__tuned_share=share)
    invert_command(config, None, "ordinary")
    searches = 2 if share else 1
    assert len(list(Path("runs/tiny/inversions").glob("*.safetensors"))) == searches + 1, "and the concept cars"
    generator = load_generator(config)
    parents = ParentStore(config, generator, load_encoders(config, generator))
    found = parents.search("ordinary", parents.held_out["ordinary"].names[1], None, lambda *_: None)
    assert torch.equal(found.z, found.restyled) == (share == 0)
    measure_command(config)  # the baseline needs it at any share
    assert len(list(Path("runs/tiny/inversions").glob("*.safetensors"))) == 3
