"""Conversion between StudioGAN's state dicts and optimiser states and ours.

0.2.0: state dicts are equal in names, shapes and order. 0.4.0: the conditional batch norm's gain and bias are linear
layers on one-hot labels, our embeddings transposed (column y is our row y, and a spectral norm's two vectors are
swapped); in a D with batch norm, bn0 has another position.

An optimiser's state numbers the parameters of its network. The order of the state dict saved with it gives their names,
which makes the conversion independent of the other side's order.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError

BATCH_NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_BUFFERS = ("weight_u", "weight_v", *BATCH_NORM_STATISTICS)
_THEIRS = re.compile(r"(blocks\.\d+\.0\.bn[12])\.(gain|bias)\.(weight(?:_orig|_u|_v)?)")
_OURS = re.compile(r"(blocks\.\d+\.0\.bn[12])\.(embed0|embed1)\.(weight(?:_orig|_u|_v)?)")
_EMBEDDING_OF = {"gain": "embed0", "bias": "embed1"}
_LINEAR_OF = {ours: theirs for theirs, ours in _EMBEDDING_OF.items()}
_OTHER_VECTOR = {"weight_u": "weight_v", "weight_v": "weight_u"}
_ADAM_KEYS = {"step", "exp_avg", "exp_avg_sq"}
_RATES = {"lr", "betas", "eps"}


def leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def parameter_names(state: Iterable[str]) -> list[str]:
    """Names of a state dict that are parameters, in the order in which its network has them."""
    return [name for name in state if leaf(name) not in _BUFFERS]


def to_our_name(name: str) -> str:
    found = _THEIRS.fullmatch(name)
    return f"{found[1]}.{_EMBEDDING_OF[found[2]]}.{_OTHER_VECTOR.get(found[3], found[3])}" if found else name


def to_name_040(name: str) -> str:
    found = _OURS.fullmatch(name)
    return f"{found[1]}.{_LINEAR_OF[found[2]]}.{_OTHER_VECTOR.get(found[3], found[3])}" if found else name


def to_our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of either version with our names and shapes; unknown names are kept."""
    return {to_our_name(k): v.t() if _THEIRS.fullmatch(k) and v.dim() == 2 else v for k, v in state.items()}


def to_foreign_state(state: Mapping[str, Tensor], version: str) -> dict[str, Tensor]:
    """Our state dict with StudioGAN's names, shapes and order."""
    if version == "0.2.0":
        return dict(state)
    theirs = {to_name_040(k): v.t() if _OURS.fullmatch(k) and v.dim() == 2 else v for k, v in state.items()}
    return {name: theirs[name] for name in _order_040(list(theirs))}


def _order_040(names: list[str]) -> list[str]:
    """0.4.0 creates a discriminator block's bn0 right after its conv2d0, except in the first block."""
    shortcuts = [name for name in names if re.match(r"blocks\.[1-9]\d*\.0\.bn0\.", name)]
    ordered = []
    for name in [name for name in names if name not in shortcuts]:
        block, _, layer = name.partition(".0.")
        if layer.startswith("conv2d1."):
            ordered += [shortcut for shortcut in shortcuts if shortcut.startswith(f"{block}.0.")]
            shortcuts = [shortcut for shortcut in shortcuts if shortcut not in ordered]
        ordered.append(name)
    assert sorted(ordered) == sorted(names)
    return ordered


# ---- weights ------------------------------------------------------------------------------------------------------


def fitted_state(state: Mapping[str, Tensor], network: nn.Module, origin: Path) -> tuple[dict[str, Tensor], bool]:
    """StudioGAN's weights as ours, in `network`'s order, and whether they lack batch-norm statistics.

    Args:
        network: built from the config, on the meta device.

    Raises:
        UserError: with the first mismatch.
    """
    found, like = to_our_state(state), network.state_dict()
    statistics = {name for name in like if leaf(name) in BATCH_NORM_STATISTICS}
    # The first seed's fork has track_running_stats=False: no statistics at all.
    untracked = bool(statistics) and not statistics & set(found)
    if untracked:
        start = {name: int(leaf(name) == "running_var") for name in statistics}
        found |= {name: torch.full(like[name].shape, start[name], dtype=like[name].dtype) for name in statistics}
    if foreign := [name for name in found if name not in like]:
        raise UserError(
            f"{origin}: has {_listed(foreign)}{_feature_text(foreign[0])}, which the config's model does not have, try "
            "the config it was trained with"
        )
    if missing := [name for name in like if name not in found]:
        raise UserError(
            f"{origin}: lacks {_listed(missing)}, which the config's model has, try the config it was trained with"
        )
    for name, expected in like.items():
        if found[name].shape != expected.shape or found[name].dtype != expected.dtype:
            raise UserError(
                f"{origin}: {name}: found {_shape_text(found[name])}, allowed {_shape_text(expected)} as the config's "
                "model says, try the config it was trained with"
            )
    return {name: found[name].contiguous() for name in like}, untracked


