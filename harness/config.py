"""One YAML file an experiment: read, extended, overridden, checked as a whole; every fault is told at once.

In: `configs/*.yaml` and `--set section.key=value`. Out: a frozen `Config`. Imports no torch.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.errors import UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
InitName = Literal["ortho", "N02", "glorot", "xavier"]


def _size_to_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    set: Name
    source: Literal["procedural", "folder"]
    src: str | None
    kind: Literal["ordinary", "concept", "messy"]
    count: Count
    img_size: Annotated[tuple[int, int], BeforeValidator(_size_to_pair)]
    valid_fraction: Annotated[float, Field(ge=0, le=0.5)]
    fast_decode: bool

    @property
    def size_name(self) -> str:
        """`64` for square pictures, `128x224` (height x width) for others."""
        height, width = self.img_size
        return str(height) if height == width else f"{height}x{width}"

    def hdf5_path(self, split: Literal["train", "valid"]) -> Path:
        """Where the set's packed pictures are, in StudioGAN's naming."""
        return Path("data/hdf5") / self.set / f"custom_{self.size_name}_{split}.hdf5"


class Model(Section):
    backbone: Literal["resnet"]
    z_dim: Count
    g_conv_dim: Count
    d_conv_dim: Count
    g_cond_mtd: Literal["cBN"] | None
    d_cond_mtd: Literal["PD"] | None
    apply_g_sn: bool
    apply_d_sn: bool
    apply_attn: bool
    attn_g_loc: Count
    attn_d_loc: Count
    g_init: InitName
    d_init: InitName
    apply_g_ema: bool
    g_ema_decay: Fraction
    g_ema_start: Annotated[int, Field(ge=0)]
    g_ema_warmup: bool

    @property
    def conditional(self) -> bool:
        return self.g_cond_mtd is not None or self.d_cond_mtd is not None


class Loss(Section):
    adv_loss: Literal["hinge", "vanilla", "least_square", "wasserstein"]
    apply_gp: bool
    gp_lambda: Positive
    apply_lecam: bool
    lecam_type: Literal["standard", "gsrgan"]
    lecam_lambda: Positive
    lecam_ema_decay: Fraction
    lecam_ema_start_iter: Annotated[int, Field(ge=1)]


class Optim(Section):
    batch_size: Annotated[int, Field(ge=2)]
    acml_steps: Count
    g_lr: Positive
    d_lr: Positive
    beta1: Fraction
    beta2: Fraction
    eps: Positive
    d_updates_per_step: Count
    total_steps: Count


class Augment(Section):
    apply_rflip: bool
    apply_diffaug: bool
    diffaug_policy: Annotated[
        tuple[Literal["color", "translation", "cutout"], ...],
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ]


class Train(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16"]
    d_call: Literal["concat", "separate"]
    commute_1x1: bool
    channels_last: bool
    fused_adam: bool
    compile: bool
    deterministic: bool
    pictures: Literal["auto", "resident", "lazy"]
    threads: Annotated[int, Field(ge=0)]
    log_every_steps: Count
    sample_every_steps: Count
    save_every_steps: Count
    keep_last: Count
    sample_count: Count


class Finetune(Section):
    from_run: Name | None
    freeze_layers: Count
    override: dict[str, dict[str, Any]]


class Config(Section):
    """A whole experiment. Every value comes from YAML (base.yaml at the latest): the code holds no defaults."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    model: Model
    loss: Loss
    optim: Optim
    augment: Augment
    train: Train
    finetune: Finetune


# ---- reading ----------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, and refuses repeated keys and aliases (the alias bomb)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise UserError(f"{self.name}: YAML aliases (*name) are not allowed: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [k.value for k, _ in node.value]
        for key in sorted({k for k in keys if keys.count(k) > 1}):
            raise UserError(f"{self.name}: line {node.start_mark.line + 1}: {key}: stands twice, keep one")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as nested dicts; a file that is missing, broken or no mapping is the user's mistake."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.load(stream, _Loader)  # a SafeLoader: no objects are made
    except OSError as error:
        raise UserError(f"config: cannot read {path} ({error.strerror}); try one of {_shipped()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}, allowed a mapping of sections; see configs/base.yaml")
    return content


def _shipped() -> str:
    return ", ".join(sorted(str(p) for p in Path("configs").glob("*.yaml"))) or "configs/demo.yaml"


