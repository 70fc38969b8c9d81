"""Reading experiment files: safe YAML, `extends`, and `--set section.key=value`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.files import open_file

MAX_BYTES = 1_000_000  # a typical experiment has 5,000
# --set takes the values of these keys literally: a path may contain ": " or be a number.
TEXT_KEYS = ("name", "data.set", "data.src", "clean.decisions", "finetune.from_run", "encoder.weights")
NULL_TEXTS = ("", "null", "~")
D_CALL_TO_NUMERICS = {"concat": "fast", "separate": "studiogan"}  # train.d_call is now train.numerics
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that configs do not use."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses repeated keys, aliases (bombs) and non-decimal numbers."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise _Refused(problem="aliases (*name) are not allowed, write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _Refused(problem=f"{key.value} appears twice, keep one", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int | float:
        """Refuses numbers that YAML reads differently from people: 010 is 8, 1:30 is 90, 0x10 is 16."""
        text, is_int = node.value, node.tag.endswith(":int")
        value = self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)
        if ":" in text or (is_int and not DECIMAL.fullmatch(text)):
            as_written = [str(int(text))] if text.isdecimal() else []
            tries = " or ".join(dict.fromkeys([*as_written, str(value), f"'{text}' where it is text"]))
            problem = f"found {text}, which YAML reads as {value}; allowed decimal numbers, try {tries}"
            raise _Refused(problem=problem, problem_mark=node.start_mark)
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse(text: str, origin: str) -> Any:
    """YAML text → plain values; every problem is a UserError of one line."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        problem = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise UserError(f"{origin}:{line} {problem}{error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{origin}: not valid YAML: nested too deeply") from error
    # An impossible date, a number of 5,000 digits, a tag that does not fit its value.
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as nested dicts; UserError for a file that is missing, invalid or not a mapping."""
    try:
        with open_file(path) as stream:
            text = stream.read(MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        examples = ", ".join(sorted(str(p) for p in Path("configs").glob("*.yaml"))) or "configs/demo.yaml"
        raise UserError(f"config: cannot read {path} ({error.strerror}), try one of {examples}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: found bytes that are not UTF-8 text, allowed a YAML file, try configs/demo.yaml"
        ) from error
    if len(text) > MAX_BYTES:
        raise UserError(f"{path}: found more than {MAX_BYTES} bytes, allowed a config, try configs/demo.yaml")
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise UserError(f"{path}: found {found}, allowed sections with keys, try `extends: base.yaml` as first line")
    return rename_old_keys(content)


def rename_old_keys(content: dict[str, Any]) -> dict[str, Any]:
    """A config, or part of one, with `train.numerics` in place of the former `train.d_call`.

    Apply before merging, so that the upper layer wins under either name.
    """
    train, finetune = content.get("train"), content.get("finetune")
    if isinstance(train, dict) and "d_call" in train and "numerics" not in train:
        rest = {key: value for key, value in train.items() if key != "d_call"}
        content = {
            **content,
            "train": {**rest, "numerics": D_CALL_TO_NUMERICS.get(str(train["d_call"]), train["d_call"])},
        }
    if isinstance(finetune, dict) and isinstance(finetune.get("override"), dict):
        content = {**content, "finetune": {**finetune, "override": rename_old_keys(finetune["override"])}}
    return content


def read_with_extends(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file merged over the file that it extends (a path relative to itself), recursively."""
    content = read_yaml(path)
    if path.resolve() in seen:
        raise UserError(f"{path}: extends: found a file that extends itself, allowed a chain that ends")
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise UserError(f"{path}: extends: found {parent!r}, allowed a file name, try base.yaml")
    if not (path.parent / parent).is_file():
        raise UserError(f"{path}: extends: found no file {path.parent / parent}, allowed one beside it, try base.yaml")
    return merge(read_with_extends(path.parent / parent, (*seen, path.resolve())), content)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` merged over `below`, section by section; an empty section changes nothing."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict):
            value = old if value is None else merge(old, value) if isinstance(value, dict) else value
        merged[key] = value
    return merged


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`["optim.g_lr=1e-4"]` → `{"optim": {"g_lr": 1e-4}}`; values are YAML, those of TEXT_KEYS plain text."""
    result: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not all(key.split(".")):
            raise UserError(f"--set: found {text!r}, allowed section.key=value, try --set optim.total_steps=2000")
        is_text = key.removeprefix("finetune.override.") in TEXT_KEYS and value[:1] not in ("'", '"')
        if is_text:
            parsed: Any = None if value in NULL_TEXTS else value
        else:
            parsed = _parse(value, f"--set {key}")
        for part in reversed(key.split(".")):
            parsed = {part: parsed}
        result = merge(result, rename_old_keys(parsed))
    return result
