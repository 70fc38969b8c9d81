"""What the parity check is run on: small networks, weights and inputs that are formulas of names and indices, and how
a tensor is boiled down to a few numbers.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    flat = (uniforms(name, int(np.prod(shape))) * 2 - 1) * 3**0.5
    return torch.from_numpy(flat).view(shape)


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
    """Everything random in one update of each network. Draws of DiffAugment: numbers float64 (B, 7) in [0, 1)."""

    real: Tensor
    real_y: Tensor
    d_z: Tensor
    d_y: Tensor
    g_z: Tensor
    g_y: Tensor
    d_real_numbers: Tensor
    d_fake_numbers: Tensor
    g_fake_numbers: Tensor


def make_inputs(case: Case, dtype: torch.dtype) -> Inputs:
    batch, name = case.batch, case.name

    def numbers(purpose: str) -> Tensor:
        return torch.from_numpy(uniforms(f"{name}.{purpose}", batch * 7)).view(batch, 7)

    def labels(purpose: str) -> Tensor:
        return (torch.from_numpy(uniforms(f"{name}.{purpose}", batch)) * max(1, case.num_classes)).long()

    return Inputs(
        real=torch.tanh(spread(f"{name}.real", batch, 3, case.size, case.size)).to(dtype),
        real_y=labels("real_y"),
        d_z=spread(f"{name}.d_z", batch, case.z_dim).to(dtype),
        d_y=labels("d_y"),
        g_z=spread(f"{name}.g_z", batch, case.z_dim).to(dtype),
        g_y=labels("g_y"),
        d_real_numbers=numbers("d_real"),
        d_fake_numbers=numbers("d_fake"),
        g_fake_numbers=numbers("g_fake"),
    )


def adam(network: torch.nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr, BETAS, EPS)


def gradients_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def running_statistics_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items() if "running_" in key}


def boil_down(tensors: Mapping[str, Tensor]) -> np.ndarray:
    """float64 (tensors, 1 + PROBES): each tensor's norm, and its products with fixed vectors of random numbers.

    The products of a difference with such vectors are, on average, as large as the norm of that difference.
    """
    rows = []
    for name, tensor in tensors.items():
        flat = tensor.detach().double().flatten().cpu()
        probes = spread(f"probe.{name}", PROBES, flat.numel())
        rows.append([float(flat.norm()), *(probes @ flat).tolist()])
    return np.array(rows)


def boiled_difference(ours: np.ndarray, golden: np.ndarray, exact_norms: np.ndarray) -> np.ndarray:
    """(tensors,): estimated norm of each tensor's difference, relative as `scale_of` says."""
    difference = np.sqrt(((ours - golden)[:, 1:] ** 2).mean(axis=1))
    return difference / scale_of(golden[:, 0], exact_norms)


def scale_of(norms: np.ndarray, exact_norms: np.ndarray) -> np.ndarray:
    """What differences are relative to: each tensor's norm; the largest norm of the group where the tensor is really 0.

    A bias right before a batch norm has gradient 0, and what either side computes for it is rounding. `exact_norms`,
    those of the float64 run, show which these are.
    """
    return np.where(exact_norms > 1e-9 * exact_norms.max(), norms, norms.max())
