"""`train.precision: auto` on a CPU: the timing, the choice, and that the run is unchanged."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.checkpoints.checkpoint import load_state, load_weights
from harness.native.state import lecam_state, networks_of, optimizers_of
from harness.native.step import Training, trial_pass
from harness.native.train import train_run
from harness.runtime import precision
from harness.runtime.device import Hardware, prepare_hardware
from harness.runtime.precision import faster_format, pass_seconds, resumed_format
from tests.harness.tiny_runs import (
    CONDITIONAL,
    RECONSTRUCTION,
    SHORT,
    SHORT_LAST,
    assert_same_state,
    tiny_config,
    training,
)

AUTO: dict[str, Any] = {"train__precision": "auto"}
HAS_BF16 = Hardware(torch.device("cpu"), "bf16", "cpu, 1 thread, bf16")


@pytest.fixture(autouse=True)
def bf16_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.runtime.device.cpu_has_bf16", lambda: True)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Says how long passes take: in fp32, in bf16."""

    def say(fp32_sec: float, bf16_sec: float) -> None:
        monkeypatch.setattr(precision, "pass_seconds", lambda *_: [fp32_sec, bf16_sec])

    return say


def never() -> Any:
    raise AssertionError("nothing is to be timed")


# ---- timing -----------------------------------------------------------------------------------------------------


def test_the_least_of_passes_that_alternate_counts() -> None:
    """By a clock that the passes move; the first of each, which also prepares, is left out."""
    now, threads, passes = 0.0, set(), []
    taken = {"fp32": iter([1.0, 4.0, 3.0, 5.0]), "bf16": iter([0.5, 2.0, 9.0, 7.0])}

    def one_pass(hardware: Hardware) -> None:
        nonlocal now
        now += next(taken[hardware.precision])
        threads.add(torch.get_num_threads())
        passes.append(hardware.precision)

    torch.set_num_threads(2)
    assert pass_seconds(one_pass, HAS_BF16, lambda: now) == [3.0, 2.0]
    assert passes == ["fp32", "bf16"] * 4 and threads == {1} and torch.get_num_threads() == 2


@pytest.mark.parametrize(("fp32_sec", "taken"), [(0.8, "fp32"), (1.14, "fp32"), (1.16, "bf16"), (2.0, "bf16")])
def test_bf16_is_taken_where_it_is_clearly_faster(timed, fp32_sec: float, taken: str) -> None:
    timed(fp32_sec, 1.0)
    found = faster_format(HAS_BF16, tiny_config(**AUTO).train, lambda: lambda hardware: None)
    assert found.precision == taken
    assert found.text == f"cpu, 1 thread, {taken} (auto: {fp32_sec:g} CPU-s a pass in fp32, 1 in bf16)"


def test_nothing_is_timed_where_there_is_no_choice(monkeypatch) -> None:
    for asked in ("fp32", "bf16"):
        train = tiny_config(train__precision=asked).train
        hardware = prepare_hardware(train)
        assert faster_format(hardware, train, never) == hardware and hardware.precision == asked
    train, cuda = tiny_config(**AUTO).train, Hardware(torch.device("cuda"), "bf16", "")
    assert faster_format(cuda, train, never) == cuda == resumed_format(cuda, train, "fp32")
    monkeypatch.setattr("harness.runtime.device.cpu_has_bf16", lambda: False)
    assert faster_format(prepare_hardware(train), train, never).precision == "fp32"


def test_a_run_from_before_goes_on_in_what_auto_was() -> None:
    train = tiny_config(**AUTO).train
    found = [resumed_format(HAS_BF16, train, started_in).precision for started_in in (None, "bf16", "fp32")]
    assert found == ["bf16", "bf16", "fp32"]


def state_of(run: Training) -> dict[str, Any]:
    """All that a step could move, and the process's own random numbers."""
    networks, optimizers = networks_of(run), optimizers_of(run)
    state = {name: dict(network.state_dict()) for name, network in networks.items()}
    state |= {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    grads = {name: [p.grad for p in network.parameters()] for name, network in networks.items()}
    needed = {name: [p.requires_grad for p in network.parameters()] for name, network in networks.items()}
    rng = [torch.get_rng_state(), repr(np.random.get_state(legacy=False)), random.getstate()]
    return copy.deepcopy(
        {**state, "lecam": lecam_state(run), "broken": run.nonfinite, "step": run.step, "grads": grads,
         "needed": needed, "rng": rng}
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        CONDITIONAL | {"model__apply_g_sn": True},
        {"model__apply_d_sn": False},
        RECONSTRUCTION | {"model__g_cond_mtd": "concat", "model__d_cond_mtd": "PD"},
    ],
    ids=["spectral-and-batch-norm", "batch-norm-in-D", "reconstruction"],
)
def test_timed_passes_change_nothing(workplace: Path, changes: dict[str, Any]) -> None:
    """Neither weights nor batch statistics, vectors of spectral norm, or random numbers."""
    with training(**AUTO, **changes) as run:
        assert any(name.endswith(("weight_u", "running_mean")) for name in run.discriminator.state_dict())
        before = state_of(run)
        assert all(seconds > 0 for seconds in pass_seconds(trial_pass(run), run.hardware))
        assert_same_state(before, state_of(run))


# ---- runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "taken"), [((1.0, 1.0), "fp32"), ((2.0, 1.0), "bf16")])
def test_a_resumed_run_goes_on_in_what_it_began_in(
    go_to, no_pictures, timed, capsys, seconds: tuple[float, float], taken: str
) -> None:
    whole = go_to("whole") / SHORT_LAST
    train_run(tiny_config(**SHORT, train__precision=taken))
    go_to("auto")
    timed(*seconds)
    train_run(tiny_config(**SHORT, **AUTO), limit_steps=2)
    line = f"{taken} (auto: {seconds[0]:g} CPU-s a pass in fp32, {seconds[1]:g} in bf16)"
    kept = [Path("runs/tiny", name).read_text() for name in ("log.txt", "env.json")]
    assert all(line in text for text in (capsys.readouterr().err, *kept))
    assert load_state(Path("runs/tiny/checkpoints/step-00000002"))["precision"] == taken
    timed(*reversed(seconds))  # another start would choose otherwise
    train_run(tiny_config(**SHORT, **AUTO))
    assert "a pass" not in capsys.readouterr().err
    assert_same_state(load_state(whole), load_state(SHORT_LAST))
    for name in ("generator", "generator_ema", "discriminator"):
        assert_same_state(load_weights(whole, name), load_weights(SHORT_LAST, name))
