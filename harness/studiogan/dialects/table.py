"""Shared by both of StudioGAN's config formats: the table of key names on both sides, and reading foreign configs.

In between everything is flat: dotted key → value. All problems of a foreign file are collected by key and reported at
once.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Literal, NamedTuple

from harness.config.checks import BASE_PATH
from harness.config.experiment import Config, check_config
from harness.config.yaml_files import merge, read_yaml
from harness.errors import UserError

UNUSED = "N/A"  # StudioGAN's value for an unused key
FIXED_POLICY = ("color", "translation", "cutout")  # src/worker.py (0.2.0), src/utils/diffaug.py (0.4.0)
FIXED_EPS = 1e-6  # of Adam, src/loader.py (0.2.0), src/config.py (0.4.0)
# Features of the native engine only → the value that means "off".
NATIVE_ONLY: dict[str, Any] = {
    "model.backbone": "resnet",
    "loss.label_smoothing": 0.0,
    "loss.apply_mismatch": False,
    "loss.apply_r1_reg": False,
    "loss.apply_similarity": False,
    "augment.d_input_noise": 0.0,
    "optim.z_schedule": None,
    "optim.cosine_from": None,
    "reconstruction.apply": False,
}
CONDITIONED = {"model.g_cond_mtd": "cBN", "model.d_cond_mtd": "PD"}
SHOWN_CHARACTERS, SHOWN_KEYS, LARGEST_INT = 40, 12, 2**62
Kind = Literal["bool", "int", "float", "text", "place"]
KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "place": "a list of one block, as [2]",
}


class Row(NamedTuple):
    """The names of one value on both sides. It is unused while our key `switch` is false."""

    theirs: str
    ours: str
    kind: Kind
    switch: str = ""


Fixed = Mapping[str, tuple[Any, str]]  # their key → (the only supported value, the feature that others switch on)


# ---- ours → theirs ----


def render(config: Config, template: dict[str, Any], rows: Iterable[Row], values: dict[str, Any]) -> dict[str, Any]:
    """Their nested config: the template with all used rows and `values` (their dotted key → value)."""
    content = deepcopy(template)
    for row in rows:
        if not row.switch or _our_value(config, row.switch):
            value = _our_value(config, row.ours)
            _put(content, row.theirs, [value] if row.kind == "place" else value)
    for key, value in values.items():
        _put(content, key, value)
    return content


def refuse_unsupported(config: Config, version: str, problems: Iterable[str]) -> None:
    """UserError listing what StudioGAN does not support: in any version, and this version's own `problems`."""
    found = [*_unsupported(config), *problems]
    if found:
        head = f"{config.name}: {len(found)} thing{'s' * (len(found) > 1)} that StudioGAN {version} cannot do"
        raise UserError("\n".join([head, *(f"  {problem}" for problem in found)]))


def _unsupported(config: Config) -> Iterable[str]:
    (height, width), policy, eps = config.data.img_size, config.augment.diffaug_policy, config.optim.eps
    if height != width:
        yield f"data.img_size: found {height}x{width}, allowed squares, try --set data.img_size={height}"
    if config.model.apply_g_ema and config.model.g_ema_warmup:
        yield "model.g_ema_warmup: found true, allowed false, try --set model.g_ema_warmup=false"
    for key, nothing in NATIVE_ONLY.items():
        if (found := _our_value(config, key)) != nothing:
            yield f"{key}: found {_plain(found)}, allowed {_plain(nothing)}, try --set engine=native"
    for key, supported in CONDITIONED.items():
        if (found := _our_value(config, key)) not in (None, supported):
            yield f"{key}: found {found}, allowed {supported} or null, try --set {key}={supported}"
    if config.augment.apply_diffaug and policy != FIXED_POLICY:
        allowed = f"[{', '.join(FIXED_POLICY)}]"
        yield f"augment.diffaug_policy: found [{', '.join(policy)}], allowed {allowed}, try that or apply_diffaug=false"
    if eps != FIXED_EPS:
        yield f"optim.eps: found {eps}, allowed {FIXED_EPS}, try --set optim.eps=1.0e-6"


def _plain(value: Any) -> str:
    return shown(value).strip("'")


def _our_value(config: Config, key: str) -> Any:
    section, _, leaf = key.partition(".")
    return getattr(getattr(config, section), leaf)


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[leaf] = value


# ---- theirs → ours ----


