"""Makes parity_loop.npz: what StudioGAN 0.2.0's own loop makes of the golden cases, in float64, boiled down.

From the repository's root, with a checkout and an environment as `make studiogan` leaves them:
    python -m tests.golden.make_loop_golden [OUT.npz]
LeCam there is StudioGAN 0.4.0's own code, taken from the checkout's history. Each tensor of G, D and the averaged G
after the last step becomes its norm and three products with fixed random vectors; losses are kept for every step.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from harness.studiogan.checkout import find_checkout
from tests.golden import parity_case as pc
from tests.golden.both_loops import NETWORKS, Loop, fresh_start, studiogan_loop
from tests.golden.loop_case import GOLDEN_LOOP, LoopCase, fill_start, make_inputs, settle_vectors

CASES = (
    LoopCase("plain", steps=6, width=4, batch=4),
    LoopCase("conditional-diffaug", steps=5, width=4, batch=4, num_classes=3, diffaug=True, acml_steps=2),
    LoopCase("freeze", steps=6, width=4, batch=4, freeze_layers=2),
)


def golden_start(case: LoopCase) -> dict[str, dict[str, torch.Tensor]]:
    """By formula. Under FreezeD the spectral-norm vectors begin at rest: ours are held there, StudioGAN's then stay."""
    start = fill_start(fresh_start(case))
    return settle_vectors(start) if case.freeze_layers else start


def boil_loop(loop: Loop) -> dict[str, np.ndarray]:
    """By network (tensors, 4) after the last step, without the average's counters; and the losses of each step."""
    last = loop.states[max(loop.states)]
    counted = {name: {k: v for k, v in last[name].items() if name != "EMA" or v.is_floating_point()} for name in last}
    losses = {"d_losses": loop.d_losses.double().numpy(), "g_losses": loop.g_losses.double().numpy()}
    return {name: pc.boil_down(counted[name]) for name in NETWORKS} | losses


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN_LOOP
    boiled: dict[str, np.ndarray] = {}
    for case in CASES:
        start, inputs = golden_start(case), make_inputs(case)
        loop = studiogan_loop(find_checkout(), case, inputs, start, dtype=torch.float64, keep_steps=[case.steps])
        boiled |= {f"{case.name}/{kind}": values for kind, values in boil_loop(loop).items()}
    np.savez_compressed(out, **boiled)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
