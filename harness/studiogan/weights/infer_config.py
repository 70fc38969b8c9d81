"""The config of StudioGAN's weights, from their shapes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.config.checks import BASE_PATH
from harness.config.experiment import Config, check_config, config_to_dict, read_yaml
from harness.config.yaml_files import merge
from harness.errors import UserError
from harness.networks.resnet import D_CHANNELS, G_CHANNELS
from harness.studiogan.weights.files import ForeignCheckpoint
from harness.studiogan.weights.names import adam_group, is_adam, to_our_state

_SECTIONS = ("data", "model", "loss", "optim", "augment")  # whose defaults are reported


def infer_config(foreign: ForeignCheckpoint, name: str) -> tuple[Config, list[str]]:
    """(config, keys taken from base.yaml). UserError for weights of another architecture."""
    size = 4 * 2 ** _blocks(foreign.state_dict("G"))[0]  # every block of G doubles, from 4
    found: dict[str, Any] = {
        "name": name, "data": {"img_size": size}, "model": _model_of(foreign), "optim": _optim_of(foreign)
    }  # fmt: skip
    seed = foreign.fact("seed")
    if isinstance(seed, int) and 0 <= seed < 2**32:
        found["seed"] = seed
    config = check_config(merge(read_yaml(BASE_PATH), found), str(foreign.files["G"]))
    sections = config_to_dict(config)
    rest = [f"{s}.{key}" for s in _SECTIONS for key in sections[s] if key not in found.get(s, {})]
    return config, rest


def _model_of(foreign: ForeignCheckpoint) -> dict[str, Any]:
    g, origin = to_our_state(foreign.state_dict("G")), foreign.files["G"]
    g_blocks, g_attention = _blocks(g)
    if g_blocks not in G_CHANNELS:
        raise _unknown(foreign, "G", f"{g_blocks} residual blocks")
    conditional = any(".embed0." in key for key in g)
    model: dict[str, Any] = {
        "backbone": "resnet",
        "z_dim": _weight(g, "linear0", origin).shape[1],
        "g_conv_dim": _weight(g, "conv2d5", origin).shape[1] // G_CHANNELS[g_blocks][-1],
        "apply_g_sn": "linear0.weight_orig" in g,
        "g_cond_mtd": "cBN" if conditional else None,
        "d_cond_mtd": "PD" if conditional else None,  # both networks have classes, or none
        "apply_attn": g_attention is not None,
        "apply_g_ema": "G_ema" in foreign.contents,
    }
    if g_attention is not None:
        model["attn_g_loc"] = g_attention
    if "D" in foreign.contents:
        d = foreign.state_dict("D")
        d_blocks, d_attention = _blocks(d)
        if d_blocks != len(D_CHANNELS[g_blocks]):
            raise _unknown(foreign, "D", f"{d_blocks} residual blocks beside a generator of {g_blocks}")
        model["d_conv_dim"] = _weight(d, "blocks.0.0.conv2d1", foreign.files["D"]).shape[0] // D_CHANNELS[g_blocks][0]
        model["apply_d_sn"] = "linear1.weight_orig" in d
        if d_attention is not None:
            model["attn_d_loc"] = d_attention
    return model


def _blocks(state: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """Number of residual blocks, and after which of them the first self-attention follows (None without one)."""
    places = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.0\.conv2d1\.bias$", key))]
    attention = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.0\.sigma$", key))]
    return len(places), min(attention) if attention else None


def _weight(state: Mapping[str, Tensor], layer: str, origin: Path) -> Tensor:
    """The layer's weight, with spectral norm or without."""
    for key in (f"{layer}.weight", f"{layer}.weight_orig"):
        if key in state and state[key].dim() >= 2:
            return state[key]
    raise UserError(f"{origin}: found no {layer}.weight, allowed StudioGAN's resnet networks, try another file")


def _optim_of(foreign: ForeignCheckpoint) -> dict[str, Any]:
    """Rates of the optimisers; total_steps is the checkpoint's step."""
    found: dict[str, Any] = {"total_steps": max(1, foreign.step)}
    for letter, rate in (("D", "d_lr"), ("G", "g_lr")):
        optimizer = foreign.contents.get(letter, {}).get("optimizer")
        if optimizer and optimizer["param_groups"] and is_adam(optimizer):
            group = adam_group(optimizer["param_groups"][0], 0)
            beta1, beta2 = group["betas"]
            found |= {rate: group["lr"], "beta1": beta1, "beta2": beta2, "eps": group["eps"]}
    return found


def _unknown(foreign: ForeignCheckpoint, letter: str, found: str) -> UserError:
    return UserError(
        f"{foreign.files[letter]}: found {found}, allowed the resnet networks of StudioGAN for 32 to 256 px, "
        "try a file of such a run"
    )
