"""One training step: no synchronisation with the device, few operations, speed switches that change no result."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from harness.checkpoints.sampling import latents_to_pictures, standing_copy
from harness.config.schema import SPEED_SWITCHES
from harness.native.freeze import freeze_discriminator
from harness.native.step import Fakes, Training, d_update, ema_decay, g_update, train_step, update_ema
from harness.runtime.device import cpu_has_bf16, prepare_hardware
from harness.runtime.rng import RandomStreams
from tests.golden.parity_case import gradients_of
from tests.harness.tiny_runs import CONDITIONAL, assert_same_state, tiny_config, training, write_set

SWITCHES = [f"train__{name}" for name in SPEED_SWITCHES]


class Operations(TorchDispatchMode):
    """Counts what is sent to the device; views of a tensor are no work there."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
        if not func.is_view:
            self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


# Operations whose result the host, or the shape of a tensor, waits for.
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "_unique2"}


@pytest.mark.parametrize("changes", [{}, CONDITIONAL, {"loss__lecam_type": "gsrgan"}, {"loss__apply_gp": True}])
def test_nothing_waits_for_the_device(workplace: Path, changes: dict[str, Any]) -> None:
    with training(**changes) as run:
        train_step(run)
        with Operations() as operations:
            train_step(run)
        names = {name.removeprefix("aten.") for name in operations.counts}
        assert not names & WAITING and "convolution" in names
        with Operations() as operations:
            bool(run.nonfinite)
        assert "aten._local_scalar_dense" in operations.counts  # that this is seen at all


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_operations_of_a_cars128_step(workplace: Path, precision: str) -> None:
    """cars128's topology and switches at small widths: 2 D updates, LeCam, DiffAugment, EMA."""
    write_set("tiny", size=128, count=8)
    small = {"data__img_size": 128, "optim__acml_steps": 1, "optim__batch_size": 2, "optim__d_updates_per_step": 2}
    with training(**small, train__precision=precision) as run:
        train_step(run)
        with Operations() as operations:
            train_step(run)
    assert 500 < operations.counts.total() <= 3000, operations.counts.most_common(12)


def test_switches_of_speed_change_no_loss(workplace: Path) -> None:
    def losses(**changes: Any) -> torch.Tensor:
        with training(**changes) as run:
            values = [train_step(run) for _ in range(2)]
            names = ("d_loss", "d_real", "d_fake", "lecam", "g_loss")
            return torch.stack([value[name].float() for value in values for name in names])

    naive = dict.fromkeys(SWITCHES, False)
    plain = losses(**naive)
    for switch in SWITCHES:
        assert (losses(**{**naive, switch: True}) - plain).abs().max() < 2e-3 * plain.abs().max(), switch
    # One call on real and drawn pictures moves D's spectral-norm vectors once instead of twice.
    assert (losses() - losses(train__numerics="studiogan")).abs().max() < 0.2 * plain.abs().max()
    assert (losses(train__precision="bf16") - losses()).abs().max() < 0.1 * plain.abs().max()


def test_no_switch_of_speed_rounds_in_studiogans_order(workplace: Path) -> None:
    states = []
    for changes in ({}, dict.fromkeys(SWITCHES, False)):
        with training(train__numerics="studiogan", **CONDITIONAL, **changes) as run:
            run.step = 2  # LeCam acts after step 1
            train_step(run)
            states.append([dict(network.state_dict()) for network in (run.generator, run.discriminator)])
            assert all(weight.is_contiguous() for state in states[-1] for weight in state.values())
    assert_same_state(*states)


def test_both_numerics_are_equal_where_vectors_stand_still(workplace: Path) -> None:
    results = []
    for numerics in ("fast", "studiogan"):
        with training(train__numerics=numerics) as run:
            hold_vectors(run)
            d_update(run, 0)
            results.append([p.detach().clone() for p in run.discriminator.parameters()])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def hold_vectors(run: Training) -> None:
    """Those of D's spectral norm."""
    for module in run.discriminator.modules():
        module.frozen = True  # type: ignore[assignment]


def test_a_discriminator_with_batch_norm_never_mixes(workplace: Path) -> None:
    """Without spectral norm D has batch norms, and `fast` must not change what is computed."""
    states = []
    for numerics in ("fast", "studiogan"):
        with training(train__numerics=numerics, model__apply_d_sn=False) as run:
            train_step(run)
            states.append({k: v.clone() for k, v in run.discriminator.named_buffers()})
    assert any("num_batches_tracked" in name for name in states[0])
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("precision", "text"), [("fp32", "fp32"), ("auto", "bf16" if cpu_has_bf16() else "fp32")])
def test_the_line_says_what_is_on(workplace: Path, precision: str, text: str) -> None:
    hardware = prepare_hardware(tiny_config(train__precision=precision).train)
    assert hardware.text == f"cpu, 1 thread, {text}"
    with hardware.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if text == "bf16" else torch.float32)


