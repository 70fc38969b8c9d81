"""Configs, mutations and what must survive a translation: what the tests of both dialects share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from harness.config.experiment import Config, check_config
from harness.config.yaml_files import merge, read_yaml
from harness.errors import UserError
from harness.studiogan.dialects.convert import read_foreign
from tests.harness.tiny_runs import BASE

CONTENT = read_yaml(BASE)


def meaning(config: Config) -> dict[str, Any]:
    """What a translation must keep: every value that computes something, and none that is switched off."""
    model, loss, optim, augment = (getattr(config, s).model_dump() for s in ("model", "loss", "optim", "augment"))
    unused = {"model": ["g_ema_warmup"], "loss": [], "augment": []}
    unused["model"] += [] if config.model.apply_attn else ["attn_g_loc", "attn_d_loc"]
    unused["model"] += [] if config.model.apply_g_ema else ["g_ema_decay", "g_ema_start"]
    unused["loss"] += [] if config.loss.apply_gp else ["gp_lambda"]
    lecam = ["lecam_type", "lecam_lambda", "lecam_ema_decay", "lecam_ema_start_iter"]
    unused["loss"] += [] if config.loss.apply_lecam else lecam
    unused["loss"] += lecam[3:] if config.loss.lecam_type == "gsrgan" and config.loss.apply_lecam else []
    unused["augment"] += [] if config.augment.apply_diffaug else ["diffaug_policy"]
    sections = {"model": model, "loss": loss, "optim": optim, "augment": augment}
    kept = {name: {k: v for k, v in s.items() if k not in unused.get(name, [])} for name, s in sections.items()}
    return {**kept, "img_size": config.data.img_size}


HUGE = 16**5000  # Python refuses to write it in decimals


@st.composite
def any_config(draw: st.DrawFn, lecam_types: tuple[str, ...], adv_losses: tuple[str, ...]) -> Config:
    """Any config that the dialect has words for."""
    conditional, adv_loss = draw(st.booleans()), draw(st.sampled_from(adv_losses))
    init = st.sampled_from(["ortho", "N02", "glorot", "xavier"])
    rate, width = st.floats(1e-6, 0.1), st.integers(8, 512)
    model = {
        "z_dim": draw(width), "g_conv_dim": draw(width), "d_conv_dim": draw(width),
        "g_cond_mtd": "cBN" if conditional else None, "d_cond_mtd": "PD" if conditional else None,
        "apply_g_sn": draw(st.booleans()), "apply_d_sn": draw(st.booleans()), "apply_attn": draw(st.booleans()),
        "attn_g_loc": draw(st.integers(1, 3)), "attn_d_loc": draw(st.integers(1, 3)), "g_init": draw(init),
        "d_init": draw(init), "apply_g_ema": draw(st.booleans()), "g_ema_decay": draw(st.floats(0, 0.99999)),
        "g_ema_start": draw(st.integers(0, 10**6)), "g_ema_warmup": False,
    }  # fmt: skip
    loss = {
        "adv_loss": adv_loss, "apply_gp": adv_loss == "wasserstein" or draw(st.booleans()),
        "gp_lambda": draw(st.floats(1e-3, 1e3)), "apply_lecam": draw(st.booleans()),
        "lecam_type": draw(st.sampled_from(lecam_types)), "lecam_lambda": draw(st.floats(1e-7, 10)),
        "lecam_ema_decay": draw(st.floats(0, 0.999)), "lecam_ema_start_iter": draw(st.integers(1, 10**6)),
    }  # fmt: skip
    optim = {
        "batch_size": draw(st.integers(2, 4096)), "acml_steps": draw(st.integers(1, 9)), "g_lr": draw(rate),
        "d_lr": draw(rate), "beta1": draw(st.sampled_from([0, 0.0, 0.5])), "beta2": draw(st.floats(0, 0.9999)),
        "d_updates_per_step": draw(st.integers(1, 9)), "total_steps": draw(st.integers(1, 10**7)),
    }  # fmt: skip
    augment = {"apply_rflip": draw(st.booleans()), "apply_diffaug": draw(st.booleans())}
    content = {"name": "run", "model": model, "loss": loss, "optim": optim, "augment": augment}
    content["data"] = {"img_size": draw(st.sampled_from([32, 64, 128, 256]))}
    return check_config(merge(CONTENT, content), "test")


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=3) | st.dates()
)
SCALARS |= st.sampled_from([2**80, -(2**80), "N/A", 1e308, float("nan"), float("inf"), "\ud800", "3e-7"])
GARBAGE = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3)
)


def assert_only_user_errors(
    read: Callable[[Any], Config], content: dict[str, Any], data: st.DataObject, garbage: Any, unknown: Any
) -> None:
    """Of garbage alone, in the place of any value of `content`, and under an unknown key."""
    path = data.draw(st.sampled_from(list(leaves(content))))
    for spoiled in (garbage, replaced(content, path, garbage), {**content, unknown: garbage}):
        try:
            read(spoiled)
        except UserError as error:
            assert all(len(line) < 2000 for line in str(error).splitlines())


def not_covered(read: Callable[[Any], Config], content: Any) -> str:
    """What the one fault in the refusal says that we lack."""
    with pytest.raises(UserError) as caught:
        read(content)
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value).partition("not covered: ")[2]


def read_published(
    files: list[Path], values_there_and_back: Callable[[Path, Config], tuple[dict, dict]], transport: set[str]
) -> set[str]:
    """Names of those that come back as they were, but for how the pictures come; the others are refused by name."""
    translated = set()
    for file in files:
        try:
            config = read_foreign(file)
        except UserError as error:
            assert all("; not covered: " in line for line in str(error).splitlines()[1:]), error
            continue
        theirs, again = values_there_and_back(file, config)
        different = {key for key in theirs.keys() | again.keys() if theirs.get(key) != again.get(key)}
        assert different <= transport, (file, different)
        translated.add(f"{file.parent.name}/{file.stem}")
    return translated


def leaves(content: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield prefix + (key,)
        if isinstance(value, dict):
            yield from leaves(value, prefix + (key,))


def replaced(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with `value` at the path."""
    key, *rest = path
    return {**content, key: replaced(content[key], tuple(rest), value) if rest else value}


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
