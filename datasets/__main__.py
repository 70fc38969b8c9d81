"""`python -m datasets build | procedural | folder | set | reader | …`. Paths go to stdout, progress to stderr."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.checkpoints.chosen_config import chosen_config
from harness.cli import ConfigOrNone, DryRunOption, RunOption, SetOption, make_app, run_command
from harness.config.data_sources import load_sources, recipe_to_changes, to_set_name
from harness.config.experiment import Config, check_config, config_to_dict, expand_path, finetune_config, load_config
from harness.config.paths import to_path
from harness.errors import UserError
from harness.storage.rundir import refuse_other_size

app = make_app("From pictures to training sets.")
BASE = Path(__file__).resolve().parents[1] / "configs" / "base.yaml"
PROCEDURAL_SETS = {"cars": "ordinary", "concept": "concept", "messy": "messy"}

RebuildOption = Annotated[
    bool, typer.Option("--rebuild", help="Decide and pack again even if the set exists; read only files that changed.")
]
RescanOption = Annotated[bool, typer.Option("--rescan", help="Build the set again and read every file.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that decode; default: all cores.")
]
OnOption = Annotated[str | None, typer.Option("--on", help="ray = decode on a Ray cluster.")]
PassOn: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}
SizeOption = Annotated[str | None, typer.Option("--size", help="64, or height x width such as 128x224.")]


@app.command()
def build(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    stage: Annotated[Literal["train", "finetune", "all"], typer.Option(help="Which of the experiment's sets.")] = "all",
    src: Annotated[str | None, typer.Option(help="Folder of pictures of this stage, in place of data.src.")] = None,
    rebuild: RebuildOption = False,
    rescan: RescanOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
) -> None:
    """Build the sets of an experiment if they do not exist yet."""
    resolved = chosen_config(config, run, overrides, training=True)
    if stage != "all":  # a training is next
        refuse_other_size(resolved)
    configs = {"train": resolved, "finetune": finetune_config(resolved)}
    wanted = [found for name, found in configs.items() if stage in (name, "all")]
    if src:
        if len(wanted) > 1:
            raise UserError("SRC: found one folder for two sets, allowed with --stage train or --stage finetune")
        wanted = [_with_src(wanted[0], src)]
    _build_all(wanted, dry_run, on, rebuild=rebuild, rescan=rescan, workers=workers, verify=stage == "all")


@app.command()
def procedural(
    size: SizeOption = None,
    count: Annotated[int | None, typer.Option(min=1, help="Pictures in each set.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    rebuild: RebuildOption = False,
    rescan: RescanOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
) -> None:
    """Draw and pack the three procedural sets: cars, concept and messy."""
    changes = [*_size_change(size)]
    changes += [f"data.count={count}"] if count else []
    changes += [f"data.seed={seed}"] if seed is not None else []
    configs = [
        load_config(BASE, [*changes, f"data.set={name}", f"data.kind={kind}"]) for name, kind in PROCEDURAL_SETS.items()
    ]
    _build_all(configs, dry_run, on, rebuild=rebuild, rescan=rescan, workers=workers, verify=True)


@app.command()
def folder(
    src: Annotated[str, typer.Argument(help="Folder of pictures; sub-folders are classes.")],
    name: Annotated[str | None, typer.Option(help="Name of the set; default: the folder's.")] = None,
    size: SizeOption = None,
    overrides: SetOption = None,
    rebuild: RebuildOption = False,
    rescan: RescanOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
) -> None:
    """Build a set from a folder of pictures."""
    if not src:
        raise UserError("SRC: found nothing, allowed a folder of pictures, try SRC=path/to/pictures")
    set_name = name or to_set_name(to_path(src).resolve().name)
    if not set_name:
        raise UserError(f"NAME: found no letter or digit in {src}, allowed letters and digits, try NAME=my-cars")
    changes = {"data.source": "folder", "data.src": src, "data.set": set_name}
    config = load_config(BASE, [*_to_overrides(changes), *_size_change(size), *(overrides or ())])
    _build_all([config], dry_run, on, rebuild=rebuild, rescan=rescan, workers=workers, verify=True)


@app.command("set")
def named_set(
    name: Annotated[str, typer.Argument(help="A recipe of configs/sources.yaml.")],
    src: Annotated[str | None, typer.Option(help="Its pictures; default: where `make scrape` puts them.")] = None,
    size: SizeOption = None,
    overrides: SetOption = None,
    rebuild: RebuildOption = False,
    rescan: RescanOption = False,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
) -> None:
    """Build a set that has a recipe: brands50, car_connection, concept, cifar10."""
    recipe = load_sources().recipe(name)
    if recipe.source == "procedural":
        raise UserError(f"SET: found {name!r}, which is three sets; try make dataset SET=procedural")
    changes = recipe_to_changes(recipe) | ({"data.src": src} if src else {})
    if "data.set" not in changes:
        raise UserError(f"SET: found {name!r}, which needs a folder, try make dataset SET=folder SRC=path/to/pictures")
    place = changes.get("data.src")
    if changes["data.source"] == "folder" and not expand_path(str(place)).is_dir() and not dry_run:
        raise UserError(f"{place}: not found; fetch it with `make scrape SOURCE={recipe.source}`, or set SRC=")
    config = load_config(BASE, [*_to_overrides(changes), *_size_change(size), *(overrides or ())])
    _build_all([config], dry_run, on, rebuild=rebuild, rescan=rescan, workers=workers, verify=True)


@app.command(add_help_option=False, context_settings=PassOn)
def reader(context: typer.Context) -> None:
    """Train the small network that predicts a car's factors from a picture."""
    from datasets.train_shipped.train_reader import reader_command  # here: imports torch

    _run_alone(context, reader=reader_command)