def test_emulated_bf16_is_told(workplace: Path, monkeypatch) -> None:
    monkeypatch.setattr("harness.runtime.device.cpu_has_bf16", lambda: False)
    assert "emulated" in prepare_hardware(tiny_config(train__precision="bf16").train).text
    assert prepare_hardware(tiny_config(train__precision="auto").train).precision == "fp32"


def test_each_update_moves_its_own_network(workplace: Path) -> None:
    with training() as run:
        before = [[p.detach().clone() for p in net.parameters()] for net in (run.generator, run.discriminator)]
        d_update(run, 0)
        assert all(torch.equal(p, q) for p, q in zip(before[0], run.generator.parameters(), strict=True))
        assert not any(torch.equal(p, q) for p, q in zip(before[1], run.discriminator.parameters(), strict=True))
        after = [p.detach().clone() for p in run.discriminator.parameters()]
        g_update(run)
        assert all(torch.equal(p, q) for p, q in zip(after, run.discriminator.parameters(), strict=True))
        assert not torch.equal(before[0][0], next(run.generator.parameters()))
        assert run.step == 1 and all(not p.requires_grad for p in run.discriminator.parameters())


def test_no_draw_is_used_twice(workplace: Path, monkeypatch) -> None:
    """Three steps of two D updates of two batches: batches of real pictures in turn, every stream of noise once."""
    streams, batches = [], []
    with training(loss__apply_gp=True) as run:
        stream, batch = run.streams.stream, run.source.batch
        monkeypatch.setattr(run.streams, "stream", lambda *name: (streams.append(name), stream(*name))[1])
        monkeypatch.setattr(run.source, "batch", lambda k: (batches.append(k), batch(k))[1])
        for _ in range(3):
            train_step(run)
    assert batches == list(range(12))
    assert len(set(streams)) == len(streams) == 3 * (4 * 4 + 2 * 2)


def test_accumulation_is_the_mean_of_its_batches(workplace: Path) -> None:
    """Two batches of 4, accumulated, give the gradient of both: no LeCam, as its anchors move between them."""

    def gradients(acml_steps: int, index: int) -> dict[str, torch.Tensor]:
        with training(loss__apply_lecam=False, optim__acml_steps=acml_steps) as run:
            hold_vectors(run)
            run.d_optimizer.step = lambda *_: None  # type: ignore[method-assign]
            d_update(run, index)
            return gradients_of(run.discriminator)

    one, other = gradients(1, 0), gradients(1, 1)
    mean = {name: (gradient + other[name]) / 2 for name, gradient in one.items()}
    torch.testing.assert_close(gradients(2, 0), mean, rtol=1e-4, atol=1e-5)


def test_moving_average(workplace: Path) -> None:
    assert [ema_decay(tiny_config(), step) for step in (0, 1, 2, 3)] == [0, 0, 0.9, 0.9]
    warm = tiny_config(model__g_ema_warmup=True, model__g_ema_start=0)
    assert [round(ema_decay(warm, step), 3) for step in (0, 8, 10_000)] == [0.1, 0.5, 0.9]
    with training() as run:
        assert run.generator_ema is not None
        for _ in range(2):
            train_step(run)
        assert_same_state(dict(run.generator_ema.state_dict()), dict(run.generator.state_dict()))
        old = {name: value.clone() for name, value in run.generator_ema.state_dict().items()}
        train_step(run)
        for name, value in run.generator_ema.state_dict().items():
            now = run.generator.state_dict()[name]
            expected = old[name] * 0.9 + now * 0.1 if value.is_floating_point() else now
            assert torch.allclose(value, expected, atol=1e-6), name
        old = {name: value.clone() for name, value in run.generator_ema.state_dict().items()}
        update_ema(run.generator_ema, run.generator, 0.7, stepwise=True)
        for name, value in run.generator_ema.state_dict().items():
            expected = old[name] * 0.7 + run.generator.state_dict()[name] * (1 - 0.7)  # bit for bit
            assert torch.equal(value, expected) or not value.is_floating_point(), name
        update_ema(run.generator_ema, run.generator, 0.0)
        assert_same_state(dict(run.generator_ema.state_dict()), dict(run.generator.state_dict()))


def test_frozen_blocks_get_no_gradient(workplace: Path) -> None:
    with training() as run:
        freeze_discriminator(run.discriminator, 2)
        d_update(run, 0)
        assert all(p.grad is None for p in run.discriminator.blocks[:2].parameters())
        assert all(p.grad is not None for p in run.discriminator.blocks[2:].parameters())
        g_update(run)
        assert all(p.grad is not None for p in run.generator.parameters())


