"""What the parity check is run on: small networks, weights and inputs that are formulas of names and indices, and how
a tensor is boiled down to a few numbers.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN_NUMBERS = Path(__file__).with_name("parity.npz")
GOLDEN_KEYS = Path(__file__).with_name("state_keys.json")
PROBES = 3

# One update of each network, as in StudioGAN's worker.train with LeCam as in 0.4.0.
G_LR, D_LR, BETAS, EPS = 2e-4, 4e-4, (0.0, 0.9), 1e-6
LECAM_LAMBDA, LECAM_DECAY, LECAM_START, STEP = 0.3, 0.99, 1000, 2000
LECAM_EMA_REAL, LECAM_EMA_FAKE = 0.35, -0.25  # anchors before the update


@dataclass(frozen=True)
class Case:
    name: str
    size: int
    width: int  # g_conv_dim and d_conv_dim
    batch: int
    num_classes: int = 0  # 0 = unconditional
    g_sn: bool = False
    d_sn: bool = True
    attention: bool = False
    z_dim: int = 12
    logit_shift: float = 0.0  # puts the logits on both sides of the hinge


CASES = (
    Case("32", 32, 6, 5, logit_shift=20.5),
    Case("64-conditional", 64, 4, 4, num_classes=3, logit_shift=0.5),
    Case("32-conditional-attention-gsn", 32, 8, 4, num_classes=2, g_sn=True, attention=True, logit_shift=0.5),
    Case("32-no-spectral-norm", 32, 4, 4, d_sn=False, logit_shift=-75.0),
    Case("128", 128, 3, 2, logit_shift=-3.0),
    Case("256", 256, 4, 2),
)


def uniforms(name: str, count: int) -> np.ndarray:
    """float64 (count,) in [0, 1): splitmix64 of (crc32 of the name, index). The same on every machine."""
    with np.errstate(over="ignore"):
        x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64(zlib.crc32(name.encode())) << np.uint64(29)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def spread(name: str, *shape: int) -> Tensor:
    """float64, mean 0, standard deviation 1."""
    return torch.from_numpy((uniforms(name, math.prod(shape)) * 2 - 1) * 3**0.5).view(shape)


def fill(prefix: str, state: Mapping[str, Tensor], logit_shift: float = 0.0) -> dict[str, Tensor]:
    """A state dict of the same names, shapes and types, by formula. Outputs come out of order 1, tanh unsaturated."""
    filled: dict[str, Tensor] = {}
    for key, like in state.items():
        value = spread(f"{prefix}.{key}", *like.shape) if like.dim() else torch.tensor(7.0)
        leaf = key.rsplit(".", 1)[-1]
        if leaf in ("weight_u", "weight_v"):
            value = value / value.norm()
        elif leaf == "running_var":
            value = 1 + 0.3 * value
        elif leaf == "sigma":
            value = 0.7 + 0 * value
        elif key.endswith(("embed0.weight", "embed0.weight_orig", "embed1.weight", "embed1.weight_orig")):
            value = 0.3 * value
        elif like.dim() >= 2:
            value = value * (1.4 / like[0].numel()) ** 0.5
        elif leaf == "weight":
            value = 1 + 0.2 * value
        elif like.dim() == 1:
            value = 0.1 * value
        if key == "linear1.bias":
            value = value + logit_shift
        filled[key] = value.to(like.dtype)
    _settle_power_iteration(filled)
    return filled


def _settle_power_iteration(state: dict[str, Tensor]) -> None:
    """Some rounds of power iteration, so that sigma is near the largest singular value and logits are of order 1."""
    for key in [key for key in state if key.endswith("weight_u")]:
        stem = key.removesuffix("weight_u")
        rows = state[stem + "weight_orig"].double().flatten(1)
        u = state[key].double()
        for _ in range(4):
            v = torch.nn.functional.normalize(rows.t() @ u, dim=0)
            u = torch.nn.functional.normalize(rows @ v, dim=0)
        state[stem + "weight_u"], state[stem + "weight_v"] = u.to(state[key].dtype), v.to(state[key].dtype)


@dataclass(frozen=True)
class Inputs:
    """Everything that an update of each network takes from outside; of a training, by D's and by G's batch.

    `real` (..., B, 3, H, W) in [-1, 1], `real_y` int64 (..., B); latents and labels `d_z` (..., B, z_dim),
    `d_y` (..., B), `g_z`, `g_y`; numbers that DiffAugment's draws are made of, float64 (..., B, 7) in [0, 1).
    """

    real: Tensor
    real_y: Tensor
    d_z: Tensor
    d_y: Tensor
    g_z: Tensor
    g_y: Tensor
    d_real_numbers: Tensor
    d_fake_numbers: Tensor
    g_fake_numbers: Tensor

    def reversed_in_batch(self) -> "Inputs":
        """The same examples in every batch of a training, in the opposite order: another order of summation."""
        return replace(self, **{name: values.flip(1) for name, values in vars(self).items()})


def make_inputs(
    case: Any, dtype: torch.dtype, size: int, d_calls: tuple[int, ...] = (), g_calls: tuple[int, ...] = ()
) -> Inputs:
    """Inputs by formula: the same on every machine. `d_calls`, `g_calls`: the dimensions before that of the batch."""
    name, d, g = case.name, (*d_calls, case.batch), (*g_calls, case.batch)

    def numbers(purpose: str, *shape: int) -> Tensor:
        return torch.from_numpy(uniforms(f"{name}.{purpose}", math.prod(shape))).view(shape)

    def labels(purpose: str, *shape: int) -> Tensor:
        return (numbers(purpose, *shape) * max(1, case.num_classes)).long()

    return Inputs(
        real=torch.tanh(spread(f"{name}.real", *d, 3, size, size)).to(dtype),
        real_y=labels("real_y", *d),
        d_z=spread(f"{name}.d_z", *d, case.z_dim).to(dtype),
        d_y=labels("d_y", *d),
        g_z=spread(f"{name}.g_z", *g, case.z_dim).to(dtype),
        g_y=labels("g_y", *g),
        d_real_numbers=numbers("d_real", *d, 7),
        d_fake_numbers=numbers("d_fake", *d, 7),
        g_fake_numbers=numbers("g_fake", *g, 7),
    )


def update_both(
    case: Case,
    dtype: torch.dtype,
    networks: tuple[torch.nn.Module, torch.nn.Module],
    augment: Callable[[Tensor, Tensor], Tensor],
    loss_of_d: Callable[[Tensor, Tensor], Tensor],
    loss_of_g: Callable[[Tensor], Tensor],
) -> dict[str, dict[str, Tensor]]:
    """One D update, then one G update, as StudioGAN's worker.train does them; everything worth comparing, by kind.

    Args:
        networks: G and D; their weights are those of the case.
        augment: DiffAugment of pictures, made of these numbers (B, 7).
        loss_of_d, loss_of_g: of real and drawn pictures' logits, of drawn ones'.
    """
    g, d = networks
    g.load_state_dict(fill("G", g.state_dict()))
    d.load_state_dict(fill("D", d.state_dict(), case.logit_shift))
    for network in networks:
        network.to(dtype).train()
    inputs = make_inputs(case, dtype, case.size)
    g_adam, d_adam = (torch.optim.Adam(n.parameters(), lr, BETAS, EPS) for n, lr in ((g, G_LR), (d, D_LR)))

    g.requires_grad_(False)
    outputs = {"g_fake": g(inputs.d_z, inputs.d_y)}
    real = outputs["augmented_real"] = augment(inputs.real, inputs.d_real_numbers)
    fake = outputs["augmented_fake"] = augment(outputs["g_fake"], inputs.d_fake_numbers)
    outputs |= {"real_logits": d(real, inputs.real_y), "fake_logits": d(fake, inputs.d_y)}
    outputs |= running_statistics_of(g)
    d_loss = loss_of_d(outputs["real_logits"], outputs["fake_logits"])
    d_loss.backward()
    d_gradients = gradients_of(d)
    d_adam.step()

    g.requires_grad_(True)
    d.requires_grad_(False)
    g_loss = loss_of_g(d(augment(g(inputs.g_z, inputs.g_y), inputs.g_fake_numbers), inputs.g_y))
    g_loss.backward()
    g_adam.step()
    return {
        "outputs": outputs,
        "losses": {"d_loss": d_loss, "g_loss": g_loss},
        **{"d_gradients": d_gradients, "g_gradients": gradients_of(g)},
        **{"d_after": dict(d.state_dict()), "g_after": dict(g.state_dict())},
    }


def gradients_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def running_statistics_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items() if "running_" in key}


def read_golden(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return dict(stored)


def boil_down(tensors: Mapping[str, Tensor]) -> np.ndarray:
    """float64 (tensors, 1 + PROBES): each tensor's norm, and its products with fixed vectors of random numbers.

    The products of a difference with such vectors are, on average, as large as the norm of that difference.
    """
    rows = []
    for name, tensor in tensors.items():
        flat = tensor.detach().double().flatten().cpu()
        rows.append([float(flat.norm()), *(spread(f"probe.{name}", PROBES, flat.numel()) @ flat).tolist()])
    return np.array(rows)


def boiled_difference(ours: np.ndarray, golden: np.ndarray, exact_norms: np.ndarray) -> np.ndarray:
    """(tensors,): estimated norm of each tensor's difference, relative as `scale_of` says."""
    return np.sqrt(((ours - golden)[:, 1:] ** 2).mean(axis=1)) / scale_of(golden[:, 0], exact_norms)


def scale_of(norms: np.ndarray, exact_norms: np.ndarray) -> np.ndarray:
    """What differences are relative to: each tensor's norm; the largest norm of the group where the tensor is really 0.

    A bias right before a batch norm has gradient 0, and what either side computes for it is rounding. `exact_norms`,
    those of the float64 run, show which these are.
    """
    return np.where(exact_norms > 1e-9 * exact_norms.max(), norms, norms.max())
