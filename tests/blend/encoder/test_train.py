"""An interrupted encoder equals an uninterrupted one bit for bit; losses and figures match independent formulas."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blend.encoder.ridge_init
import blend.encoder.train
from blend.encoder.measure import explained_shares, measure_encoder
from blend.encoder.model import Encoders, encode, load_encoder
from blend.encoder.step import augment, encoder_step, latent_loss, one_cycle
from blend.encoder.train import train_encoder
from blend.generator.styled_generator import load_generator
from harness.checkpoints.checkpoint import load_state, load_weights
from harness.errors import Interrupted, UserError
from harness.images.tensors import tensor_to_pictures
from harness.native.data import PictureOrder
from harness.runtime import precision
from harness.runtime.rng import RandomStreams
from harness.storage.hdf5 import open_packed
from harness.storage.rundir import RunDir
from tests.blend.tiny_blend import CONDITIONAL, make_tiny_runs, tiny_config
from tests.harness.tiny_runs import assert_same_state

ENCODER = Path("runs/tiny/encoder")
LAST = ENCODER / "checkpoints/step-00000012"
SHORT: dict[str, Any] = {"encoder__total_steps": 2}


@pytest.fixture(autouse=True)
def few_curve_points(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setattr(blend.encoder.train, "CURVE_POINTS", 3)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny runs, whose standing statistics are there too."""
    folder = tmp_path_factory.mktemp("tiny")
    generator = load_generator(make_tiny_runs(folder), root=folder / "runs")
    assert generator.at(0) is not generator.at(1)
    return folder


