"""`python -m datasets clinic`: finds a built set, and serves its page on this machine until it is stopped."""

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
    name: Annotated[str | None, typer.Argument(help="A set that was built: its folder in data/sets.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The experiment's YAML file instead.", **AS_PATH)
    ] = None,
    overrides: SetOption = None,
    stage: Annotated[Literal["train", "finetune"], typer.Option(help="Which of the experiment's two sets.")] = "train",
    size: Annotated[
        str | None, typer.Option("--size", help="As in the manifest's name; the newest if not given.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Look at what cleaning did, and decide otherwise: a page on this machine alone."""
    if (name is None) == (config is None):
        raise UserError("clinic: allowed a set's name or a config, try `make clinic SET=name`")
    if name is not None:
        found, command = set_by_name(name, size, list(overrides or ()))
    else:
        assert config is not None
        found, command = set_by_config(config, list(overrides or ()), stage)
    session = open_session(found, command)
    from datasets.clinic.server import make_app

    opened = f"the clinic of {found.data.set} is open, choices are kept in {session.plan.decisions_path}"
    try:
        serve_page(make_app(session), LOOPBACK[0], port, opened, open_page)
    finally:
        session.close()  # a rebuild that is under way is stopped, and leaves nothing half-made
    log(f"the clinic is closed; {len(session.decisions())} choices in {session.plan.decisions_path}")


def open_session(config: Config, command: list[str]) -> "Session":
    """The set of a config, as its last build left it. UserError where it is missing, and which target makes it."""
    with ui_extra("clinic"):
        from datasets.clinic import server  # noqa: F401
        from datasets.clinic.session import Session
    plan = SetPlan.of(config.data, config.clean)
    if not (plan.manifest.is_file() and plan.summary.is_file()):
        raise _missing(plan.data.set, f"at {plan.data.size_name} pixels")
    if plan.data.source == "cifar10":
        raise UserError("clinic: cifar10 comes decoded and sorted; there is nothing to clean")
    folder = plan.pictures_folder()
    if not folder.is_dir():
        raise UserError(f"{folder}: the set's pictures have gone; build it again with `make dataset`")
    return Session(plan, command)


def set_by_config(path: Path, overrides: list[str], stage: str) -> tuple[Config, list[str]]:
    """(config, the command that builds its set anew)."""
    config = load_config(path, overrides)
    config = finetune_config(config) if stage == "finetune" else config
    return config, _build_command(path, overrides, stage)


def set_by_name(name: str, size: str | None, overrides: list[str]) -> tuple[Config, list[str]]:
    """As `set_by_config`, from what the set's summary says of how it was made."""
    folder = Path("data/sets") / name
    if "/" in name or name.startswith("."):
        raise UserError(f"SET: found {name!r}, allowed the name of a folder in data/sets")
    found = sorted(folder.glob(f"summary-{size or '*'}.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise _missing(name, f"at {size} pixels" if size else "")
    if len(found) > 1:
        log(f"{folder}: there are {len(found)} sizes; the newest is taken, SIZE= takes another")
    overrides = [*recipe_overrides(name, read_summary(found[-1])["recipe"]), *overrides]
    return load_config(BASE, overrides), _build_command(BASE, overrides, "train")


def recipe_overrides(name: str, recipe: dict[str, Any]) -> list[str]:
    """What `--set` must say for the same set to be built."""
    said = {f"data.{key}": value for key, value in recipe.items() if key in Data.model_fields}
    clean = recipe.get("clean") or {}
    said |= {f"clean.{key}": value for key, value in clean.items() if key in Clean.model_fields}
    return [f"{key}={json.dumps(value)}" for key, value in {**said, "data.set": name}.items()]  # JSON is YAML


def _build_command(config: Path, overrides: list[str], stage: str) -> list[str]:
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "datasets", "build", "--config", str(config), "--stage", stage]
    return [*command, "--rebuild", *settings]


def _missing(name: str, at: str) -> UserError:
    place = f"data/sets/{name}"
    targets = f"`make dataset SET={name}`, or `make dataset SET=folder SRC=path/to/pictures NAME={name}`"
    return UserError(f"{place}: found no set that was built{' ' + at if at else ''}; make it with {targets}")
