"""`python -m datasets build | procedural | folder | reader`. Paths go to stdout, progress to stderr."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import ConfigOption, DryRunOption, SetOption, make_app, run_command
from harness.config import Config, check_config, config_to_dict, finetune_config, load_config
from harness.errors import UserError

app = make_app("From pictures to training sets.")
BASE = Path(__file__).resolve().parents[1] / "configs" / "base.yaml"
PROCEDURAL_SETS = {"cars": "ordinary", "concept": "concept", "messy": "messy"}

RebuildOption = Annotated[bool, typer.Option("--rebuild", help="Build it anew even if it is there.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that decode; all cores if not given.")
]
SizeOption = Annotated[str | None, typer.Option("--size", help="64, or height x width as in 128x224.")]


class Stage(StrEnum):
    train = "train"
    finetune = "finetune"
    all = "all"


@app.command()
def build(
    config: ConfigOption,
    overrides: SetOption = None,
    stage: Annotated[Stage, typer.Option(help="Which of the experiment's two sets.")] = Stage.all,
    src: Annotated[str | None, typer.Option(help="The stage's folder of pictures, in place of data.src.")] = None,
    rebuild: RebuildOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
) -> None:
    """Build the sets of an experiment unless they are there."""
    resolved = load_config(config, overrides or ())
    configs = {Stage.train: resolved, Stage.finetune: finetune_config(resolved)}
    wanted = [found for name, found in configs.items() if stage in (name, Stage.all)]
    if src:
        if len(wanted) > 1:
            raise UserError("SRC: found one folder for two sets, allowed with --stage train or --stage finetune")
        wanted = [_with_src(wanted[0], src)]
    _build_all(wanted, rebuild, dry_run, workers, verify=stage == Stage.all)


@app.command()
def procedural(
    size: SizeOption = None,
    count: Annotated[int | None, typer.Option(min=1, help="Pictures in each set.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    rebuild: RebuildOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
) -> None:
    """Draw and pack the three procedural sets: cars, concept and messy."""
    changes = [*_size_change(size)]
    changes += [f"data.count={count}"] if count else []
    changes += [f"data.seed={seed}"] if seed is not None else []
    configs = [
        load_config(BASE, [*changes, f"data.set={name}", f"data.kind={kind}"]) for name, kind in PROCEDURAL_SETS.items()
    ]
    _build_all(configs, rebuild, dry_run, workers, verify=True)


@app.command()
def folder(
    src: Annotated[str, typer.Argument(help="Folder of pictures; sub-folders are classes.")],
    name: Annotated[str | None, typer.Option(help="The set's name; the folder's if not given.")] = None,
    size: SizeOption = None,
    rebuild: RebuildOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
) -> None:
    """Pack a folder of pictures that you have."""
    if not src:
        raise UserError("SRC: found nothing, allowed a folder of pictures, try SRC=path/to/pictures")
    changes = {"data.source": "folder", "data.src": src, "data.set": name or Path(src).resolve().name}
    quoted = [f"{key}={_yaml_text(value)}" for key, value in changes.items()]
    _build_all([load_config(BASE, [*quoted, *_size_change(size)])], rebuild, dry_run, workers, verify=True)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def reader(context: typer.Context) -> None:
    """Train the small network that reads a car's factors from a picture."""
    from datasets.reader import reader_command  # imports torch: the other commands work without

    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(reader_command)
    alone(context.args, prog_name="python -m datasets reader")


def _build_all(configs: list[Config], rebuild: bool, dry_run: bool, workers: int | None, verify: bool) -> None:
    from datasets.pack import build_set
    from datasets.recipe import Places, find_complete, recipe_with_place

    for config in configs:
        if dry_run:
            data, places = config.data, Places.of(config.data)
            state = "is there" if find_complete(data) else f"to be built into {places.train.parent}"
            print(f"# set {data.set} at {data.size_name}: {state}")
            for key, value in recipe_with_place(data).items():
                print(f"#   {key}: {value}")
            continue
        for path in build_set(config.data, rebuild=rebuild, verify=verify, workers=workers):
            print(path)


def _with_src(config: Config, src: str) -> Config:
    content = config_to_dict(config)
    return check_config({**content, "data": {**content["data"], "src": src}}, "SRC")


def _size_change(size: str | None) -> list[str]:
    """`64` or `128x224` (height x width) as an override."""
    if size is None:
        return []
    parts = size.lower().split("x")
    if not all(part.isdigit() for part in parts) or len(parts) > 2:
        raise UserError(f"SIZE: found {size!r}, allowed 64 or height x width as in 128x224")
    return [f"data.img_size=[{parts[0]}, {parts[-1]}]"]


def _yaml_text(text: Any) -> str:
    return "'" + str(text).replace("'", "''") + "'"


if __name__ == "__main__":
    run_command(app)
