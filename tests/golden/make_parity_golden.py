"""Makes the golden numbers of the parity check by running the real StudioGAN 0.2.0.

From the repository's root, with a checkout as `make studiogan` leaves it:
    python -m tests.golden.make_parity_golden CHECKOUT [--full FOLDER]
Without --full it writes parity.npz and state_keys.json beside this file; with it, whole tensors into FOLDER.
"""

import argparse
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from harness.studiogan.reference_modules import Modules
from tests.golden import parity_case as pc
from tests.golden.studiogan_loop import GivenStreams


def build(sg: Modules, case: pc.Case) -> tuple[torch.nn.Module, torch.nn.Module]:
    same = {"size": case.size, "width": case.width, "num_classes": case.num_classes}
    g = sg.generator(**same, z_dim=case.z_dim, sn=case.g_sn, attention_loc=2 if case.attention else 0)
    return g, sg.discriminator(**same, sn=case.d_sn, attention_loc=1 if case.attention else 0)


def update_both(sg: Modules, case: pc.Case, dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    def augment(x: Tensor, numbers: Tensor) -> Tensor:
        """DiffAugment, which draws from the numbers (B, 7), one column a draw, instead of from torch."""
        draws = GivenStreams([numbers])
        with patch.object(sg.diff_aug, "torch", draws):
            augmented = sg.diff_aug.DiffAugment(x, policy="color,translation,cutout")
        assert not draws.left, "DiffAugment drew less often than expected"
        return augmented

    def loss_of_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return sg.losses.loss_hinge_dis(real_logits, fake_logits) + lecam_of_040(real_logits, fake_logits)

    return pc.update_both(case, dtype, build(sg, case), augment, loss_of_d, sg.losses.loss_hinge_gen)


def lecam_of_040(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """LeCam as in StudioGAN 0.4.0: scalar averages take the batch in first."""
    ema_real = pc.LECAM_DECAY * pc.LECAM_EMA_REAL + (1 - pc.LECAM_DECAY) * real_logits.mean().item()
    ema_fake = pc.LECAM_DECAY * pc.LECAM_EMA_FAKE + (1 - pc.LECAM_DECAY) * fake_logits.mean().item()
    return pc.LECAM_LAMBDA * (
        (real_logits - ema_fake).relu().pow(2).mean() + (ema_real - fake_logits).relu().pow(2).mean()
    )


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
