"""What is wrong with an experiment: all problems at once, each as `key: found X, allowed Y, try Z`.

Problems of single keys are pydantic's. For what does not fit together, faulty keys get base.yaml's values first, and no
problem is reported that only such a stand-in has.
"""

import difflib
import itertools
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
# The values that go with a sub-pixel backbone (it has no batch norm), and with an encoder that learns beside it.
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
ATTENTION_CHANNELS = 8  # the attention block works on an eighth of them
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
Problem = tuple[tuple[str, ...], str]  # the keys that it is about, and its text


def find_problems(content: dict[str, Any]) -> tuple[Config | None, list[str]]:
    """(the config, []) or (None, all problems) of nested dicts."""
    config, problems, replaced = _validate(content)
    texts = [text for _, text in problems]
    if config is None:
        return None, texts
    cross = [text for keys, text in cross_problems(config) if not replaced.intersection(keys)]
    texts += cross + [f"finetune.override.{text}" for text in _override_problems(config, replaced)]
    return (None if texts else config), texts


def _validate(content: dict[str, Any]) -> tuple[Config | None, list[Problem], set[str]]:
    """The config with stand-ins for what is faulty (None if there are none), problems, and the keys stood in for."""
    try:
        return Config.model_validate(content), [], set()
    except ValidationError as error:
        details = error.errors()
    problems, mended, replaced = _single_problems(details), content, set()
    try:
        base = {**_base(), "name": "base"}
        for detail in details:
            mended, path = _mend(mended, _key_path(detail), base)
            replaced |= {key for key in all_keys() if key == path or key.startswith(path + ".")}
        return Config.model_validate(mended), problems, replaced
    except (UserError, ValidationError):  # no base.yaml of ours: at least the single problems are told
        return None, problems, set()


def _key_path(detail: Any) -> list[str]:
    """Where a problem is: section and key, without what pydantic adds for parts of a value."""
    parts = [str(part) for part in detail["loc"]]
    known = set(all_keys())
    while len(parts) > 1 and detail["type"] != "extra_forbidden" and ".".join(parts) not in known:
        parts.pop()
    return parts


def _mend(content: dict[str, Any], path: list[str], base: Any) -> tuple[dict[str, Any], str]:
    """A copy in which base's value stands at the path (nothing, where base has none), and the path as dotted key."""
    key, rest = path[0], path[1:]
    mended = dict(content)
    if rest and isinstance(mended.get(key), dict):
        mended[key] = _mend(mended[key], rest, base.get(key, {}))[0]
    elif key in base:
        mended[key] = base[key]
    else:
        mended.pop(key, None)
    return mended, ".".join(path)


def _single_problems(details: list[Any]) -> list[Problem]:
    missing, others = [], []
    for detail in details:
        whole = detail["type"] == "missing" and len(_key_path(detail)) == len(detail["loc"])
        (missing if whole else others).append(detail)
    problems = details_to_problems(others, ALLOWED, lambda detail: ".".join(_key_path(detail)), _example)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        names = ", ".join(dotted_key(detail) for detail in missing[:3])
        problems = {
            "extends": f"extends: found no {names}{more}, allowed a file that has them, try base.yaml",
            **problems,
        }
    return [((key,), text) for key, text in problems.items()]


def _example(key: str, detail: Any) -> str:
    return _near_key(key) if detail["type"] == "extra_forbidden" else EXAMPLES.get(key) or _base_value(key)


def _near_key(key: str) -> str:
    """The known key that was probably meant: of the same name elsewhere, or spelled nearly so."""
    leaf = key.rpartition(".")[2]
    leaves = {known.rpartition(".")[2]: known for known in all_keys()}
    near = difflib.get_close_matches(key, all_keys(), 1, 0.75)
    near_leaves = difflib.get_close_matches(leaf, leaves, 1, 0.7)
    return leaves.get(leaf) or (near or [leaves[name] for name in near_leaves] or ["to leave it out"])[0]


def _base_value(key: str) -> str:
    value: Any = _base() if BASE_PATH.is_file() else {}
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "what configs/base.yaml has" if value is None or isinstance(value, dict) else format_value(value)


@cache
def _base() -> dict[str, Any]:
    return read_yaml(BASE_PATH)


@cache
def all_keys() -> tuple[str, ...]:
    """Every dotted key that a config may have, sections too."""
    return tuple(_keys_of(Config, ""))


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield prefix + key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys_of(field.annotation, f"{prefix}{key}.")


# ---- what does not fit together ----


def cross_problems(config: Config) -> list[Problem]:
    """What no single key shows: values that do not fit together."""
    return [*_data_problems(config), *_engine_problems(config), *_model_problems(config), *_training_problems(config)]


