"""`python -m datasets clinic`: finds a built set and serves its page until it is stopped."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from datasets.pack.recipe import SetPlan, read_summary
from harness.cli import AS_PATH, SetOption
from harness.config.experiment import Config, Data, finetune_config, load_config
from harness.config.schema import Clean
from harness.errors import UserError
from harness.messages import log
from harness.web.serve import LOOPBACK, serve_page, ui_extra

if TYPE_CHECKING:
    from datasets.clinic.session import Session

BASE = Path(__file__).resolve().parents[2] / "configs" / "base.yaml"


def clinic_command(
    name: Annotated[str | None, typer.Argument(help="A built set: its folder in data/sets.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The experiment's YAML file, in place of a name.", **AS_PATH)
    ] = None,
    overrides: SetOption = None,
    stage: Annotated[Literal["train", "finetune"], typer.Option(help="Which of the experiment's two sets.")] = "train",
    size: Annotated[str | None, typer.Option("--size", help="As in the manifest's name; default: the newest.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Review what cleaning did and override it, on a local page."""
    if (name is None) == (config is None):
        raise UserError("clinic: allowed a set's name or a config, try `make clinic SET=name`")
    if name is not None:
        found, command = set_by_name(name, size, list(overrides or ()))
    else:
        assert config is not None
        found, command = set_by_config(config, list(overrides or ()), stage)
    session = open_session(found, command)
    from datasets.clinic.server import make_app

    opened = f"the clinic of {found.data.set} is open, choices are saved in {session.plan.decisions_path}"
    try:
        serve_page(make_app(session), LOOPBACK[0], port, opened, open_page)
    finally:
        session.close()  # stops a running rebuild, which leaves no incomplete file
    log(f"the clinic is closed; {len(session.decisions())} choices in {session.plan.decisions_path}")


def open_session(config: Config, command: list[str]) -> "Session":
    """The last build of a config's set. UserError, with the make target, when it is missing."""
    with ui_extra("clinic"):
        from datasets.clinic import server  # noqa: F401
        from datasets.clinic.session import Session
    plan = SetPlan.of(config.data, config.clean)
    if not (plan.manifest.is_file() and plan.summary.is_file()):
        raise _missing(plan.data.set, f"at {plan.data.size_name} pixels")
    if plan.data.source == "cifar10":
        raise UserError("clinic: found cifar10, which is never cleaned; try a set of photos")
    folder = plan.pictures_folder()
    if not folder.is_dir():
        raise UserError(f"{folder}: found no pictures of the set; build it again with `make dataset`")
    return Session(plan, command)


def set_by_config(path: Path, overrides: list[str], stage: str) -> tuple[Config, list[str]]:
    """(config, the command that rebuilds its set)."""
    config = load_config(path, overrides)
    config = finetune_config(config) if stage == "finetune" else config
    return config, _build_command(path, overrides, stage)


def set_by_name(name: str, size: str | None, overrides: list[str]) -> tuple[Config, list[str]]:
    """As `set_by_config`, from the recipe in the set's summary."""
    folder = Path("data/sets") / name
    if "/" in name or name.startswith("."):
        raise UserError(f"SET: found {name!r}, allowed the name of a folder in data/sets")
    found = sorted(folder.glob(f"summary-{size or '*'}.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise _missing(name, f"at {size} pixels" if size else "")
    if len(found) > 1:
        log(f"{folder}: found {len(found)} sizes, using the newest; SIZE= selects another")
    overrides = [*recipe_overrides(name, read_summary(found[-1])["recipe"]), *overrides]
    return load_config(BASE, overrides), _build_command(BASE, overrides, "train")


def recipe_overrides(name: str, recipe: dict[str, Any]) -> list[str]:
    """The `--set` overrides that give the same set."""
    clean = recipe.get("clean") or {}
    changes = {f"data.{key}": value for key, value in recipe.items() if key in Data.model_fields}
    changes |= {f"clean.{key}": value for key, value in clean.items() if key in Clean.model_fields}
    return [f"{key}={json.dumps(value)}" for key, value in {**changes, "data.set": name}.items()]  # JSON is YAML


def _build_command(config: Path, overrides: list[str], stage: str) -> list[str]:
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "datasets", "build", "--config", str(config), "--stage", stage]
    return [*command, "--rebuild", *settings]


def _missing(name: str, at: str) -> UserError:
    place = f"data/sets/{name}"
    targets = f"`make dataset SET={name}`, or `make dataset SET=folder SRC=path/to/pictures NAME={name}`"
    return UserError(f"{place}: found no set that was built{' ' + at if at else ''}; make it with {targets}")
