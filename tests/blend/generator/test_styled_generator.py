"""A latent has one picture in any batch; interpolated weights and their statistics; refusals."""

import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import blend.generator.styled_generator
from blend.generator.styled_generator import load_generator
from harness.checkpoints.load import load_run
from harness.config.experiment import finetune_config
from harness.errors import UserError
from tests.blend.tiny_blend import CONDITIONAL, make_tiny_runs, tiny_config, write_run


@pytest.fixture
def config(tmp_path):
    return make_tiny_runs(tmp_path)


def latents(count: int, z_dim: int = 8) -> torch.Tensor:
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(1))


def test_one_latent_gives_one_picture_in_any_batch(config):
    generator, z = load_generator(config), latents(9)
    for style in (0.0, 0.37, 1.0):
        network = generator.at(style)
        with torch.no_grad():
            together, alone = network(z, None), torch.cat([network(z[k : k + 1], None) for k in range(9)])
            among_others = network(torch.cat([latents(40)[20:], z]), None)[20:]
        assert (together - alone).abs().max() <= 1e-5
        assert (together - among_others).abs().max() <= 1e-5
        assert together.std(0).max() > 1e-3  # they are not all the same picture


def test_conditional_generators_draw_their_classes(tmp_path):
    generator = load_generator(make_tiny_runs(tmp_path, **CONDITIONAL))
    z = latents(6)
    first, second = (generator.draw(z, 0.5, torch.full((6,), label)) for label in (0, 1))
    assert generator.num_classes == 2 and generator.base.class_names == ["ordinary", "concept"]
    assert np.abs(first.astype(int) - second).max() > 0


def test_the_ends_are_the_two_runs_and_the_middle_is_between_their_weights(config):
    generator = load_generator(config)
    assert generator.tuned is not None
    base, tuned = generator.base.generator.state_dict(), generator.tuned.generator.state_dict()
    for style in (0.0, 0.25, 1.0):
        mixed = dict(generator.at(style).named_parameters())
        for name, value in mixed.items():
            expected = (1 - style) * base[name].double() + style * tuned[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)


def test_statistics_are_those_of_each_mix_and_are_computed_once(config, tmp_path, monkeypatch):
    generator = load_generator(config)
    at = {style: dict(generator.at(style).named_buffers()) for style in (0.0, 0.5, 1.0)}
    mean = "bn4.running_mean"
    assert not torch.allclose(at[0.5][mean], (at[0.0][mean] + at[1.0][mean]) / 2, atol=1e-5)
    assert len(list((tmp_path / "runs/tiny/standing").iterdir())) == 3

    refuse = Mock(side_effect=AssertionError("computed a second time"))
    monkeypatch.setattr(blend.generator.styled_generator, "standing_copy", refuse)
    again = load_generator(config)
    z = latents(4)
    assert (again.draw(z, 0.5) == generator.draw(z, 0.5)).all()
    assert (again.draw(z, 0.5) == again.draw(z, 0.501)).all()  # whole percents
    with pytest.raises(AssertionError, match="second time"):
        again.at(0.45)


def test_between_knots_statistics_are_nearly_those_of_the_mix(config):
    generator, z = load_generator(config), latents(32)
    between = generator.draw(z, 0.52).astype(int)
    exact = blend.generator.styled_generator.standing_copy(generator.at(0.52))
    with torch.no_grad():
        drawn = blend.generator.styled_generator.latents_to_pictures(exact, z, None)
    apart = np.abs(between - drawn)
    assert apart.mean() < 0.25 and apart.max() <= 4  # of 255 levels
    neighbour = np.abs(between - generator.draw(z, 0.55))
    assert neighbour.mean() > 2 * apart.mean()


def test_spectral_norms_vectors_are_computed_for_every_style(tmp_path):
    generator = load_generator(make_tiny_runs(tmp_path, model__apply_g_sn=True))
    u = dict(generator.at(0.52).named_buffers())["conv2d5.weight_u"]
    assert u.norm() == pytest.approx(1, abs=1e-4)
    assert len(list((tmp_path / "runs/tiny/standing").iterdir())) == 1


def test_damaged_or_foreign_statistics_are_computed_again(config, tmp_path):
    expected = load_generator(config).draw(latents(3), 0.5)
    (path,) = (tmp_path / "runs/tiny/standing").iterdir()
    path.write_bytes(path.read_bytes()[:40])
    assert (load_generator(config).draw(latents(3), 0.5) == expected).all()
    assert path.stat().st_size > 40


def test_another_checkpoint_has_other_statistics(config, tmp_path):
    before = load_generator(config)
    made = write_run(tmp_path / "elsewhere", config, config, moved_by=0.2, step=8)
    shutil.copytree(made, tmp_path / "runs" / config.name / "checkpoints" / made.name)
    after = load_generator(config)
    assert after.base.step == 8 and before.key(0) != after.key(0) and before.key(50) != after.key(50)
    assert before.key(100) == after.key(100)


def test_any_run_can_be_loaded(config):
    run = load_run("tiny")
    assert run.name == "tiny" and load_run("tiny-freezed").config.data.set == "concept"
    assert not run.generator.training and not any(p.requires_grad for p in run.generator.parameters())


def test_missing_runs_are_refused_in_one_line(tmp_path):
    config = make_tiny_runs(tmp_path, tuned=False)
    with pytest.raises(UserError, match=r"no fine-tuned run runs/tiny-freezed beside runs/tiny.*make finetune"):
        load_generator(config)
    alone = load_generator(config, need_tuned=False)
    assert alone.draw(latents(2), 0.0).shape == (2, 32, 32, 3)
    with pytest.raises(UserError, match=r"style: found 0.5, allowed 0 alone"):
        alone.at(0.5)
    with pytest.raises(UserError, match="found no runs/other/config.yaml, allowed tiny"):
        load_run("other")


def test_runs_of_different_shape_do_not_mix(tmp_path):
    config = make_tiny_runs(tmp_path, tuned=False)
    wide = finetune_config(tiny_config(model__g_conv_dim=6))
    write_run(tmp_path, wide, wide, moved_by=0)
    with pytest.raises(UserError, match="tiny-freezed: found a generator of another shape than tiny"):
        load_generator(config)