class ForeignConfig:
    """A foreign config compared with its version's template: `values` (their dotted key → value) and `problems`.

    Unknown keys are problems; so are missing ones, unless they are `optional` (dotted keys; None = all, which then have
    the template's value).
    """

    def __init__(self, content: Any, template: dict[str, Any], optional: Iterable[str] | None = ()) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.refused = False
        self.optional = None if optional is None else set(optional)
        self._unknown: list[str] = []
        self._missing: list[str] = []
        self._walk(content, template, "")
        for names, text in ((self._missing, "missing keys"), (self._unknown, "keys that StudioGAN does not have")):
            if names:
                more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
                self.problems.append(f"{text}: {', '.join(names[:SHOWN_KEYS])}{more}")

    def _walk(self, content: Any, template: dict[str, Any], prefix: str) -> None:
        if not isinstance(content, dict):
            self.problems.append(
                f"{prefix.rstrip('.') or 'the file'}: found {shown(content)}, allowed keys with values"
            )
            return
        self._unknown += [prefix + shown(key).strip("'") for key in content if key not in template]
        for key, below in template.items():
            if isinstance(below, dict):
                self._walk(content.get(key, {}), below, f"{prefix}{key}.")
            elif key in content:
                self.values[prefix + key] = content[key]
            elif self.optional is None:
                self.values[prefix + key] = below
            elif prefix + key not in self.optional:
                self._missing.append(prefix + key)

    def refuse_features(self, fixed: Fixed) -> None:
        """A problem for each unsupported feature that is switched on."""
        for key, (allowed, feature) in fixed.items():
            found = self.values.get(key, allowed)
            if isinstance(found, bool) == isinstance(allowed, bool) and found == allowed:
                continue
            self.refuse(key, shown(allowed), feature)

    def refuse(self, key: str, allowed: str, feature: str) -> None:
        """A problem: the key's value switches an unsupported feature on. `{}` in `feature` is replaced by the value."""
        self.refused = True
        found = shown(self.values[key])
        named = feature.format(found.strip("'"))
        self.problems.append(f"{key}: found {found}, allowed {allowed}; not covered: {named}")

    def read(self, key: str, kind: Kind) -> Any:
        """The value of a key; None when it is missing or, with a problem, of another kind."""
        if key not in self.values or (self.refused and self.values[key] == UNUSED):
            return None  # unsupported networks leave some keys unused
        value = _typed(self.values[key], kind)
        if value is None:
            self.problems.append(f"{key}: found {shown(self.values[key])}, allowed {KINDS[kind]}")
        return value

    def read_rows(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Our dotted key → value. A switch must precede the rows that depend on it."""
        taken: dict[str, Any] = {}
        for row in rows:
            if not row.switch or taken.get(row.switch):
                taken[row.ours] = self.read(row.theirs, row.kind)
        return taken

    def to_config(
        self, values: dict[str, Any], data_keys: tuple[str, str, str], version: str, name: str, origin: str
    ) -> Config:
        """Our config: `values` (our dotted key → value) over base.yaml. UserError with all problems.

        `data_keys`: their keys of the set's name, picture size and number of classes.
        """
        name_key, size_key, classes_key = data_keys
        values = values | _data_values(self.read(name_key, "text") or "custom", name)
        values |= {
            "data.img_size": self.read(size_key, "int"),
            "model.g_ema_warmup": False,
            "augment.diffaug_policy": list(FIXED_POLICY),
            "studiogan.version": version,
        }
        self.read(classes_key, "int")  # known from the packed set
        if self.problems:
            head = f"{origin}: {len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
            raise UserError("\n".join([head, *(f"  {problem}" for problem in self.problems)]))
        content: dict[str, Any] = {"name": name}
        for key, value in values.items():
            _put(content, key, value)
        return check_config(merge(read_yaml(BASE_PATH), content), origin)


def _data_values(dataset: str, name: str) -> dict[str, Any]:
    """Our data section for their dataset name; pictures of any but CIFAR-10 come from a folder given later."""
    dataset = dataset if dataset.lower() != "custom" else name
    set_name = safe_name(dataset.lower(), "pictures")
    source = "cifar10" if set_name == "cifar10" else "folder"
    concept = {"set": safe_name(f"{set_name[:56]}-concept", "concept"), "source": "folder", "src": None}
    return {"data.set": set_name, "data.source": source, "data.src": None, "finetune.override": {"data": concept}}


def safe_name(text: str, otherwise: str) -> str:
    """A valid name for a run or set: `DiffAugGAN(P)` → `DiffAugGAN-P`."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.strip("-._")[:64] or otherwise


def shown(value: Any) -> str:
    """Any value for a message: short, in one line."""
    if isinstance(value, dict | list | tuple | set):
        return f"a list of {len(value)}" if not isinstance(value, dict) else f"{len(value)} keys"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def _typed(value: Any, kind: Kind) -> Any:
    """The value as this kind, or None; integers are floats too, booleans are not numbers."""
    if kind == "place":
        return _typed(value[0], "int") if isinstance(value, list) and len(value) == 1 else None
    if kind in ("bool", "text"):
        return value if isinstance(value, bool if kind == "bool" else str) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_INT:
        return None  # NaN is not <= anything
    if kind == "float":
        return float(value)
    return value if isinstance(value, int) else None