@app.command(add_help_option=False, context_settings=PassOn)
def clinic(context: typer.Context) -> None:
    """Serve a page to review what cleaning did and decide otherwise."""
    from datasets.clinic.command import clinic_command

    _run_alone(context, clinic=clinic_command)


@app.command(add_help_option=False, context_settings=PassOn)
def bench(context: typer.Context) -> None:
    """Measure this stage: speed beside plain decoding and StudioGAN's, memory, duplicates, hostile files, kills."""
    from datasets.bench.speed_and_memory import bench_command

    _run_alone(context, bench=bench_command)


@app.command("sorter", add_help_option=False, context_settings=PassOn)
def view_classifier(context: typer.Context) -> None:
    """Train or measure the view classifier: sorter train, sorter measure."""
    from datasets.train_shipped.measure_view_classifier import measure_command
    from datasets.train_shipped.train_view_classifier import train_command

    _run_alone(context, train=train_command, measure=measure_command)


def _run_alone(context: typer.Context, **commands: Callable[..., None]) -> None:
    """Runs a command (or several, by name) with its own options, whose module is imported only when needed."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    for name, command in commands.items():
        alone.command(name)(command)
    alone(context.args, prog_name=f"python -m datasets {context.info_name}")


def _build_all(configs: list[Config], dry_run: bool, on: str | None, **options: Any) -> None:
    """`options`: of `build_set`."""
    from datasets.pack.build_set import build_set
    from datasets.pack.recipe import SetPlan, find_complete
    from datasets.report.report import update_report
    from harness.messages import log

    if on == "ray":
        from datasets.scan.ray_pool import map_on_ray

        options["mapper"] = map_on_ray
    elif on is not None:
        raise UserError(f"--on: found {on!r}, allowed ray, or no --on for this machine alone")
    for config in configs:
        plan = SetPlan.of(config.data, config.clean)
        if dry_run:
            state = "complete" if find_complete(plan) else f"to be built into {plan.train.parent}"
            print(f"# set {plan.name}: {state}")
            for key, value in plan.recipe_with_places().items():
                print(f"#   {key}: {value}")
            continue
        paths = build_set(plan, **options)
        if page := update_report(plan):
            log(f"report on every file: {page}")
        print(*paths, sep="\n")


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


def _to_overrides(changes: dict[str, Any]) -> list[str]:
    """`--set` overrides; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


if __name__ == "__main__":
    run_command(app)