def _feature_text(name: str) -> str:
    """The unsupported feature of StudioGAN that a parameter belongs to, by the first part of its name."""
    features = {
        "linear2": "a classifier or contrastive head", "linear4": "ACGAN's classifier", "linear_mi": "TAC-GAN's head",
        "embedding_mi": "TAC-GAN's head", "shared": "BigGAN's shared embedding",
    }  # fmt: skip
    first = name.split(".")[0]
    feature = "InfoGAN's codes" if first.startswith("info_") else features.get(first)
    return f" ({feature})" if feature else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _shape_text(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"


# ---- the optimisers' states ---------------------------------------------------------------------------------------


def to_our_optimizer(
    optimizer: dict[str, Any] | None, foreign_names: list[str], network: nn.Module, origin: Path
) -> dict[str, Any]:
    """StudioGAN's Adam state for our optimiser of `network` (meta device, in the memory layout of training).

    `foreign_names`: the parameters in the order of the file. Without `optimizer` the state has no moments.
    """
    parameters = dict(network.named_parameters())
    group, moments = adam_group(None, len(parameters)), {}
    if optimizer is not None:
        group, moments = _read_optimizer(optimizer, foreign_names, origin)
        moments = {to_our_name(name): _transposed(name, entry) for name, entry in moments.items()}
    state = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        if name not in moments:  # frozen from the start
            continue
        step, *averages = moments[name]
        if any(average.shape != parameter.shape for average in averages):
            raise UserError(f"{origin}: its optimiser's state does not fit {name}, try another copy of the file")
        # In the parameter's memory layout, as Adam creates them: a fused Adam pairs the elements by address.
        laid_out = [torch.empty_strided(parameter.size(), parameter.stride()).copy_(a) for a in averages]
        state[index] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (step, *laid_out), strict=True))
    return {"state": state, "param_groups": [group]}


def _transposed(foreign_name: str, entry: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    step, exp_avg, exp_avg_sq = entry
    if _THEIRS.fullmatch(foreign_name) and exp_avg.dim() == 2:
        return step, exp_avg.t(), exp_avg_sq.t()
    return entry


def is_adam(optimizer: dict[str, Any]) -> bool:
    """Whether its parameter groups and its state, if any, are Adam's."""
    return all(_RATES <= set(group) for group in optimizer["param_groups"]) and all(
        not entry or set(entry) == _ADAM_KEYS for entry in optimizer["state"].values()
    )


def _read_optimizer(
    optimizer: dict[str, Any], names: list[str], origin: Path
) -> tuple[dict[str, Any], dict[str, tuple[Tensor, Tensor, Tensor]]]:
    """(parameter group, {parameter: (step, exp_avg, exp_avg_sq)}), with names from its state dict."""
    groups, states = optimizer["param_groups"], optimizer["state"]
    if len(groups) != 1 or len(groups[0]["params"]) != len(names):
        raise UserError(
            f"{origin}: its optimiser has other parameters than its network, allowed one group with all "
            f"{len(names)}, try another copy of the file"
        )
    if not is_adam(optimizer):
        found = sorted({str(key) for entry in states.values() for key in entry} or map(str, groups[0]))
        raise UserError(
            f"{origin}: found an optimiser that keeps {', '.join(found)}, allowed Adam (step, exp_avg, exp_avg_sq), "
            "try a run that was trained with Adam"
        )
    try:
        moments = {}
        for index, name in zip(groups[0]["params"], names, strict=True):
            if entry := states.get(index):
                averages = [torch.as_tensor(entry[key]) for key in ("exp_avg", "exp_avg_sq")]
                moments[name] = (torch.tensor(float(entry["step"])), *averages)
        return adam_group(groups[0], len(names)), moments
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{origin}: its optimiser holds non-numeric values ({error}), try another copy") from error


def adam_group(like: dict[str, Any] | None, count: int) -> dict[str, Any]:
    """The parameter group of a plain Adam (not fused, not capturable) with the rates of `like`; loads on both sides."""
    group = torch.optim.Adam([torch.zeros(1)]).state_dict()["param_groups"][0]
    if like is not None:
        beta1, beta2 = like["betas"]
        group |= {"lr": float(like["lr"]), "betas": (float(beta1), float(beta2)), "eps": float(like["eps"])}
    return {**group, "params": list(range(count))}


def to_foreign_optimizer(optimizer: dict[str, Any], network: nn.Module, version: str) -> dict[str, Any]:
    """Our Adam's state as StudioGAN's: in its order, contiguous, on the CPU."""
    ours = {name: index for index, name in enumerate(dict(network.named_parameters()))}
    order = parameter_names(to_foreign_state(network.state_dict(), version))
    assert {to_our_name(name) for name in order} == set(ours)
    state = {}
    for position, foreign_name in enumerate(order):
        entry = optimizer["state"].get(ours[to_our_name(foreign_name)])
        if not entry:
            continue
        turned = _transposed(foreign_name, (entry["step"], entry["exp_avg"], entry["exp_avg_sq"]))
        step, exp_avg, exp_avg_sq = (tensor.detach().cpu().contiguous() for tensor in turned)
        state[position] = {"step": step.float(), "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    return {"state": state, "param_groups": [adam_group(optimizer["param_groups"][0], len(order))]}