def read_with_extends(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file laid over the file that it extends (a path relative to itself), and so on."""
    if path.resolve() in seen:
        raise UserError(f"extends: {path} extends itself")
    content = read_yaml(path)
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise UserError(f"{path}: extends: found {parent!r}, allowed a file name, try base.yaml")
    return merge(read_with_extends(path.parent / parent, (*seen, path.resolve())), content)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, section by section."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`["optim.g_lr=1e-4"]` → `{"optim": {"g_lr": 1e-4}}`; values are read as YAML."""
    result: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set: found {text!r}, allowed section.key=value, try --set optim.total_steps=2000")
        try:
            parsed: Any = yaml.load(value, _Loader)
        except yaml.YAMLError as error:
            raise UserError(f"--set {key}: {value!r} is not a YAML value") from error
        for part in reversed(key.strip().split(".")):
            parsed = {part: parsed}
        result = merge(result, parsed)
    return result


def load_config(path: Path | str, overrides: Iterable[str] = ()) -> Config:
    """Reads and checks one experiment. Raises UserError that names every fault, one a line."""
    path = Path(path)
    content = merge(read_with_extends(path), parse_overrides(overrides))
    if content.get("name") is None:
        content["name"] = path.stem
    return check_config(content, str(path))


# ---- checking ---------------------------------------------------------------------------------------------------


def check_config(content: dict[str, Any], origin: str) -> Config:
    """Nested dicts → Config, or one UserError with all faults: unknown keys, types, ranges, and what does not fit together."""
    faults: list[str] = []
    config: Config | None = None
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        faults = [_fault_text(fault) for fault in error.errors()]
    if config is not None:
        faults = [*cross_faults(config), *_override_faults(content, config)]
    if faults:
        head = f"{origin}: {len(faults)} fault{'s' * (len(faults) > 1)}"
        raise UserError("\n".join([head, *(f"  {fault}" for fault in faults)]))
    assert config is not None
    return config


def _fault_text(fault: Any) -> str:
    where = [str(part) for part in fault["loc"] if not str(part).startswith(("tuple", "constrained", "literal"))]
    key, found = ".".join(where), repr(fault["input"])[:60]
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(all_keys()), 1, 0.5) or [k for k in all_keys() if k.endswith("." + where[-1])]
        return f"{key}: no such key" + (f", try {near[0]}" if near else "; see configs/base.yaml")
    if fault["type"] == "missing":
        return f"{key}: missing, add `extends: base.yaml` at the top of the file"
    return f"{key}: found {found}, allowed: {_allowed_text(fault)}"


def _allowed_text(fault: Any) -> str:
    message = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return {"string_pattern_mismatch": "letters, digits, '.', '_', '-', at most 64"}.get(fault["type"], message)


def all_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterable[str]:
    """Every dotted key that a config may have."""
    for key, field in model.model_fields.items():
        yield prefix + key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_keys(field.annotation, f"{prefix}{key}.")


def cross_faults(config: Config) -> list[str]:
    """What no single key shows: values that do not fit together."""
    data, model, loss, faults = config.data, config.model, config.loss, []
    height, width = data.img_size
    blocks = {32: 3, 64: 4, 128: 5, 256: 6}.get(height)
    if blocks is None:
        faults.append(f"data.img_size: found height {height}, allowed 32, 64, 128 or 256")
    elif width % 2**blocks or not 2 * height >= width >= height / 2:
        step = 2**blocks
        faults.append(
            f"data.img_size: found width {width}, allowed multiples of {step} from {height // 2} to {2 * height} "
            f"at height {height}"
        )
    if data.source == "folder" and not data.src:
        faults.append("data.src: found nothing, allowed a folder of pictures, try --set data.src=path/to/pictures")
    if loss.adv_loss == "wasserstein" and not loss.apply_gp:
        faults.append("loss.adv_loss: wasserstein needs a bounded D, try --set loss.apply_gp=true")
    if config.augment.apply_diffaug and not config.augment.diffaug_policy:
        faults.append("augment.diffaug_policy: found nothing, try --set augment.apply_diffaug=false")
    if blocks and model.apply_attn and not (model.attn_g_loc <= blocks and model.attn_d_loc <= blocks):
        faults.append(f"model.attn_g_loc, model.attn_d_loc: allowed 1 to {blocks} at height {height}")
    return faults


def _override_faults(content: dict[str, Any], config: Config) -> list[str]:
    forbidden = sorted(set(config.finetune.override) & {"model", "finetune"})
    if forbidden:
        return [f"finetune.override.{key}: must stay as in the run that is fine-tuned" for key in forbidden]
    try:
        tuned = Config.model_validate(merge(content, config.finetune.override))
    except ValidationError as error:
        return ["finetune.override." + _fault_text(fault) for fault in error.errors()]
    return ["finetune.override." + fault for fault in cross_faults(tuned) if fault not in cross_faults(config)]


# ---- deriving, writing and comparing ----------------------------------------------------------------------------


def finetune_config(config: Config) -> Config:
    """The config of the fine-tuning run: `finetune.override` laid over this one, named `<source run>-freezed`."""
    content = merge(config_to_dict(config), config.finetune.override)
    content["name"] = f"{config.finetune.from_run or config.name}-freezed"
    return check_config(content, "finetune")


def config_to_dict(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def config_to_yaml(config: Config) -> str:
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Every dotted key whose value differs, with both values (None where a side lacks it)."""
    differences = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            differences += config_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            differences.append((prefix + key, a, b))
    return differences


def expand_path(path: str) -> Path:
    """`$VARIABLES` and `~` expanded; an unset variable is the user's mistake."""
    expanded = os.path.expanduser(os.path.expandvars(path))
    if "$" in expanded:
        raise UserError(f"{path}: the variable is not set, try `export {expanded.split('$')[1].split('/')[0]}=...`")
    return Path(expanded)
