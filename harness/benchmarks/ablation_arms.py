"""The arms of an ablation: a config as it is, and with some of its stabilisers switched off or on."""

from collections.abc import Callable
from typing import Any, NamedTuple

from harness.config.experiment import Config
from harness.errors import UserError

WHOLE = "whole"


class Stabiliser(NamedTuple):
    """Whether a config has it, and what switches it off and on."""

    is_on: Callable[[Config], bool]
    off: dict[str, Any]
    on: dict[str, Any]


def _switch(section: str, key: str) -> Stabiliser:
    return Stabiliser(lambda c: getattr(getattr(c, section), key), {section: {key: False}}, {section: {key: True}})


STABILISERS: dict[str, Stabiliser] = {
    "spectral norm of D": _switch("model", "apply_d_sn"),
    "DiffAugment": _switch("augment", "apply_diffaug"),
    "EMA": _switch("model", "apply_g_ema"),
    "LeCam": _switch("loss", "apply_lecam"),
    "gradient penalty": _switch("loss", "apply_gp"),
    "R1": _switch("loss", "apply_r1_reg"),
    "mismatched names": _switch("loss", "apply_mismatch"),
    "similarity loss": _switch("loss", "apply_similarity"),
    "input noise": Stabiliser(
        lambda c: c.augment.d_input_noise > 0, {"augment": {"d_input_noise": 0.0}}, {"augment": {"d_input_noise": 0.1}}
    ),
    "two rates": Stabiliser(lambda c: c.optim.d_lr != c.optim.g_lr, {}, {}),  # off: see arm_changes
    "projection": Stabiliser(
        lambda c: c.model.d_cond_mtd == "PD",
        {"model": {"g_cond_mtd": "concat", "d_cond_mtd": "concat"}, "loss": {"apply_mismatch": False}},
        {"model": {"g_cond_mtd": "cBN", "d_cond_mtd": "PD"}},
    ),
}


def default_arms(config: Config) -> list[str]:
    """The config as it is, and without each stabiliser that it has."""
    return [WHOLE, *(f"without {name}" for name, stabiliser in STABILISERS.items() if stabiliser.is_on(config))]


def arm_changes(config: Config, arm: str) -> dict[str, Any]:
    """Nested keys that make the arm of the config: `whole`, `without A`, `without A + B`, `with A`. UserError for what
    is none, and for what changes nothing."""
    if arm == WHOLE:
        return {}
    word, _, rest = arm.partition(" ")
    changes: dict[str, Any] = {}
    for name in rest.split(" + "):
        stabiliser = STABILISERS.get(name)
        if word not in ("with", "without") or stabiliser is None:
            allowed = f"{WHOLE}, or with or without and any of {', '.join(STABILISERS)} (with + between)"
            raise UserError(f"--arms: found {arm!r}, allowed {allowed}")
        if stabiliser.is_on(config) == (word == "with"):
            state = "has it" if word == "with" else "has none"
            raise UserError(f"--arms: found {arm!r}, and {config.name} {state}, try --arms {WHOLE}")
        one = stabiliser.on if word == "with" else stabiliser.off
        if name == "two rates":
            one = {"optim": {"d_lr": config.optim.g_lr if word == "without" else 2 * config.optim.g_lr}}
        changes = {key: {**changes.get(key, {}), **one.get(key, {})} for key in {*changes, *one}}
    return changes
