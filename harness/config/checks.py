"""All problems of an experiment at once, each as `key: found X, allowed Y, try Z`.

pydantic finds those of single keys. To check combinations too, invalid values are then replaced by base.yaml's, and
combinations with a replaced key are not reported.
"""

import difflib
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.schema import Config
from harness.config.validation import details_to_problems, dotted_key, format_value
from harness.config.yaml_files import merge, read_yaml
from harness.errors import UserError

BASE_PATH = Path(__file__).resolve().parents[2] / "configs" / "base.yaml"
BLOCKS_OF_HEIGHT = {32: 3, 64: 4, 128: 5, 256: 6}  # of G; the ResNet's D has one more
SUBPIXEL_D_BLOCKS = {32: 3, 64: 4, 128: 4, 256: 4}
FIXED_IN_FINETUNE = ("name", "seed", "engine", "model", "finetune")
# The values allowed with a sub-pixel backbone (it has no batch norm) and with an encoder trained beside the generator.
WITH_SUBPIXEL: dict[str, tuple[Any, ...]] = {
    "model.apply_attn": (False,),
    "model.g_cond_mtd": ("concat", None),
    "optim.z_schedule": (None,),
}
WITH_RECONSTRUCTION: dict[str, tuple[Any, ...]] = {
    "engine": ("native",),
    "train.numerics": ("fast",),
    "optim.d_updates_per_step": (1,),
    "optim.z_schedule": (None,),
    "loss.adv_loss": ("hinge",),
    "loss.apply_gp": (False,),
    "loss.apply_r1_reg": (False,),
    "loss.apply_mismatch": (False,),
    "loss.apply_similarity": (False,),
    "model.apply_d_sn": (True,),
}
MIN_ATTENTION_CHANNELS = 8  # the attention block uses an eighth of them
ALLOWED = {
    "data.img_size": "a height of 32, 64, 128 or 256, or [height, width]",
    "augment.diffaug_policy": "a list of color, translation, cutout",
    "finetune.override": "sections with keys, as in base.yaml",
    "encoder.head_dims": "a list of up to 4 widths",
    "optim.z_schedule": "a list of [step or epoch, components], or null",
    "blend.style": "0 to 1, or null",
    "string_pattern_mismatch": "letters, digits, '.', '_', '-', at most 64, a letter or digit first",
    "string_type": "text (in quotes when it looks like a number)",
    "model_type": "keys below it",
    "finite_number": "a finite number",
    "extra_forbidden": "those of configs/base.yaml",
}
EXAMPLES = {"name": "my-run", "finetune.from_run": "cars128", "data.src": "path/to/pictures", "finetune.override": "{}"}
Problem = tuple[tuple[str, ...], str]  # the keys involved, and the text
Rule = tuple[str, str, bool, str]  # the key, other keys involved, whether it is broken, and the text after `key: `


def find_problems(content: dict[str, Any]) -> tuple[Config | None, list[str]]:
    """(the config, []) or (None, all problems) of nested dicts."""
    config, problems, replaced = _validate(content)
    texts = [text for _, text in problems]
    if config is None:
        return None, texts
    texts += [text for keys, text in cross_problems(config) if not replaced.intersection(keys)]
    texts += [f"finetune.override.{text}" for text in _override_problems(config, replaced)]
    return (None if texts else config), texts


def _validate(content: dict[str, Any]) -> tuple[Config | None, list[Problem], set[str]]:
    """(config, problems of single keys, replaced keys); the config is None if base.yaml's values do not help."""
    try:
        return Config.model_validate(content), [], set()
    except ValidationError as error:
        details = error.errors()
    problems, fixed, replaced = _single_problems(details), content, set()
    try:
        base = {**_base(), "name": "base"}
        for detail in details:
            path = _key_path(detail)
            fixed = _replace(fixed, path, base)
            key = ".".join(path)
            replaced |= {known for known in all_keys() if known == key or known.startswith(key + ".")}
        return Config.model_validate(fixed), problems, replaced
    except (UserError, ValidationError):  # base.yaml is missing or changed: report the single problems at least
        return None, problems, set()


