"""Seed for seed: StudioGAN 0.2.0's own training loop and ours, from one start with the same batches, latents and draws.

Always: numbers that its loop gave (`tests/golden/make_loop_golden.py` says how). With a checkout: both loops, in full.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.native import step
from harness.native.losses import LeCam
from harness.studiogan.checkout import ROOT, find_checkout, find_python
from tests.golden import both_loops, loop_case
from tests.golden.both_loops import NETWORKS, Loop, farthest, fresh_start, native_loop, relative_to_movement
from tests.golden.loop_cars import car_inputs
from tests.golden.loop_case import GOLDEN_LOOP, LoopCase, fill_start, make_inputs, settle_vectors
from tests.golden.make_loop_golden import CASES, boil_loop, golden_start
from tests.golden.parity_case import read_golden

# In StudioGAN's order of operations, and with the networks and optimisers that every speed switch makes.
WAYS: dict[str, dict[str, Any]] = {"studiogan": {}, "every-switch": {"built_for": "fast"}}
TOLERANCE = 1e-6
GOLDEN = read_golden(GOLDEN_LOOP)
pytestmark = pytest.mark.usefixtures("fuse_small_maps_too")


# ---- Always: StudioGAN's numbers -------------------------------------------------------------------------------------


def off_golden(case: LoopCase, ours: dict[str, np.ndarray]) -> dict[str, float]:
    """By network and loss: the largest of the tensors' estimated differences, or of the losses'."""
    result = {}
    for kind, values in ours.items():
        expected = GOLDEN[f"{case.name}/{kind}"]
        assert values.shape == expected.shape, kind
        apart = values - expected
        result[kind] = float(np.sqrt((apart**2).mean(axis=1)).max() if apart.ndim == 2 else np.abs(apart).max())
    return result


def run_golden(case: LoopCase, named: LoopCase, way: str = "studiogan") -> dict[str, float]:
    inputs = make_inputs(named)
    loop = native_loop(case, inputs, golden_start(named), dtype=torch.float64, keep_steps=[case.steps], **WAYS[way])
    return off_golden(named, boil_loop(loop))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_loop_gives_studiogans_numbers(case: LoopCase, way: str) -> None:
    off = run_golden(case, case, way)
    assert max(off.values()) <= TOLERANCE, off


def late_anchors(lecam: LeCam, real: torch.Tensor, fake: torch.Tensor, step: int, *rest: Any) -> torch.Tensor:
    """LeCam whose anchors take the batch in after they were used."""
    before = lecam.state_dict()
    zero = LECAM_PENALTY(lecam, real, fake, step)
    after = lecam.state_dict()
    if before["ema_real"] is None or step <= lecam.start_iter:
        return zero
    lecam.load_state_dict(before)
    move, lecam._update_ema = lecam._update_ema, lambda *_: None  # type: ignore[method-assign]
    penalty = LECAM_PENALTY(lecam, real, fake, step)
    lecam._update_ema = move  # type: ignore[method-assign]
    lecam.load_state_dict(after)
    return penalty


LECAM_PENALTY = LeCam.penalty
FAULTS: dict[str, tuple[LoopCase, Callable[[pytest.MonkeyPatch], object], dict[str, Any]]] = {
    "eps": (CASES[0], lambda patch: patch.setattr(loop_case, "EPS", 1e-8), {}),
    "beta2": (CASES[0], lambda patch: patch.setattr(loop_case, "BETAS", (0.0, 0.999)), {}),
    "EMA's decay": (CASES[0], lambda patch: None, {"ema_decay": 0.91}),
    "EMA's start": (CASES[0], lambda patch: None, {"ema_start": 4}),
    "LeCam's start": (CASES[0], lambda patch: None, {"lecam_start": 2}),
    "LeCam's order": (CASES[0], lambda patch: patch.setattr(LeCam, "penalty", late_anchors), {}),
    "no augmentation": (CASES[1], lambda patch: None, {"diffaug": False}),
    "G's statistics in D's steps": (
        CASES[0],
        lambda patch: patch.setattr(step.Training, "draw_fakes", drawn_by_a_still_generator),
        {},
    ),
    "nothing frozen": (CASES[2], lambda patch: None, {"freeze_layers": 0}),
}
DRAW_FAKES = step.Training.draw_fakes


def drawn_by_a_still_generator(run: step.Training, purpose: str, index: int) -> Any:
    """As StudioGAN 0.4.0: D's steps leave the generator's running statistics alone."""
    before = {name: buffer.clone() for name, buffer in run.generator.named_buffers()}
    drawn = DRAW_FAKES(run, purpose, index)
    if purpose == "d.latents":
        for name, buffer in run.generator.named_buffers():
            buffer.copy_(before[name])
    return drawn


@pytest.mark.parametrize("fault", FAULTS)
def test_the_numbers_tell_a_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, change, changes = FAULTS[fault]
    change(monkeypatch)
    off = run_golden(replace(case, **changes), case)
    assert max(off.values()) > 10 * TOLERANCE, off


# ---- With a checkout: both loops -------------------------------------------------------------------------------------


@pytest.fixture
def checkout() -> Path:
    try:
        home = find_checkout()
        find_python()
    except UserError as error:
        pytest.skip(f"no StudioGAN here ({error})")
    if not both_loops.has_040(home):
        pytest.skip("this checkout's history lacks v.0.4.0, whose LeCam the comparison uses")
    return home


def both(home: Path, case: LoopCase, way: str, start: Any = None, **ours: Any) -> tuple[Loop, Loop]:
    inputs, start = make_inputs(case), start or fresh_start(case)
    theirs = both_loops.studiogan_loop(home, case, inputs, start, dtype=torch.float64)
    return theirs, native_loop(case, inputs, start, dtype=torch.float64, **WAYS[way], **ours)


def apart(theirs: Loop, ours: Loop, first: int = 2) -> dict[str, float]:
    """Largest difference by network, from step `first`: at step 0 StudioGAN averages already, and then is set to G."""
    steps = [step for step in theirs.states if step >= first]
    return {
        name: max(farthest(theirs.states[step][name], ours.states[step][name]) for step in steps) for name in NETWORKS
    }


@pytest.mark.studiogan
def test_a_checkout_gives_the_golden_numbers(checkout: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.golden.make_loop_golden", tmp_path / "again.npz"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "again.npz") as again:
        assert set(again) == set(GOLDEN)
        for name, expected in GOLDEN.items():
            assert np.abs(again[name] - expected).max() <= 1e-8, name


PLAIN = LoopCase("twenty", steps=20, width=12, batch=8, ema_start=5)
TWENTY = {
    "plain": (PLAIN, "studiogan"),
    "plain-every-switch": (PLAIN, "every-switch"),
    "diffaug": (replace(PLAIN, width=8, diffaug=True), "studiogan"),
    "diffaug-every-switch": (replace(PLAIN, width=8, diffaug=True), "every-switch"),
    "conditional": (replace(PLAIN, width=8, num_classes=4, diffaug=True, acml_steps=2), "studiogan"),
}


@pytest.mark.studiogan
@pytest.mark.parametrize("name", TWENTY)
def test_twenty_steps_in_float64(checkout: Path, name: str) -> None:
    case, way = TWENTY[name]
    theirs, ours = both(checkout, case, way)
    difference = apart(theirs, ours)
    losses = [
        float((a - b).abs().max()) for a, b in ((theirs.d_losses, ours.d_losses), (theirs.g_losses, ours.g_losses))
    ]
    print(name, difference, losses)
    assert max(*difference.values(), *losses) <= TOLERANCE, (difference, losses)


@pytest.mark.studiogan
@pytest.mark.parametrize("vectors", ["held, from rest", "moving"])
def test_ten_steps_of_freezed_in_float64(checkout: Path, vectors: str) -> None:
    """StudioGAN moves the frozen blocks' spectral-norm vectors, we hold them: equal where they are at rest."""
    case = replace(PLAIN, name="frozen", steps=10, width=8, freeze_layers=2, diffaug=True)
    start = fill_start(fresh_start(case))
    if vectors != "moving":
        start = settle_vectors(start)
    theirs, ours = both(checkout, case, "every-switch", start, frozen_vectors_move=vectors == "moving")
    difference = apart(theirs, ours)
    print(vectors, difference)
    assert max(difference.values()) <= TOLERANCE, difference
    for loop in (theirs, ours):
        after = loop.states[case.steps]["D"]
        frozen = [key for key in after if key.startswith(("blocks.0.", "blocks.1.")) and both_loops.is_weight(key)]
        assert len(frozen) == 12 and all(torch.equal(after[key], start["D"][key].double()) for key in frozen)
        assert not torch.equal(after["blocks.2.0.conv2d1.weight_orig"], start["D"]["blocks.2.0.conv2d1.weight_orig"])