@pytest.fixture
def go_to(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Changes to a fresh folder with copies of the tiny runs."""

    def change(name: str) -> None:
        shutil.copytree(runs, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)

    return change


@pytest.fixture
def workplace(go_to: Callable[[str], None]) -> None:
    go_to("here")


def assert_same(one: Path, other: Path) -> None:
    """Weights and optimiser, bit for bit."""
    assert_same_state(load_weights(one, "encoder"), load_weights(other, "encoder"))
    assert_same_state(load_state(one), load_state(other))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ENCODER / "stats.jsonl").read_text().splitlines()]


def status() -> dict[str, Any]:
    return json.loads((ENCODER / "status.json").read_text())


def figures() -> dict[str, Any]:
    return json.loads(Path("runs/tiny/metrics.json").read_text())["encoder"]


# ---- stopping and resuming --------------------------------------------------------------------------------------


def test_an_interrupted_encoder_equals_an_uninterrupted_one(go_to, tmp_path, monkeypatch):
    """Logs every 3 steps, saves every 5, picture loss every 2, measures every 4; 12 in all."""
    go_to("whole")
    train_encoder(tiny_config())
    whole_rows, whole_figures = rows(), figures()
    for cut in (1, 6, 11):
        go_to(f"cut_{cut}")
        train_encoder(tiny_config(), limit_steps=cut)
        assert status()["state"] == "interrupted" and not Path("runs/tiny/metrics.json").exists()
        train_encoder(tiny_config())
        assert_same(tmp_path / "whole" / LAST, LAST)
        assert {**figures(), "cpu_sec": 0} == {**whole_figures, "cpu_sec": 0}
        measured = [(row["step"], row["latent_mse"]) for row in rows() if "latent_mse" in row]
        assert measured == [(row["step"], row["latent_mse"]) for row in whole_rows if "latent_mse" in row]
    assert [p.name for p in sorted((ENCODER / "checkpoints").iterdir())] == ["step-00000011", "step-00000012"]


def test_auto_precision_is_chosen_once(go_to, tmp_path, monkeypatch):
    """The trial passes change nothing, and a resumed encoder keeps its number format."""
    monkeypatch.setattr("harness.runtime.device.cpu_has_bf16", lambda: True)
    real = precision.pass_seconds
    monkeypatch.setattr(precision, "pass_seconds", lambda *words: [real(*words)[0]] * 2)
    go_to("whole")
    train_encoder(tiny_config())
    go_to("cut")
    train_encoder(tiny_config(train__precision="auto"), limit_steps=6)
    assert "fp32 (auto: " in (ENCODER / "log.txt").read_text()
    monkeypatch.setattr(precision, "pass_seconds", lambda *_: [2.0, 1.0])
    train_encoder(tiny_config(train__precision="auto"))
    assert_same(tmp_path / "whole" / LAST, LAST)


def test_a_signal_during_a_step_changes_nothing(go_to, tmp_path, monkeypatch):
    go_to("whole")
    train_encoder(tiny_config())
    go_to("cut")

    def step_with_signal(run):
        values = encoder_step(run)
        if run.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    with monkeypatch.context() as patch:
        patch.setattr(blend.encoder.train, "encoder_step", step_with_signal)
        with pytest.raises(Interrupted):
            train_encoder(tiny_config())
    assert status()["state"] == "interrupted" and status()["step"] == 7
    assert not RunDir(ENCODER).lock_path.exists()
    train_encoder(tiny_config())
    assert_same(tmp_path / "whole" / LAST, LAST)
    assert sorted({row["step"] for row in rows()}) == [3, 4, 6, 8, 9, 12]


def test_a_conditional_encoder_resumes_exactly_and_has_an_accuracy(tmp_path, monkeypatch):
    changes: dict[str, Any] = CONDITIONAL | {"encoder__total_steps": 4, "encoder__z_loss": "log_cosh"}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        config = make_tiny_runs(tmp_path / name, **changes)
        if name == "cut":
            train_encoder(config, limit_steps=3)
        train_encoder(config)
    last = Path("runs/tiny/encoder/checkpoints/step-00000004")
    assert_same(tmp_path / "whole" / last, last)
    assert 0 <= figures()["class_accuracy"] <= 1
    assert all(row["class_loss"] > 0 for row in rows() if "z_loss" in row)


def test_a_finished_encoder_is_left_alone(workplace, monkeypatch):
    config = tiny_config(**SHORT)
    train_encoder(config)
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()}
    monkeypatch.setattr(blend.encoder.train, "encoder_step", lambda run: 1 / 0)
    train_encoder(config)
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()} == before


def test_a_kill_before_the_figures_measures_again(workplace, monkeypatch):
    config = tiny_config(**SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_metrics", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_encoder(config)
    assert status()["state"] == "failed"
    train_encoder(config)
    assert status()["state"] == "done" and Path("runs/tiny/metrics.json").exists()


def test_a_damaged_checkpoint_is_skipped(go_to, tmp_path):
    go_to("whole")
    train_encoder(tiny_config())
    go_to("damaged")
    train_encoder(tiny_config(), limit_steps=6)
    (ENCODER / "checkpoints/step-00000006/state.pt").write_bytes(b"")
    train_encoder(tiny_config())
    assert_same(tmp_path / "whole" / LAST, LAST)


# ---- refused ----------------------------------------------------------------------------------------------------


def test_changed_settings_are_refused_with_a_list(workplace):
    train_encoder(tiny_config(), limit_steps=1)
    before = load_weights(ENCODER / "checkpoints/step-00000001", "encoder")
    changes: dict[str, Any] = {
        "encoder__lr": 0.5,
        "encoder__total_steps": 13,
        "seed": 7,
        "encoder__with_finetuned": False,
    }
    with pytest.raises(UserError, match="^runs/tiny/encoder: .*move this folder away") as caught:
        train_encoder(tiny_config(**changes))
    text = str(caught.value)
    assert "  encoder.lr: it has 0.001, config says 0.5" in text and "  seed: it has 42, config says 7" in text
    assert "encoder.total_steps" in text and "encoder.with_finetuned: it has true, config says false" in text
    assert text.count("\n") == 5  # four settings, and the generator that is no longer used
    assert load_weights(ENCODER / "checkpoints/step-00000001", "encoder").keys() == before.keys()
    free: dict[str, Any] = {"encoder__log_every_steps": 1, "encoder__save_every_steps": 2, "encoder__valid_count": 20}
    train_encoder(tiny_config(**free), limit_steps=2)


def test_a_generator_that_was_trained_further_is_refused(workplace):
    train_encoder(tiny_config(), limit_steps=1)
    fresh = make_tiny_runs(Path("other"), model__d_init="N02", seed=9)
    assert fresh.name == "tiny"
    shutil.rmtree("runs/tiny-freezed")
    shutil.move("other/runs/tiny-freezed", "runs/tiny-freezed")
    with pytest.raises(UserError, match=r"(?s)runs/tiny/encoder: .*\n  the generator of style 1: other weights$"):
        train_encoder(tiny_config())


def test_a_missing_fine_tuned_run_is_refused_unless_it_is_not_used(workplace):
    shutil.rmtree("runs/tiny-freezed")
    with pytest.raises(UserError, match="make finetune"):
        train_encoder(tiny_config())
    assert not ENCODER.exists()
    train_encoder(tiny_config(encoder__with_finetuned=False, **SHORT))
    assert list(figures()["latent_mse_styles"]) == ["0"]


def test_losses_that_are_not_finite_stop_it_before_they_are_saved(workplace, monkeypatch):
    config = tiny_config()
    train_encoder(config, limit_steps=2)
    kept = load_state(ENCODER / "checkpoints/step-00000002")
    real = blend.encoder.train.encoder_step

    def spoiled(run):
        with torch.no_grad():
            run.encoder.to_z.bias[0] = float("nan")
        return real(run)

    monkeypatch.setattr(blend.encoder.train, "encoder_step", spoiled)
    with pytest.raises(UserError, match="encoder step 3: .*not finite"):
        train_encoder(config)
    assert status()["state"] == "failed"
    assert [p.name for p in (ENCODER / "checkpoints").iterdir()] == ["step-00000002"]
    assert_same_state(load_state(ENCODER / "checkpoints/step-00000002"), kept)


# ---- what it computes -------------------------------------------------------------------------------------------


def test_both_losses_follow_their_formulas():
    rng = np.random.default_rng(0)
    z, guess = rng.normal(size=(5, 7)), 3 * rng.normal(size=(5, 7))
    pair = torch.from_numpy(guess), torch.from_numpy(z)
    np.testing.assert_allclose(float(latent_loss("mse", *pair)), np.mean((guess - z) ** 2), rtol=1e-12)
    np.testing.assert_allclose(float(latent_loss("log_cosh", *pair)), np.mean(np.log(np.cosh(guess - z))), rtol=1e-12)
    far = torch.tensor([[1000.0]])
    np.testing.assert_allclose(float(latent_loss("log_cosh", far, -far)), 2000 - np.log(2), rtol=1e-6)


class Step:
    """One step with its parts recorded: the encoder's input and its output."""

    seen: torch.Tensor
    guess: torch.Tensor
    logits: torch.Tensor | None

    def __init__(self, **changes: Any) -> None:
        config = tiny_config(**{"encoder__real_pictures": False} | changes)
        self.generator = load_generator(config)
        self.run = blend.encoder.train._build(config, self.generator)
        before = self.run.encoder.forward

        def watched(x):
            self.seen, (self.guess, self.logits) = x, (found := before(x))
            return found

        self.run.encoder.forward = watched
        self.values = {name: float(value) for name, value in encoder_step(self.run).items()}
        streams = RandomStreams(config.seed, torch.device("cpu"))
        self.z, self.y = self.generator.latents.draw(streams, "encoder", 0, config.encoder.batch_size)

    def drawn(self, z: torch.Tensor) -> np.ndarray:
        """Half of the batch by the base generator, half by the fine-tuned one."""
        half, y = len(z) // 2, self.y
        with torch.no_grad():
            base = self.generator.at(0)(z[:half], None if y is None else y[:half])
            tuned = self.generator.at(1)(z[half:], None if y is None else y[half:])
        return torch.cat([base, tuned]).numpy()


def test_a_step_adds_the_losses_as_the_config_says(workplace):
    step = Step(encoder__picture_every_steps=1, encoder__picture_lambda=0.7, encoder__augment_strength=0.5)
    z_loss = np.mean((step.guess.detach().numpy() - step.z.numpy()) ** 2)
    clean = step.drawn(step.z)
    picture_loss = np.mean((step.drawn(step.guess.detach()) - clean) ** 2)
    assert np.abs(step.seen.numpy() - clean).mean() > 0.01, "the pictures were not augmented"
    np.testing.assert_allclose(step.values["z_loss"], z_loss, rtol=1e-5)
    np.testing.assert_allclose(step.values["picture_loss"], picture_loss, rtol=1e-5)
    np.testing.assert_allclose(step.values["loss"], z_loss + 0.7 * picture_loss, rtol=1e-5)
    assert not any(weight.requires_grad for network in step.run.generators for weight in network.parameters())


def test_the_picture_loss_trains_the_encoder_only_on_its_steps(workplace):
    weights = {}
    for every in (1, 2):
        step = Step(encoder__picture_every_steps=every, encoder__picture_lambda=1000.0, encoder__augment_strength=0.0)
        np.testing.assert_allclose(step.seen.numpy(), step.drawn(step.z), atol=1e-6)
        assert ("picture_loss" in step.values) == (every == 1)
        weights[every] = step.run.encoder.to_z.weight.detach().clone()
    assert not torch.equal(weights[1], weights[2])


def test_training_pictures_are_redrawn_too(workplace):
    """As many as generated ones, from the set of each style; only the generated ones have a latent to compare with."""
    losses = {"encoder__picture_every_steps": 1, "encoder__picture_lambda": 0.7, "encoder__augment_strength": 0.0}
    step, pictures = Step(**losses, encoder__real_pictures=True), []
    count = len(step.z)
    for loaded in (step.generator.base, step.generator.tuned):
        assert loaded is not None
        with open_packed(loaded.config.data.hdf5_path("train")) as packed:
            rows = PictureOrder(loaded.config.seed, packed.count, count // 2).rows(0)
            pictures.append(packed.read(rows).transpose(0, 3, 1, 2) / 127.5 - 1)
    clean = np.concatenate([step.drawn(step.z), *pictures])
    np.testing.assert_allclose(step.seen.numpy(), clean, atol=1e-6)
    guess = step.guess.detach()
    z_loss = np.mean((guess[:count].numpy() - step.z.numpy()) ** 2)
    redrawn = np.concatenate([step.drawn(guess[:count]), step.drawn(guess[count:])])
    picture_loss = np.mean((redrawn - clean) ** 2)
    np.testing.assert_allclose(step.values["picture_loss"], picture_loss, rtol=1e-5)
    np.testing.assert_allclose(step.values["loss"], z_loss + 0.7 * picture_loss, rtol=1e-5)


def test_class_logits_learn_by_cross_entropy(tmp_path):
    make_tiny_runs(tmp_path, **CONDITIONAL)
    step = Step(**CONDITIONAL, encoder__picture_lambda=0.0, encoder__augment_strength=0.0)
    assert step.y is not None and set(step.y.tolist()) == {0, 1}
    np.testing.assert_allclose(step.seen.numpy(), step.drawn(step.z), atol=1e-6)
    assert step.logits is not None and step.run.encoder.to_class is not None
    logits = step.logits.detach().double().numpy()
    right = logits[np.arange(len(logits)), step.y.numpy()]
    cross_entropy = np.mean(np.log(np.exp(logits).sum(1)) - right)
    np.testing.assert_allclose(step.values["class_loss"], cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(step.values["loss"], step.values["z_loss"] + cross_entropy, rtol=1e-5)
    gradient = step.run.encoder.to_class.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_the_rate_rises_and_falls_once():
    rates, betas = zip(*(one_cycle(step, 101, 0.01) for step in range(1, 102)), strict=True)
    assert rates[0] == pytest.approx(0.01 / 25) and rates[-1] == pytest.approx(1e-6) and max(rates) == rates[10] == 0.01
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a > b for a, b in zip(rates[10:-1], rates[11:], strict=True))
    assert betas[10] == pytest.approx(0.85) and betas[-1] == pytest.approx(0.95) == betas[0]
    assert one_cycle(1, 1, 0.01)[0] > 0


def test_augmentation_differs_between_pictures_and_grows_with_strength():
    x = torch.rand(4, 3, 16, 16) * 1.6 - 0.8
    x[1] = x[0]
    changes = []
    for strength in (0.0, 0.3, 1.0):
        found = augment(x, strength, torch.Generator().manual_seed(1))
        assert found.shape == x.shape and found.min() >= -1 and found.max() <= 1
        assert torch.equal(found, augment(x, strength, torch.Generator().manual_seed(1)))
        changes.append(float((found - x).abs().mean()))
        assert torch.equal(found[0], found[1]) == (strength == 0)
    assert changes[0] == 0 < changes[1] < changes[2]


def test_the_skip_is_ridge_regression_on_augmented_pictures(workplace):
    """One chunk of 256 pictures; the same solution by numpy, and the frozen weights stay as they are."""
    config = tiny_config()
    run = blend.encoder.train._build(config, load_generator(config))
    blend.encoder.ridge_init.fit_skip(run)
    z, _ = run.streams.latents("encoder.skip", 0, 256, 8, 0)
    with torch.no_grad():
        seen = augment(run.draw(z, None), 0.3, run.streams.stream("encoder.skip.augment", 0))
    reduced = seen.double().numpy().reshape(256, 3, 8, 4, 8, 4).mean((3, 5)).reshape(256, -1)
    pixels = np.concatenate([reduced, np.ones((256, 1))], axis=1)
    solution = np.linalg.solve(pixels.T @ pixels + 2.56 * np.eye(193), pixels.T @ z.double().numpy())
    skip = run.encoder.skip
    assert skip is not None
    weight, bias = skip.weight.clone(), skip.bias.clone()
    np.testing.assert_allclose(weight.numpy(), solution[:-1].T, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), solution[-1], atol=1e-4)
    with torch.no_grad():
        guess, _ = run.encoder(seen)
    np.testing.assert_allclose(guess.numpy(), pixels @ solution, atol=1e-3)
    assert np.mean((guess.numpy() - z.numpy()) ** 2) < 0.7
    encoder_step(run)
    assert torch.equal(skip.weight, weight) and torch.equal(skip.bias, bias)
    assert run.encoder.to_z.weight.abs().sum() > 0


# ---- figures ----------------------------------------------------------------------------------------------------


def test_the_latent_error_is_that_of_new_pictures(workplace):
    config = tiny_config(**SHORT)
    train_encoder(config)
    found = figures()
    generator = load_generator(config)
    encoder = load_encoder(config, generator)
    z, _ = RandomStreams(config.seed, torch.device("cpu")).latents("encoder.valid", 0, 16, 8, 0)
    errors = []
    for style in (0, 1):
        with torch.no_grad():
            pictures = tensor_to_pictures(generator.at(style)(z))
        errors.append(np.mean((encode(encoder, pictures)[0].numpy() - z.numpy()) ** 2))
    np.testing.assert_allclose([found["latent_mse_styles"][style] for style in "01"], errors, rtol=1e-5)
    np.testing.assert_allclose(found["latent_mse"], np.mean(errors), rtol=1e-5)
    assert found["z_dim"] == 8 and found["steps"] == 2 and found["seed_latent_mse"] == 0.970
    assert found["cpu_sec"] > 0 and len(found["explained"]) == 8
    assert found["explained"] == sorted(found["explained"], reverse=True)
    assert found["explained_mean"] == pytest.approx(np.mean(found["explained"]), abs=1e-4)
    assert (
        measure_encoder(Encoders(encoder, encoder), generator, [0, 1], 16, config.seed)["latent_mse"]
        == found["latent_mse"]
    )


def test_explained_shares_find_the_known_directions():
    """Of 8 directions that lie along no axis, 3 are known to 90 %; nothing is known of the others."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(4000, 8))
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    known = (z @ axes)[:, :3] + np.sqrt(0.1) * rng.normal(size=(4000, 3))
    shares = explained_shares(z, known @ axes[:, :3].T)
    np.testing.assert_allclose(shares[:3], 0.9, atol=0.02)
    np.testing.assert_allclose(shares[3:], 0.0, atol=0.02)
    # A constant guess explains nothing, in few samples too.
    shares = [explained_shares(rng.normal(size=(40, 8)), np.zeros((40, 8))) for _ in range(20)]
    np.testing.assert_allclose(shares, 0, atol=1e-12)
    guess = 0.5 * rng.normal(size=(200, 8))
    assert explained_shares(rng.normal(size=(200, 8)), guess).max() < 0.1
    assert np.mean(explained_shares(z, 0.5 * z)) == pytest.approx(0.75)