def _key_path(detail: Any) -> list[str]:
    """Section and key of a problem, without what pydantic adds for parts of a value."""
    parts = [str(part) for part in detail["loc"]]
    known = set(all_keys())
    while len(parts) > 1 and detail["type"] != "extra_forbidden" and ".".join(parts) not in known:
        parts.pop()
    return parts


def _replace(content: dict[str, Any], path: list[str], base: Any) -> dict[str, Any]:
    """A copy with base's value at the path; without the key if base lacks it."""
    key, rest = path[0], path[1:]
    replaced = dict(content)
    if rest and isinstance(replaced.get(key), dict):
        replaced[key] = _replace(replaced[key], rest, base.get(key, {}))
    elif key in base:
        replaced[key] = base[key]
    else:
        replaced.pop(key, None)
    return replaced


def _single_problems(details: list[Any]) -> list[Problem]:
    missing, others = [], []
    for detail in details:
        is_key = detail["type"] == "missing" and len(_key_path(detail)) == len(detail["loc"])
        (missing if is_key else others).append(detail)
    problems = details_to_problems(others, ALLOWED, lambda detail: ".".join(_key_path(detail)), _example)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        names = ", ".join(dotted_key(detail) for detail in missing[:3])
        text = f"extends: found no {names}{more}, allowed a file that has them, try base.yaml"
        problems = {"extends": text, **problems}
    return [((key,), text) for key, text in problems.items()]


def _example(key: str, detail: Any) -> str:
    """What to try: for an unknown key a similar one, otherwise base.yaml's value."""
    if detail["type"] == "extra_forbidden":
        leaf = key.rpartition(".")[2]
        if same := [known for known in all_keys() if known.rpartition(".")[2] == leaf]:
            return " or ".join(same)
        leaves = {known.rpartition(".")[2]: known for known in all_keys()}
        near = difflib.get_close_matches(key, all_keys(), 1, 0.75)
        near += [leaves[name] for name in difflib.get_close_matches(leaf, leaves, 1, 0.7)]
        return (near or ["to leave it out"])[0]
    value: Any = _base() if BASE_PATH.is_file() else {}
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    fallback = "what configs/base.yaml has" if value is None or isinstance(value, dict) else format_value(value)
    return EXAMPLES.get(key) or fallback


@cache
def _base() -> dict[str, Any]:
    return read_yaml(BASE_PATH)


@cache
def all_keys() -> tuple[str, ...]:
    """Every dotted key of a config, sections included."""
    return tuple(_keys_of(Config, ""))


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield prefix + key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys_of(field.annotation, f"{prefix}{key}.")


# ---- combinations of keys ----


def cross_problems(config: Config) -> list[Problem]:
    """Valid values that do not fit together."""
    rules = [*_data_rules(config), *_model_rules(config), *_training_rules(config)]
    return [
        (tuple(re.findall(r"[\w.]+", f"{key} {others}")), f"{key}: {text}") for key, others, bad, text in rules if bad
    ]