CARS = LoopCase("float32", steps=20, width=8, batch=8, ema_start=5)
FLOAT32 = {
    "plain": CARS,
    "diffaug": replace(CARS, diffaug=True),
    "conditional": replace(CARS, num_classes=4, diffaug=True, acml_steps=2),
}
SINGLE: dict[str, Any] = {"dtype": torch.float32}


@cache
def in_float32(home: Path, name: str) -> tuple[Loop, Loop]:
    """StudioGAN on drawn cars; and each of its steps again, from the same state, with its batches in reverse order."""
    case = FLOAT32[name]
    inputs, start = car_inputs(case, 64), fresh_start(case)
    theirs = both_loops.studiogan_loop(home, case, inputs, start, **SINGLE)
    again = both_loops.studiogan_loop(home, case, inputs.reversed_in_batch(), start, put_back=theirs, **SINGLE)
    return theirs, again


def distances_in_float32(home: Path, name: str, way: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By network, for each step: our difference from StudioGAN, and that of its reversed batches."""
    case, (theirs, again) = FLOAT32[name], in_float32(home, name)
    start = fresh_start(case)
    ours = native_loop(case, car_inputs(case, 64), start, put_back=theirs, **SINGLE, **WAYS[way])
    result = {}
    for network in NETWORKS:
        mine, yardstick = result[network] = tuple(one_step_distances(x, theirs, start, network) for x in (ours, again))
        print(name, way, network, "ours", [f"{v:.1e}" for v in mine], "reversed", [f"{v:.1e}" for v in yardstick])
    return result


@pytest.mark.studiogan
@pytest.mark.parametrize("name", FLOAT32)
def test_in_float32_no_farther_than_studiogan_from_itself(checkout: Path, name: str) -> None:
    """What each step makes of StudioGAN's state: its difference from StudioGAN's step, over that step's movement."""
    for network, (mine, yardstick) in distances_in_float32(checkout, name, "studiogan").items():
        assert (mine <= 3 * yardstick).all(), (network, mine, yardstick)


@pytest.mark.studiogan
def test_the_yardstick_tells_rounding(checkout: Path) -> None:
    """With every speed switch the same steps are farther away than the reversed batches, and still the same steps."""
    mine, yardstick = distances_in_float32(checkout, "plain", "every-switch")["G"]
    assert (mine > 3 * yardstick).any() and (mine < 0.2).all()


@pytest.mark.studiogan
@pytest.mark.parametrize("name", FLOAT32)
def test_left_alone_in_float32_bit_for_bit(checkout: Path, name: str) -> None:
    """20 steps, nothing put back. Another PyTorch may add up in another order, and then such trainings part."""
    command = [find_python(), "-c", "import torch; print(torch.__version__)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if there.split("+")[0] != torch.__version__.split("+")[0]:
        pytest.skip(f"StudioGAN runs on PyTorch {there} here, Carforge on {torch.__version__}")
    case = FLOAT32[name]
    ours = native_loop(case, car_inputs(case, 64), fresh_start(case), **SINGLE, **WAYS["studiogan"])
    assert set(apart(in_float32(checkout, name)[0], ours).values()) == {0.0}


def one_step_distances(loop: Loop, theirs: Loop, start: dict[str, dict[str, torch.Tensor]], name: str) -> np.ndarray:
    """Of one network, for each step; of the average from step 2, as in `apart`."""
    before = {0: start} | theirs.states
    steps = [step for step in theirs.states if step >= (2 if name == "EMA" else 1)]
    triples = [(loop.states[k][name], theirs.states[k][name], before[k - 1][name]) for k in steps]
    return np.array([relative_to_movement(*triple) for triple in triples])