def _data_problems(config: Config) -> Iterator[Problem]:
    data, (height, width) = config.data, config.data.img_size
    key = ("data.img_size",)
    blocks = BLOCKS_OF_HEIGHT.get(height)
    if blocks is None:
        yield key, f"data.img_size: found height {height}, allowed 32, 64, 128 or 256, try 64"
    elif width % 2**blocks or not 2 * height >= width >= height / 2:
        step = 2**blocks
        near = min(max(round(width / step) * step, height // 2), 2 * height)
        allowed = f"multiples of {step} from {height // 2} to {2 * height} at height {height}"
        yield key, f"data.img_size: found width {width}, allowed {allowed}, try [{height}, {near}]"
    if data.source == "procedural" and data.src is not None:
        yield (
            ("data.src", "data.source"),
            f"data.src: found {data.src!r}, allowed null where pictures are drawn, try --set data.source=folder",
        )
    if data.source == "procedural" and data.kind == "messy" and data.looseness != 1:
        yield (
            ("data.looseness", "data.kind", "data.source"),
            f"data.looseness: found {data.looseness:g}, allowed 1 with data.kind=messy, try --set data.looseness=1",
        )
    clean = config.clean
    if clean.min_aspect > clean.max_aspect:
        yield (
            ("clean.min_aspect", "clean.max_aspect"),
            f"clean.min_aspect: found {clean.min_aspect:g} over max_aspect {clean.max_aspect:g}, allowed less, try 0.7",
        )


def _engine_problems(config: Config) -> Iterator[Problem]:
    (height, width), keys = config.data.img_size, ("engine", "data.img_size")
    if config.engine == "studiogan" and height != width:
        yield (
            keys,
            f"data.img_size: found {height}x{width}, allowed squares where StudioGAN trains, try --set engine=native",
        )


def _model_problems(config: Config) -> Iterator[Problem]:
    model, blocks, conv = config.model, BLOCKS_OF_HEIGHT.get(config.data.img_size[0]), config.model.backbone == "conv"
    if model.apply_attn and blocks:
        for key, place, upper in (
            ("model.attn_g_loc", model.attn_g_loc, blocks - conv),  # conv's last block makes pixels
            ("model.attn_d_loc", model.attn_d_loc, blocks),
        ):
            if place > upper:
                yield (
                    (key, "model.apply_attn", "model.backbone", "data.img_size"),
                    f"{key}: found {place}, allowed 1 to {upper} at height {config.data.img_size[0]}, try {upper}",
                )
    if model.apply_attn:
        for key, channels in (("model.g_conv_dim", model.g_conv_dim), ("model.d_conv_dim", model.d_conv_dim)):
            if channels < ATTENTION_CHANNELS:
                yield (
                    (key, "model.apply_attn"),
                    f"{key}: found {channels}, allowed {ATTENTION_CHANNELS} or more with attention, try 16",
                )
    if (model.g_cond_mtd is None) != (model.d_cond_mtd is None):
        found = f"{format_value(model.g_cond_mtd)} and {format_value(model.d_cond_mtd)}"
        allowed = "cBN or concat with PD, acgan or concat, or null and null"
        yield (
            ("model.g_cond_mtd", "model.d_cond_mtd"),
            f"model.g_cond_mtd, model.d_cond_mtd: found {found}, allowed {allowed}, try cBN and PD",
        )
    if model.backbone == "subpixel":
        yield from _fixed_problems(config, "model.backbone=subpixel", WITH_SUBPIXEL)
    for key, found in (("model.g_act_fn", model.g_act_fn), ("model.d_act_fn", model.d_act_fn)):
        if not conv and found != "ReLU":
            yield (
                (key, "model.backbone"),
                f"{key}: found {found}, allowed ReLU in the ResNet, try --set model.backbone=conv",
            )


def _fixed_problems(config: Config, switch: str, fixed: dict[str, tuple[Any, ...]]) -> Iterator[Problem]:
    """Of what else is on with the key `switch`: key → the values that go with it, of which the first is tried."""
    for key, allowed in fixed.items():
        section, _, leaf = key.partition(".")
        found = getattr(getattr(config, section), leaf) if leaf else getattr(config, section)
        if found not in allowed:
            choices = [value if isinstance(value, str) else format_value(value) for value in allowed]
            text = f"{key}: found {format_value(found)}, allowed {' or '.join(choices)} with {switch}"
            yield (key, switch.partition("=")[0]), f"{text}, try --set {key}={choices[0]}"


def _training_problems(config: Config) -> Iterator[Problem]:
    if config.loss.adv_loss == "wasserstein" and not config.loss.apply_gp:
        yield (
            ("loss.adv_loss", "loss.apply_gp"),
            "loss.adv_loss: found wasserstein without a penalty, allowed with one, try --set loss.apply_gp=true",
        )
    if config.loss.label_smoothing and config.loss.adv_loss != "vanilla":
        found = f"{config.loss.label_smoothing:g} with {config.loss.adv_loss}"
        yield (
            ("loss.label_smoothing", "loss.adv_loss"),
            f"loss.label_smoothing: found {found}, allowed 0 but with vanilla, try --set loss.adv_loss=vanilla",
        )
    if config.loss.apply_mismatch and config.model.d_cond_mtd != "PD":
        found = f"true with {format_value(config.model.d_cond_mtd)}"
        yield (
            ("loss.apply_mismatch", "model.d_cond_mtd"),
            f"loss.apply_mismatch: found {found}, allowed with projection, try --set model.d_cond_mtd=PD",
        )
    policy = config.augment.diffaug_policy
    if config.augment.apply_diffaug and (not policy or len(set(policy)) < len(policy)):
        yield (
            ("augment.diffaug_policy", "augment.apply_diffaug"),
            f"augment.diffaug_policy: found {format_value(policy)}, allowed a list without repeats, try [color]",
        )
    freeze, blocks = config.finetune.freeze_layers, d_block_count(config)
    if blocks and freeze >= blocks:
        yield (
            ("finetune.freeze_layers", "data.img_size", "model.apply_attn", "model.backbone"),
            f"finetune.freeze_layers: found {freeze}, allowed 1 to {blocks - 1} (D has {blocks} blocks), try 2",
        )
    yield from _schedule_problems(config)
    if config.reconstruction.apply:
        yield from _fixed_problems(config, "reconstruction.apply=true", WITH_RECONSTRUCTION)


def _schedule_problems(config: Config) -> Iterator[Problem]:
    schedule, z_dim = config.optim.z_schedule, config.model.z_dim
    if schedule is None:
        return
    starts, sizes = zip(*schedule, strict=True)
    rising = all(a < b for pair in (starts, sizes) for a, b in itertools.pairwise(pair))
    if not rising or starts[0] != 0 or sizes[0] < 1 or sizes[-1] != z_dim:
        found = format_value([list(pair) for pair in schedule])
        allowed = f"starts that rise from 0, with sizes that rise to model.z_dim = {z_dim}"
        yield (
            ("optim.z_schedule", "model.z_dim"),
            f"optim.z_schedule: found {found}, allowed {allowed}, try [[0, {max(1, z_dim // 2)}], [1000, {z_dim}]]",
        )


def d_block_count(config: Config) -> int | None:
    """Blocks of the discriminator (its attention counts as one); None at a height that is not allowed."""
    height = config.data.img_size[0]
    if config.model.backbone == "subpixel":
        return SUBPIXEL_D_BLOCKS.get(height)
    blocks = BLOCKS_OF_HEIGHT.get(height)
    return None if blocks is None else blocks + (config.model.backbone == "resnet") + config.model.apply_attn


def finetune_content(config: Config, override: dict[str, Any]) -> dict[str, Any]:
    """The config with the override laid over it. Another set is made from other pictures, so it has its own src; the
    source run has opened its whole latent."""
    content = merge(config.model_dump(mode="json"), merge({"optim": {"z_schedule": None}}, override))
    data = override.get("data") or {}
    if isinstance(data, dict) and "set" in data and "src" not in data:
        content["data"]["src"] = None
    return content


def _override_problems(config: Config, replaced: set[str]) -> Iterator[str]:
    """Problems of the fine-tuning run that the run itself has not."""
    if "finetune.override" in replaced:
        return
    override = config.finetune.override
    for key in sorted(set(override) & set(FIXED_IN_FINETUNE)):
        yield f"{key}: found in the override, allowed only in the run that is fine-tuned, try to leave it out"
    rest = {key: value for key, value in override.items() if key not in FIXED_IN_FINETUNE}
    tuned, problems, stand_ins = _validate(finetune_content(config, rest))
    yield from (text for _, text in problems)
    if tuned is None:
        return
    if tuned.data.img_size != config.data.img_size:
        found, allowed = format_value(tuned.data.img_size), format_value(config.data.img_size)
        yield f"data.img_size: found {found}, allowed the run's own {allowed}, try to leave it out"
    known = {text for _, text in cross_problems(config)}
    ignored = replaced | stand_ins
    yield from (text for keys, text in cross_problems(tuned) if text not in known and not ignored.intersection(keys))
