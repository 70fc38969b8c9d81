"""Joint training of an encoder: its losses, steps, checkpoints, samples and fine-tuning."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.checkpoints.checkpoint import load_state, load_weights
from harness.checkpoints.load import load_checkpoint, load_joint_encoder
from harness.checkpoints.sample import draw_choice
from harness.checkpoints.sampling import latents_to_pictures
from harness.config.class_choice import Choice
from harness.errors import UserError
from harness.images.decode import picture_grid
from harness.images.tensors import grid_columns, pictures_to_tensor
from harness.metrics.evaluate import sample_with_labels
from harness.native import reconstruction
from harness.native.reconstruction import feature_loss, pixel_loss, reconstruction_step
from harness.native.step import Training, rate_factor
from harness.native.train import finetune_run, train_run
from harness.networks.encoder import Whitening
from harness.runtime.rng import RandomStreams
from tests.harness.tiny_runs import RECONSTRUCTION, RUN, checkpoint_names, rows_logged, tiny_config, training, write_set

CLASSES: dict[str, Any] = {"model__g_cond_mtd": "concat", "model__d_cond_mtd": "PD"}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, one_thread) -> None:
    monkeypatch.chdir(tmp_path)
    write_set("tiny")
    write_set("other", seed=1)


# ---- losses -----------------------------------------------------------------------------------------------------


def test_equal_pictures_and_maps_cost_nothing():
    x = torch.randn(2, 3, 16, 16)
    assert pixel_loss(x, x, 4.0) == 0 and feature_loss([x, x], [x, x]) == 0


def test_a_flat_difference_has_no_slope():
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(pixel_loss(x + 0.5, x, 4.0), torch.tensor(0.5))
    noise = 0.5 * torch.randn(2, 3, 16, 16).sign()
    assert pixel_loss(x + noise, x, 4.0) > pixel_loss(x + noise, x, 0.0) > 0


def test_a_difference_of_colour_counts_more():
    x = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    tint = torch.tensor([0.2, -0.1, -0.1])[:, None, None]
    torch.testing.assert_close(pixel_loss(x + 0.5, x, 4.0, 3.0), torch.tensor(0.5))
    torch.testing.assert_close(pixel_loss(x + tint, x, 4.0, 3.0), 3 * pixel_loss(x + tint, x, 4.0))


def test_a_shift_repeats_the_edge():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert reconstruction.shift(x, 1, 2)[0, 0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]]
    assert torch.equal(reconstruction.shift(x, 0, 0), x)


def test_the_feature_loss_is_relative():
    maps = [torch.rand(2, 4, 5, 5) + 1, torch.rand(2, 8, 3, 3) + 1]
    losses = [feature_loss([1.1 * part * scale for part in maps], [part * scale for part in maps]) for scale in (1, 50)]
    assert losses == [pytest.approx(0.1, abs=1e-5)] * 2


@pytest.mark.parametrize(("hinge", "direction"), [(0.2, 1), (1.2, 0), (1.9, -1)], ids=["d wins", "even", "d is beaten"])
def test_the_share_follows_the_discriminator(hinge: float, direction: int):
    before = torch.tensor(0.1)
    after = reconstruction._adjusted_share(before, torch.tensor(hinge), 0.4)
    assert torch.sign((after - before).round(decimals=6)) == direction
    for _ in range(100):
        after = reconstruction._adjusted_share(after, torch.tensor(hinge), 0.4)
    assert reconstruction.MIN_SHARE <= after <= 0.4 + 1e-6


def test_rates_fall_along_half_a_cosine():
    optim = tiny_config(optim__cosine_from=0.5, optim__total_steps=100).optim
    factors = [rate_factor(optim, step) for step in range(101)]
    assert factors[:51] == [1.0] * 51 and factors[75] == pytest.approx(0.525) and factors[100] == pytest.approx(0.05)
    assert all(a >= b for a, b in zip(factors[:-1], factors[1:], strict=True))
    assert rate_factor(tiny_config().optim, 11) == 1.0


# ---- steps ------------------------------------------------------------------------------------------------------


def weights_of(run: Training) -> dict[str, list[torch.Tensor]]:
    rec = run.reconstruction
    assert rec is not None
    networks = {"g": run.generator, "d": run.discriminator, "e": rec.encoder, "heads": rec.heads}
    return {name: [p.detach().clone() for p in network.parameters()] for name, network in networks.items()}


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {
        name for name in before if any(not torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))
    }


def test_the_discriminators_join_after_the_warm_up():
    with training(**RECONSTRUCTION) as run:
        for step in range(4):
            before = weights_of(run)
            values = reconstruction_step(run)
            adversarial = step >= 2
            assert moved(before, weights_of(run)) == ({"g", "e", "d", "heads"} if adversarial else {"g", "e"})
            assert ("d_loss" in values) is adversarial and all(value.isfinite() for value in values.values())
    assert run.step == 4


def test_the_adversarial_part_may_come_in_every_other_step():
    with training(**RECONSTRUCTION | {"reconstruction__adversarial_every_steps": 2}) as run:
        adversarial = ["d_loss" in reconstruction_step(run) for _ in range(6)]
    assert adversarial == [False, False, True, False, True, False]


def test_real_and_fake_pictures_have_the_same_shift(monkeypatch):
    seen: list[tuple[int, int, int]] = []
    shift = reconstruction.shift

    def spy(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
        seen.append((len(x), down, right))
        return shift(x, down, right)

    monkeypatch.setattr(reconstruction, "shift", spy)
    with training(**RECONSTRUCTION | {"optim__acml_steps": 1}) as run:
        batch = run.config.optim.batch_size
        for _ in range(8):
            reconstruction_step(run)
    reals, drawn = seen[::2], seen[1::2]
    assert [row[1:] for row in reals] == [row[1:] for row in drawn] and len({row[1:] for row in reals}) > 3
    assert [row[0] for row in drawn] == [batch] * 2 + [2 * batch] * 6  # redrawn alone, then with as many from the prior


def test_pictures_are_overfitted():
    rates = {"optim__g_lr": 5e-3, "reconstruction__e_lr": 5e-3, "optim__beta1": 0.5, "optim__beta2": 0.99}
    changes = {"reconstruction__warmup_steps": 200, "optim__acml_steps": 1, "optim__batch_size": 8}
    changes |= {"model__z_dim": 32, "augment__apply_rflip": False, **rates}
    with training(**RECONSTRUCTION | changes) as run:
        losses = [float(reconstruction_step(run)["pixel"]) for _ in range(120)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5]), losses


def test_the_adversarial_gradient_reaches_the_generator_in_its_share():
    """Without it the same step moves the generator otherwise."""
    moves = []
    for share in (0.003, 0.4):
        changes = RECONSTRUCTION | {"reconstruction__warmup_steps": 0, "reconstruction__adversarial_share": share}
        with training(**changes) as run:
            assert run.reconstruction is not None
            run.reconstruction.share.fill_(share)
            reconstruction_step(run)
            moves.append(weights_of(run)["g"])
    assert any(not torch.equal(a, b) for a, b in zip(*moves, strict=True))


def test_components_of_the_latent_are_driven_apart():
    strengths = []
    for strength in (0.0, 1.0):
        changes = RECONSTRUCTION | {
            "reconstruction__warmup_steps": 100,
            "reconstruction__decorrelation_lambda": strength,
        }
        with training(**changes, optim__batch_size=16, optim__acml_steps=1) as run:
            strengths.append([float(reconstruction_step(run)["correlation"]) for _ in range(40)][-1])
    assert strengths[1] < 0.7 * strengths[0], strengths


def test_whitening_leaves_no_correlation():
    whitening, rng = Whitening(4), torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.8, 0.0, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 1.0, -0.6], [0.0, 0.0, 0.0, 0.8]])

    def batch(count: int) -> torch.Tensor:
        return torch.randn(count, 4, generator=rng) @ mixing

    for _ in range(2000):
        z = batch(64)
        whitening.update(z.t() @ z / len(z))
    z = batch(20_000)
    assert (torch.cov(z.t()) - torch.eye(4)).abs().max() > 0.55
    assert (torch.cov(whitening(z).t()) - torch.eye(4)).abs().max() < 0.12
    before = whitening.matrix.clone()
    whitening.frozen = True
    whitening.update(torch.eye(4))
    assert torch.equal(whitening.matrix, before)


def test_an_encoder_of_an_earlier_version_has_latents_as_they_were():
    with training(**RECONSTRUCTION) as run:
        assert run.reconstruction is not None
        encoder = run.reconstruction.encoder.eval()
    x = torch.rand(2, 3, 32, 32)
    before = encoder(x)[0]
    kept = {name: value for name, value in encoder.state_dict().items() if not name.startswith("whitening.")}
    encoder.load_state_dict(kept)
    assert torch.equal(encoder(x)[0], before) and torch.equal(encoder.unwhitened(x)[0], before)


def test_with_all_options():
    changes = RECONSTRUCTION | CLASSES | {"augment__apply_diffaug": True, "loss__apply_lecam": True}
    with training(**changes | {"reconstruction__warmup_steps": 0}) as run:
        for _ in range(3):
            values = reconstruction_step(run)
    assert {"lecam", "e_class", "d_loss", "share"} <= values.keys()
    assert all(value.isfinite() for value in values.values())


def test_a_run_and_its_fine_tuning_keep_the_encoder():
    train_run(tiny_config(**RECONSTRUCTION))
    folder = RUN / "checkpoints" / checkpoint_names()[-1]
    kept = {name: load_weights(folder, name) for name in ("encoder", "encoder_ema", "feature_heads", "generator")}
    assert set(load_state(folder)["reconstruction"]) == {"share", "correlation"}
    assert {"pixel", "features", "share"} <= rows_logged()[-1].keys()
    with Image.open(RUN / "samples/redrawn-step-00000012.png") as grid:
        assert grid.size == (4 * 34 - 2, 8 * 34 - 2), "16 pictures in four strips, each above its redrawings"
    config = tiny_config(**RECONSTRUCTION, finetune__freeze_layers=1)
    tuned = finetune_run(config) / "checkpoints"
    first, last = load_weights(folder, "discriminator"), load_weights(sorted(tuned.iterdir())[-1], "discriminator")
    assert all(torch.equal(first[name], last[name]) for name in first if name.startswith("blocks.0."))
    after = load_weights(sorted(tuned.iterdir())[-1], "encoder")
    latents = {name for name in after if name.startswith("whitening.")}
    assert latents and all(torch.equal(after[name], kept["encoder"][name]) == (name in latents) for name in after
                           if "num_batches" not in name)  # fmt: skip


def test_samples_are_encoded_again_wherever_they_are_drawn():
    train_run(tiny_config(**RECONSTRUCTION, reconstruction__sample_passes=2))
    checkpoint = RUN / "checkpoints" / checkpoint_names()[-1]
    loaded = load_checkpoint(checkpoint)
    generator, encoder = loaded.generator, load_joint_encoder(loaded)

    def again(z: torch.Tensor, truncation: float = 1.0) -> np.ndarray:
        for _ in range(2):
            z = encoder(pictures_to_tensor(torch.from_numpy(latents_to_pictures(generator, z, None))))[0]
        return latents_to_pictures(generator, truncation * z, None)

    noise = torch.load(RUN / "noise.pt", weights_only=True)["z"]
    assert not np.array_equal(again(noise), latents_to_pictures(generator, noise, None))
    with Image.open(RUN / "samples/step-00000012.png") as grid:
        assert np.array_equal(np.asarray(grid), picture_grid(again(noise), grid_columns(len(noise))))
    z, _ = generator.latents.draw(RandomStreams(3, torch.device("cpu")), "sample", 0, 4)
    for truncation in (1.0, 0.5):
        drawn, _ = draw_choice(loaded, Choice("random"), 4, 3, truncation)
        assert np.array_equal(drawn, again(z, truncation))
    z, _ = generator.latents.draw(RandomStreams(0, torch.device("cpu")), "evaluate", 0, 4)
    assert np.array_equal(sample_with_labels(checkpoint, 4)[0], again(z))


def test_samples_may_be_drawn_otherwise_when_a_run_is_resumed():
    train_run(tiny_config(**RECONSTRUCTION, optim__total_steps=2))
    train_run(tiny_config(**RECONSTRUCTION, optim__total_steps=4, reconstruction__sample_passes=1))
    assert load_checkpoint(RUN / "checkpoints" / checkpoint_names()[-1]).config.reconstruction.sample_passes == 1


def test_fine_tuning_needs_the_encoder_that_it_goes_on_with():
    plain = RECONSTRUCTION | {"reconstruction__apply": False, "optim__total_steps": 2}
    train_run(tiny_config(**plain))
    override = {"data": {"set": "other"}, "reconstruction": {"apply": True}}
    with pytest.raises(UserError, match="has no encoder, which reconstruction.apply needs"):
        finetune_run(tiny_config(**plain, finetune__override=override, finetune__freeze_layers=1))


def test_a_run_without_it_has_no_encoder():
    train_run(tiny_config(optim__total_steps=2))
    names = {path.name for path in (RUN / "checkpoints" / checkpoint_names()[-1]).iterdir()}
    assert names == {
        "generator.safetensors",
        "generator_ema.safetensors",
        "discriminator.safetensors",
        "state.pt",
        "meta.json",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"train__numerics": "studiogan"}, {"optim__d_updates_per_step": 2}, {"loss__adv_loss": "vanilla"},
        {"loss__apply_r1_reg": True}, {"engine": "studiogan"}, {"model__apply_d_sn": False},
        {"model__g_cond_mtd": "cBN", "model__d_cond_mtd": "PD"}, {"model__apply_attn": True},
        {"optim__z_schedule": [[0, 4], [5, 8]]},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_unsupported_combinations_are_refused(changes: dict[str, Any]):
    with pytest.raises(UserError, match=rf"(?m)^\s*{next(iter(changes)).replace('__', '.')}: found .*allowed .*try "):
        tiny_config(**(RECONSTRUCTION | changes))
