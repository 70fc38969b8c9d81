"""Draws docs/parity.png: losses of both engines over 300 float32 steps from one start, on procedural cars.

From the repository's root, with a checkout and an environment as `make studiogan` leaves them (some minutes):
    python -m tests.golden.draw_parity [OUT.png]
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.studiogan.checkout import ROOT, find_checkout
from tests.golden.both_loops import NETWORKS, Loop, fresh_start, native_loop, relative_to_movement, studiogan_loop
from tests.golden.loop_cars import car_inputs
from tests.golden.loop_case import LoopCase

CASE = LoopCase(
    "curves", steps=300, width=8, batch=16, z_dim=32, diffaug=True, ema_decay=0.99, ema_start=100, lecam_decay=0.99,
    lecam_start=50,
)  # fmt: skip
PICTURES = 480
KEPT = [1, 2, 3, 5, 10, 20, 50, 100, 200, 300]
STUDIOGAN, NATIVE, TURNED = "StudioGAN 0.2.0", "native engine", "StudioGAN, batches reversed"
FLOOR = 1e-8  # where the logarithm of no difference is drawn


def run_all(case: LoopCase) -> dict[str, Loop]:
    checkout, inputs, start = find_checkout(), car_inputs(case, PICTURES), fresh_start(case)
    how: dict[str, Any] = {"dtype": torch.float32, "keep_steps": KEPT}
    return {
        STUDIOGAN: studiogan_loop(checkout, case, inputs, start, **how),
        NATIVE: native_loop(case, inputs, start, **how),
        TURNED: studiogan_loop(checkout, case, inputs.reversed_in_batch(), start, **how),
    }


def draw(loops: dict[str, Loop], out: Path) -> None:
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True)
    steps = np.arange(1, CASE.steps + 1)
    for axis, kind, text in zip(axes, ("d_losses", "g_losses"), ("D loss", "G loss"), strict=False):
        axis.plot(steps, getattr(loops[STUDIOGAN], kind), color="#8ab6e8", linewidth=4, label=STUDIOGAN)
        axis.plot(steps, getattr(loops[NATIVE], kind), color="#b3261e", linewidth=1, label=NATIVE)
        axis.set_ylabel(text)
    for name, color, width in ((TURNED, "#c77800", 1), (NATIVE, "#b3261e", 2)):
        d, _ = losses_apart(loops[STUDIOGAN], loops[name])
        label = name if d.any() else f"{name}: 0 at every step"
        axes[2].plot(steps, np.maximum(d, FLOOR), color=color, linewidth=width, label=label)
    axes[2].set(yscale="log", xlabel="step", ylabel="D loss, difference from StudioGAN")
    for axis in axes:
        axis.legend(loc="best", frameon=False)
        axis.grid(alpha=0.3)
    axes[0].set_title(f"One start, the same batches, latents and draws ({CASE.steps} steps, 32 px, batch {CASE.batch})")
    figure.savefig(out, dpi=110)


def losses_apart(one: Loop, other: Loop) -> tuple[np.ndarray, np.ndarray]:
    return tuple(  # type: ignore[return-value]
        (getattr(one, kind).double() - getattr(other, kind).double()).abs().numpy() for kind in ("d_losses", "g_losses")
    )


def tell(loops: dict[str, Loop], start: dict[str, dict[str, torch.Tensor]]) -> None:
    """How far the others are from StudioGAN: losses, and networks relative to their movement."""
    theirs = loops[STUDIOGAN]
    for name, loop in loops.items():
        last = {kind: round(float(getattr(loop, kind)[-100:].mean()), 3) for kind in ("d_losses", "g_losses")}
        print(f"{name}: mean of the last 100 steps {last}")
        for step in KEPT if loop is not theirs else ():
            pairs = {key: (loop.states[step][key], theirs.states[step][key], start[key]) for key in NETWORKS}
            apart = {key: f"{relative_to_movement(*pair):.1e}" for key, pair in pairs.items()}
            losses = [f"{values[step - 1]:.1e}" for values in losses_apart(theirs, loop)]
            print(f"step {step}: losses {losses} apart, networks {apart}")


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "parity.png"
    loops = run_all(CASE)
    draw(loops, out)
    tell(loops, fresh_start(CASE))


if __name__ == "__main__":
    main()
