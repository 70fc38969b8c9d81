"""`python -m harness.make <module> <words>`: how the Makefile starts commands.

Replaces itself with `python -m <module> <words>`. The texts after `--overrides` and `--args` are make's OVERRIDE and
ARGS; they are split here, so that no shell expands them. Standard library only.
"""

import importlib.util
import os
import re
import shlex
import sys

from harness.doctor import ROOT, module_of, read_requirements
from harness.errors import EXIT_USER_ERROR, UserError
from harness.messages import log

KEY = r"[A-Za-z_][\w-]*(?:\.[\w-]+)*="
# A value in YAML quotes, or everything up to the next key.
OVERRIDE = re.compile(rf"""({KEY}(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*"|.*?))(?:\s+(?={KEY})|\s*$)""", re.DOTALL)


def split_overrides(text: str) -> list[str]:
    """`a.b=my car's c.d=[1, 2]` → [`a.b=my car's`, `c.d=[1, 2]`]. UserError for text without a key."""
    found, place, text = [], 0, text.strip()
    while place < len(text):
        match = OVERRIDE.match(text, place)
        if match is None:
            raise UserError(
                f"OVERRIDE: found {text[place:]!r}, allowed section.key=value, try OVERRIDE='optim.total_steps=2000'"
            )
        found.append(match[1])
        place = match.end()
    return found


def split_args(text: str) -> list[str]:
    """Words as in a shell, without expansion."""
    try:
        return shlex.split(text)
    except ValueError as error:
        hint = "allowed options as in a shell, try ARGS='--seed 1'"
        raise UserError(f"ARGS: found {text!r} ({error}), {hint}") from error


def to_command(words: list[str]) -> list[str]:
    """The words with OVERRIDE and ARGS split."""
    command: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--overrides":
            command += [part for text in split_overrides(next(rest)) for part in ("--set", text)]
        elif word == "--args":
            command += split_args(next(rest))
        else:
            command.append(word)
    return command


def refuse_lacking(module: str) -> None:
    """UserError if this Python lacks the module or a core package."""
    core, _ = read_requirements(ROOT / "pyproject.toml")
    names = [*map(module_of, core), module.partition(".")[0]]
    if lacking := [name for name in names if importlib.util.find_spec(name) is None]:
        given = os.environ.get("PYTHON")
        doctor = f"make doctor PYTHON={shlex.quote(given)}" if given else "make doctor"
        raise UserError(
            f"python: found {sys.executable} without {', '.join(lacking)}, allowed one with what requirements.txt "
            f"lists, try `{doctor}`"
        )


def main(words: list[str]) -> None:
    """Never returns, except with an error."""
    module, *rest = words
    refuse_lacking(module)
    os.execv(sys.executable, [sys.executable, "-m", module, *to_command(rest)])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as mistake:
        log(f"error: {mistake}")
        sys.exit(EXIT_USER_ERROR)