@pytest.mark.parametrize("changes", [{}, CONDITIONAL], ids=["plain", "conditional"])
def test_one_latent_gives_one_picture(workplace: Path, changes: dict[str, Any]) -> None:
    """Alone, in a batch, or in a batch of others: and the generator that trains is left as it is."""
    with training(**changes) as run:
        train_step(run)
        before = {name: value.clone() for name, value in run.generator.state_dict().items()}
        generator = standing_copy(run.generator)
        again = standing_copy(run.generator)
        assert_same_state(dict(generator.state_dict()), dict(again.state_dict()))
        assert_same_state(dict(run.generator.state_dict()), before)
        assert run.generator.training and not generator.training
        z, y = RandomStreams(0, torch.device("cpu")).latents("x", 0, 16, 8, run.num_classes)
        with torch.no_grad():
            together = generator(z, y)
            for k in range(16):
                alone = generator(z[k : k + 1], None if y is None else y[k : k + 1])
                assert (alone[0] - together[k]).abs().max() < 1e-5
            assert (together[0] - together[1]).abs().max() > 1e-2
        small, large = (latents_to_pictures(generator, z, y, batch_size=size) for size in (5, 64))
        assert small.shape == (16, 32, 32, 3) and abs(small.astype(int) - large).max() <= 1


# ---- what the car-brand GAN's recipe adds ------------------------------------------------------------------------

BRANDS: dict[str, Any] = {
    "model__backbone": "conv", "model__apply_g_sn": True, "model__g_act_fn": "Mish", "model__d_act_fn": "Leaky_ReLU",
    "loss__adv_loss": "vanilla", "loss__label_smoothing": 0.1, "loss__apply_gp": True, "loss__apply_r1_reg": True,
    "loss__apply_similarity": True, "augment__d_input_noise": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("d_cond_mtd", ["concat", "acgan", "PD"])
def test_a_step_of_every_stabiliser(workplace: Path, d_cond_mtd: str) -> None:
    changes = {**BRANDS, "model__g_cond_mtd": "concat", "model__d_cond_mtd": d_cond_mtd}
    changes["loss__apply_mismatch"] = d_cond_mtd == "PD"
    with training(**changes) as run:
        before = {name: value.clone() for name, value in run.generator.state_dict().items()}
        values = train_step(run)
        classes = {"d_class", "g_class"} if d_cond_mtd == "acgan" else set()
        always = {"d_loss", "g_loss", "d_real", "d_fake", "lecam", "gp", "r1", "similarity"}
        assert set(values) == always | classes | ({"mismatch"} if changes.get("loss__apply_mismatch") else set())
        assert all(torch.isfinite(value) for value in values.values()) and not run.nonfinite
        moved = {name for name, value in run.generator.state_dict().items() if not torch.equal(value, before[name])}
        assert {"linear0.weight_orig", "embedding.weight_orig"} <= moved
        if d_cond_mtd == "acgan":
            assert run.discriminator.linear2.weight_orig.grad is not None  # of D's step


@pytest.mark.parametrize("key", ["loss__apply_similarity", "augment__d_input_noise", "loss__apply_r1_reg"])
def test_each_stabiliser_reaches_the_weights(workplace: Path, key: str) -> None:
    """A step with it ends in other weights than one without."""
    ends = []
    for changes in (BRANDS, {**BRANDS, key: 0.0 if "noise" in key else False}):
        with training(**changes) as run:
            train_step(run)
            ends.append(torch.cat([p.detach().flatten() for p in run.generator.parameters()]))
    assert not torch.equal(ends[0], ends[1])


@pytest.mark.parametrize("apply", [False, True])
def test_mismatched_labels_train_the_discriminator_on_classes(workplace: Path, apply: bool) -> None:
    """Drawn pictures that are the real ones: all that is left to learn is which name belongs to which picture."""
    changes = {"loss__apply_mismatch": apply, "loss__mismatch_lambda": 1.0, "loss__apply_lecam": False}
    with training(**CONDITIONAL, **changes, augment__apply_diffaug=False, optim__d_lr=5e-3) as run:
        x, y = run.source.batch(0)
        run.source.batch = lambda index: (x, y)  # type: ignore[method-assign]
        run.draw_fakes = lambda purpose, index: Fakes(x, x, y)  # type: ignore[method-assign]
        for update in range(40):
            d_update(run, update)
        with torch.no_grad():
            logits = run.discriminator.logits_by_class(run.discriminator.features(x))
        margins = (logits * (2 * F.one_hot(y, 2) - 1)).sum(1)
        assert (margins.min() > 0.5) == apply, margins


def test_noise_is_drawn_anew_for_each_update_and_alike_for_any_process_count(workplace: Path) -> None:
    with training(augment__d_input_noise=0.5, augment__apply_diffaug=False) as run:
        x = torch.zeros(4, 3, 32, 32)
        first, again, other = (run.augment(x, "d.real", index) for index in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert float(first.std()) == pytest.approx(0.5, rel=0.05)
        run.streams.local_slice = slice(2, 4)
        assert torch.equal(run.augment(x[2:], "d.real", 0), first[2:])
