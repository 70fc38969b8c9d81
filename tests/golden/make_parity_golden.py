"""Makes the golden numbers of the parity check by running the real StudioGAN 0.2.0.

From the repository's root, with a checkout as `make studiogan` leaves it:
    python -m tests.golden.make_parity_golden CHECKOUT [--full FOLDER]
Without --full it writes parity.npz and state_keys.json beside this file; with it, whole tensors into FOLDER.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.studiogan.reference_modules import Modules
from tests.golden import parity_case as pc

POLICY = "color,translation,cutout"


def build(sg: Modules, case: pc.Case) -> tuple[torch.nn.Module, torch.nn.Module]:
    same = {"size": case.size, "width": case.width, "num_classes": case.num_classes}
    g = sg.generator(**same, z_dim=case.z_dim, sn=case.g_sn, attention_loc=2 if case.attention else 0)
    return g, sg.discriminator(**same, sn=case.d_sn, attention_loc=1 if case.attention else 0)


@contextmanager
def given_draws(diff_aug: Any, numbers: Tensor) -> Iterator[None]:
    """Lets DiffAugment draw from `numbers` (B, 7), one column a draw, instead of from torch."""
    columns = iter(numbers.unbind(1))

    class Draws:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def rand(self, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
            return next(columns).view(shape).to(dtype)

        def randint(self, low: int, high: int, size: list[int], device: torch.device) -> Tensor:
            return (low + (next(columns) * (high - low)).floor()).long().view(size)

    diff_aug.torch = Draws()
    try:
        yield
    finally:
        diff_aug.torch = torch
    assert next(columns, None) is None, "DiffAugment drew less often than expected"


def update_both(sg: Modules, case: pc.Case, dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    """One D update, then one G update, as StudioGAN's worker.train does them; everything worth comparing, by kind."""
    g, d = build(sg, case)
    g.load_state_dict(pc.fill("G", g.state_dict()))
    d.load_state_dict(pc.fill("D", d.state_dict(), case.logit_shift))
    g.to(dtype).train()
    d.to(dtype).train()
    inputs = pc.make_inputs(case, dtype)
    g_adam, d_adam = pc.adam(g, pc.G_LR), pc.adam(d, pc.D_LR)
    augment, losses = sg.diff_aug.DiffAugment, sg.losses

    g.requires_grad_(False)
    with given_draws(sg.diff_aug, inputs.d_real_numbers):
        real = augment(inputs.real, policy=POLICY)
    fake = g(inputs.d_z, inputs.d_y)
    outputs = {"g_fake": fake}
    with given_draws(sg.diff_aug, inputs.d_fake_numbers):
        fake = augment(fake, policy=POLICY)
    real_logits, fake_logits = d(real, inputs.real_y), d(fake, inputs.d_y)
    outputs |= {"augmented_real": real, "augmented_fake": fake, "real_logits": real_logits, "fake_logits": fake_logits}
    outputs |= pc.running_statistics_of(g)
    d_loss = losses.loss_hinge_dis(real_logits, fake_logits) + lecam_of_040(real_logits, fake_logits)
    d_loss.backward()
    d_gradients = pc.gradients_of(d)
    d_adam.step()

    g.requires_grad_(True)
    d.requires_grad_(False)
    fake = g(inputs.g_z, inputs.g_y)
    with given_draws(sg.diff_aug, inputs.g_fake_numbers):
        fake = augment(fake, policy=POLICY)
    g_loss = losses.loss_hinge_gen(d(fake, inputs.g_y))
    g_loss.backward()
    g_adam.step()
    return {
        "outputs": outputs,
        "losses": {"d_loss": d_loss, "g_loss": g_loss},
        **{"d_gradients": d_gradients, "g_gradients": pc.gradients_of(g)},
        **{"d_after": dict(d.state_dict()), "g_after": dict(g.state_dict())},
    }


def lecam_of_040(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """LeCam as in StudioGAN 0.4.0: scalar averages take the batch in first."""
    ema_real = pc.LECAM_DECAY * pc.LECAM_EMA_REAL + (1 - pc.LECAM_DECAY) * real_logits.mean().item()
    ema_fake = pc.LECAM_DECAY * pc.LECAM_EMA_FAKE + (1 - pc.LECAM_DECAY) * fake_logits.mean().item()
    penalty = (real_logits - ema_fake).relu().pow(2).mean() + (ema_real - fake_logits).relu().pow(2).mean()
    return pc.LECAM_LAMBDA * penalty


def state_keys(sg: Modules) -> dict[str, list[list[Any]]]:
    """Names and shapes of the family's state dicts at 64 channels, in order: plain, and conditional with attention."""
    keys = {}
    with torch.device("meta"):
        for size in (32, 64, 128, 256):
            for full in (False, True):
                case = pc.Case("", size, 64, 1, num_classes=5 if full else 0, attention=full, z_dim=128)
                for letter, network in zip("GD", build(sg, case), strict=True):
                    name = f"{letter}-{size}" + ("-conditional-attention" if full else "")
                    keys[name] = [[key, list(value.shape)] for key, value in network.state_dict().items()]
    return keys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--full", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sg = Modules(arguments.checkout)
    boiled: dict[str, np.ndarray] = {}
    for case in pc.CASES:
        for dtype in (torch.float32, torch.float64):
            result = update_both(sg, case, dtype)
            name = f"{case.name}/{str(dtype).removeprefix('torch.')}"
            boiled |= {f"{name}/{kind}": pc.boil_down(tensors) for kind, tensors in result.items()}
            if arguments.full:
                torch.save(result, arguments.full / f"{name.replace('/', '_')}.pt")
    folder = arguments.full or pc.GOLDEN_NUMBERS.parent
    np.savez_compressed(folder / pc.GOLDEN_NUMBERS.name, **boiled)  # type: ignore[arg-type]
    (folder / pc.GOLDEN_KEYS.name).write_text(json.dumps(state_keys(sg), separators=(",", ":")))


if __name__ == "__main__":
    main()