def _data_rules(config: Config) -> list[Rule]:
    data, clean, (height, width) = config.data, config.clean, config.data.img_size
    blocks = BLOCKS_OF_HEIGHT.get(height, 0)
    step = 2**blocks
    near = min(max(round(width / step) * step, height // 2), 2 * height)
    widths = f"multiples of {step} from {height // 2} to {2 * height} at height {height}"
    return [
        ("data.img_size", "", blocks == 0, f"found height {height}, allowed 32, 64, 128 or 256, try 64"),
        (
            "data.img_size", "", 0 < blocks and (width % step > 0 or not 2 * height >= width >= height / 2),
            f"found width {width}, allowed {widths}, try [{height}, {near}]",
        ),
        (
            "data.src", "data.source", data.source == "procedural" and data.src is not None,
            f"found {data.src!r}, allowed null for procedural pictures, try --set data.source=folder",
        ),
        (
            "data.looseness", "data.kind data.source",
            data.source == "procedural" and data.kind == "messy" and data.looseness != 1,
            f"found {data.looseness:g}, allowed 1 with data.kind=messy, try --set data.looseness=1",
        ),
        (
            "clean.min_aspect", "clean.max_aspect", clean.min_aspect > clean.max_aspect,
            f"found {clean.min_aspect:g} over max_aspect {clean.max_aspect:g}, allowed less, try 0.7",
        ),
        (
            "data.img_size", "engine", config.engine == "studiogan" and height != width,
            f"found {height}x{width}, allowed only squares with StudioGAN, try --set engine=native",
        ),
    ]  # fmt: skip


def _model_rules(config: Config) -> list[Rule]:
    model, height, conv = config.model, config.data.img_size[0], config.model.backbone == "conv"
    blocks = BLOCKS_OF_HEIGHT.get(height, 0)
    g_blocks = blocks - conv  # the conv generator's last block makes pixels
    places = (("model.attn_g_loc", model.attn_g_loc, g_blocks), ("model.attn_d_loc", model.attn_d_loc, blocks))
    channels = (("model.g_conv_dim", model.g_conv_dim), ("model.d_conv_dim", model.d_conv_dim))
    activations = (("model.g_act_fn", model.g_act_fn), ("model.d_act_fn", model.d_act_fn))
    return [
        *(
            (
                key, "model.apply_attn model.backbone data.img_size",
                model.apply_attn and 0 < blocks and place > upper,
                f"found {place}, allowed 1 to {upper} at height {height}, try {upper}",
            )
            for key, place, upper in places
        ),
        *(
            (
                key, "model.apply_attn", model.apply_attn and count < MIN_ATTENTION_CHANNELS,
                f"found {count}, allowed {MIN_ATTENTION_CHANNELS} or more with attention, try 16",
            )
            for key, count in channels
        ),
        (
            "model.g_cond_mtd, model.d_cond_mtd", "", (model.g_cond_mtd is None) != (model.d_cond_mtd is None),
            f"found {format_value(model.g_cond_mtd)} and {format_value(model.d_cond_mtd)}, allowed cBN or concat with "
            "PD, acgan or concat, or null and null, try cBN and PD",
        ),
        *_switch_rules(config, model.backbone == "subpixel", "model.backbone=subpixel", WITH_SUBPIXEL),
        *(
            (
                key, "model.backbone", not conv and found != "ReLU",
                f"found {found}, allowed ReLU in the ResNet, try --set model.backbone=conv",
            )
            for key, found in activations
        ),
    ]  # fmt: skip


def _switch_rules(config: Config, is_on: bool, switch: str, allowed: dict[str, tuple[Any, ...]]) -> Iterator[Rule]:
    """Rules of keys whose values a switch restricts to `allowed`; the first of them is suggested."""
    for key, values in allowed.items():
        section, _, leaf = key.partition(".")
        found = getattr(getattr(config, section), leaf) if leaf else getattr(config, section)
        choices = [value if isinstance(value, str) else format_value(value) for value in values]
        text = (
            f"found {format_value(found)}, allowed {' or '.join(choices)} with {switch}, try --set {key}={choices[0]}"
        )
        yield key, switch.partition("=")[0], is_on and found not in values, text


def _training_rules(config: Config) -> list[Rule]:
    loss, policy, z_dim = config.loss, config.augment.diffaug_policy, config.model.z_dim
    freeze, blocks, schedule = config.finetune.freeze_layers, d_block_count(config) or 0, config.optim.z_schedule or ()
    return [
        (
            "loss.adv_loss", "loss.apply_gp", loss.adv_loss == "wasserstein" and not loss.apply_gp,
            "found wasserstein without a penalty, allowed with one, try --set loss.apply_gp=true",
        ),
        (
            "loss.label_smoothing", "loss.adv_loss", loss.label_smoothing > 0 and loss.adv_loss != "vanilla",
            f"found {loss.label_smoothing:g} with {loss.adv_loss}, allowed 0 except with vanilla, try --set "
            "loss.adv_loss=vanilla",
        ),
        (
            "loss.apply_mismatch", "model.d_cond_mtd", loss.apply_mismatch and config.model.d_cond_mtd != "PD",
            f"found true with {format_value(config.model.d_cond_mtd)}, allowed with projection, try --set "
            "model.d_cond_mtd=PD",
        ),
        (
            "augment.diffaug_policy", "augment.apply_diffaug",
            config.augment.apply_diffaug and (not policy or len(set(policy)) < len(policy)),
            f"found {format_value(policy)}, allowed a list without repeats, try [color]",
        ),
        (
            "finetune.freeze_layers", "data.img_size model.apply_attn model.backbone", 0 < blocks <= freeze,
            f"found {freeze}, allowed 1 to {blocks - 1} (D has {blocks} blocks), try 2",
        ),
        (
            "optim.z_schedule", "model.z_dim", bool(schedule) and not _is_schedule(schedule, z_dim),
            f"found {format_value([list(pair) for pair in schedule])}, allowed starts that rise from 0, with sizes "
            f"that rise to model.z_dim = {z_dim}, try [[0, {max(1, z_dim // 2)}], [1000, {z_dim}]]",
        ),
        *_switch_rules(config, config.reconstruction.apply, "reconstruction.apply=true", WITH_RECONSTRUCTION),
    ]  # fmt: skip


def _is_schedule(schedule: tuple[tuple[int, int], ...], z_dim: int) -> bool:
    starts, sizes = zip(*schedule, strict=True)
    rising = all(a < b for pair in (starts, sizes) for a, b in itertools.pairwise(pair))
    return rising and starts[0] == 0 and sizes[0] >= 1 and sizes[-1] == z_dim


def d_block_count(config: Config) -> int | None:
    """Blocks of the discriminator (its attention counts as one); None at an invalid height."""
    height = config.data.img_size[0]
    if config.model.backbone == "subpixel":
        return SUBPIXEL_D_BLOCKS.get(height)
    blocks = BLOCKS_OF_HEIGHT.get(height)
    return None if blocks is None else blocks + (config.model.backbone == "resnet") + config.model.apply_attn


def finetune_content(config: Config, override: dict[str, Any]) -> dict[str, Any]:
    """The config with the override merged in. Another set does not inherit `data.src`; the source run has finished its
    z_schedule."""
    content = merge(config.model_dump(mode="json"), merge({"optim": {"z_schedule": None}}, override))
    data = override.get("data") or {}
    if isinstance(data, dict) and "set" in data and "src" not in data:
        content["data"]["src"] = None
    return content


def _override_problems(config: Config, replaced: set[str]) -> Iterator[str]:
    """Problems of the fine-tuning run that the run itself does not have."""
    if "finetune.override" in replaced:
        return
    override = config.finetune.override
    for key in sorted(set(override) & set(FIXED_IN_FINETUNE)):
        yield f"{key}: found in the override, allowed only in the run that is fine-tuned, try to leave it out"
    rest = {key: value for key, value in override.items() if key not in FIXED_IN_FINETUNE}
    tuned, problems, replaced_too = _validate(finetune_content(config, rest))
    yield from (text for _, text in problems)
    if tuned is None:
        return
    if tuned.data.img_size != config.data.img_size:
        found, allowed = format_value(tuned.data.img_size), format_value(config.data.img_size)
        yield f"data.img_size: found {found}, allowed the run's own {allowed}, try to leave it out"
    known = {text for _, text in cross_problems(config)}
    ignored = replaced | replaced_too
    yield from (text for keys, text in cross_problems(tuned) if text not in known and not ignored.intersection(keys))
