"""`python -m harness train`, `finetune`, `evaluate` and the other commands of `--help`.

Torch is imported where it is needed.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.checkpoints.chosen_config import changed_config, chosen_config, find_run
from harness.cli import (
    AS_PATH,
    ConfigOrNone,
    DryRunOption,
    ForceOption,
    OtherSetOption,
    PretrainedOption,
    RunOption,
    SetOption,
    make_app,
    run_command,
)
from harness.config.experiment import (
    Config,
    base_name,
    config_to_yaml,
    finetune_config,
)
from harness.errors import UserError
from harness.storage.json_files import to_json

app = make_app("Trains the car GAN: the engines, and what they need to know about the machine.")

LimitOption = Annotated[int | None, typer.Option("--limit-steps", min=1, help="Stop at this step.")]
ChangeOption = Annotated[
    bool, typer.Option("--allow-config-change", help="Resume although the config differs from the run's.")
]


ProcessesOption = Annotated[
    int, typer.Option("--processes", min=1, help="Number of processes, with engine: studiogan (make: NPROC=).")
]


@app.command()
def train(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    limit_steps: LimitOption = None,
    dry_run: DryRunOption = False,
    allow_config_change: ChangeOption = False,
    processes: ProcessesOption = 1,
    pretrained: PretrainedOption = False,
) -> None:
    """Train or resume a run. Prints its folder."""
    resolved = chosen_config(config, run, [*_pretrained_changes(pretrained), *(overrides or ())], training=True)
    if dry_run:
        more = {"starts from": "the ready-made model"} if pretrained else {}
        return _print_plan(resolved, limit_steps, **more)
    options: dict[str, Any] = {"limit_steps": limit_steps, "allow_config_change": allow_config_change}
    if pretrained:
        from harness.native.train import pretrained_source

        _refuse_foreign_engine(resolved)
        options["source"] = pretrained_source(resolved)
    _start("train_run", resolved, processes, **options)


@app.command()
def finetune(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--from-checkpoint", help="best, or a folder name under the source run's checkpoints/."),
    ] = None,
    limit_steps: LimitOption = None,
    dry_run: DryRunOption = False,
    allow_config_change: ChangeOption = False,
    processes: ProcessesOption = 1,
    pretrained: PretrainedOption = False,
) -> None:
    """Fine-tune the config's run on its second set (FreezeD). Prints the new run's folder."""
    resolved = chosen_config(config, run, [*_pretrained_changes(pretrained), *(overrides or ())], training=True)
    if dry_run:
        tuned = finetune_config(resolved)
        more = {"starts from": f"runs/{base_name(resolved)}, checkpoint {checkpoint or 'newest'}"}
        return _print_plan(tuned, limit_steps, **more)
    if pretrained and not (Path("runs") / base_name(resolved)).exists():
        from harness.checkpoints.pretrained import copy_pretrained
        from harness.native.train import pretrained_source

        _refuse_foreign_engine(resolved)
        pretrained_source(resolved)
        copy_pretrained(resolved.model_copy(update={"name": base_name(resolved)}))
    options = {"checkpoint": checkpoint, "limit_steps": limit_steps, "allow_config_change": allow_config_change}
    _start("finetune_run", resolved, processes, **options)


def _pretrained_changes(pretrained: bool) -> list[str]:
    if not pretrained:
        return []
    from harness.checkpoints.pretrained import pretrained_changes

    return pretrained_changes()


def _refuse_foreign_engine(config: Config) -> None:
    if config.engine != "native":
        raise UserError(f"--pretrained: found engine: {config.engine}, allowed native; try --set engine=native")


def _start(task: str, config: Config, processes: int, **options: Any) -> None:
    """Calls the engine's `task`. Prints the run's folder: once, also when torchrun started several processes."""
    if config.engine == "studiogan":
        engine, options["processes"] = import_module("harness.studiogan.engine"), processes
    elif processes > 1:
        raise UserError(f"--processes: found {processes}, allowed 1 with engine: native, try NPROC={processes} of make")
    else:
        engine = import_module("harness.native.train")
    folder = getattr(engine, task)(config, **options)
    if os.environ.get("RANK", "0") == "0":
        print(folder)


def _print_plan(config: Config, limit_steps: int | None, **more: Any) -> None:
    """Prints the resolved config as YAML, then what follows from it as YAML comments."""
    optim, (height, width) = config.optim, config.data.img_size
    steps = min(optim.total_steps, limit_steps or optim.total_steps)
    pictures = optim.batch_size * optim.acml_steps
    packed = config.data.hdf5_path("train")
    facts = {
        "run folder": f"runs/{config.name}",
        "training set": f"{packed} ({'there' if packed.exists() else 'missing: make dataset'})",
        "picture": f"{height} x {width} pixels (height x width)",
        "steps": f"{steps} of {optim.total_steps}",
        "discriminator updates per step": optim.d_updates_per_step,
        "real pictures per discriminator update": f"{pictures} ({pictures * optim.d_updates_per_step * steps} in all)",
        **more,
    }
    print(config_to_yaml(config), end="")
    for key, value in facts.items():
        print(f"# {key}: {value}")


RunArgument = Annotated[str, typer.Argument(help="A run's name: its folder under runs/.")]
CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", help="best, or a folder under checkpoints/; default: the newest.")
]


@app.command()
def evaluate(
    run: RunArgument,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    other_set: OtherSetOption = False,
) -> None:
    """Compare a run's samples with real pictures: FID or FD, KID, IS, F_8, precision, recall, density, coverage."""
    from harness.checkpoints.origin import accept_training_sets
    from harness.metrics.evaluate import evaluate_run, evaluation_to_text

    rundir = find_run(run)
    config = changed_config(rundir, overrides)
    if other_set:
        accept_training_sets(rundir.path.name)
    evaluation = evaluate_run(rundir, config.evaluate, checkpoint, sample_passes=config.reconstruction.sample_passes)
    print(to_json(evaluation, indent=1) if as_json else evaluation_to_text(evaluation))


@app.command()
def sample(
    run: RunArgument,
    label: Annotated[
        str,
        typer.Option(
            "--label", "--brand", help="A class (name or number), a mix (audi:0.6,porsche:0.4), random, or all."
        ),
    ] = "random",
    overrides: SetOption = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", min=1, max=10_000, help="Number of pictures; default: 36, or 8 of each class with all."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the latents.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for single PNG files in place of a grid.", **AS_PATH)
    ] = None,
    truncation: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Truncation towards the mean latent: 1 = none, 0 = the mean car.")
    ] = 1.0,
    force: ForceOption = False,
) -> None:
    """Draw cars, of a chosen class if the run has classes. Prints the path of the grid or folder."""
    from harness.checkpoints.sample import sample_run

    print(sample_run(run, label, count, checkpoint, seed, out, truncation, force, overrides=overrides))


@app.command()
def configs(config: ConfigOrNone = None, run: RunOption = None, overrides: SetOption = None) -> None:
    """Write the configs that StudioGAN would get for this run and its FreezeD run. Prints their paths."""
    from harness.studiogan.dialects.convert import write_configs

    for path in write_configs(chosen_config(config, run, overrides)):
        print(path)


@app.command("export")
def export_command(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.", **AS_PATH)],
    to: Annotated[str, typer.Option("--to", help="Format of the files: studiogan.")] = "studiogan",
    version: Annotated[str, typer.Option("--version", help="StudioGAN's: 0.2.0 or 0.4.0.")] = "0.2.0",
    checkpoint: CheckpointOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run's checkpoint as StudioGAN's own files. Prints the folder."""
    from harness.studiogan.weights.runs import export_run

    if to != "studiogan":
        raise UserError(f"--to: found {to!r}, allowed studiogan, try --to studiogan")
    print(export_run(run, out, version, checkpoint, force))


@app.command("import")
def import_command(
    path: Annotated[
        Path, typer.Argument(help="Folder with StudioGAN's .pth files, or a generator's file alone.", **AS_PATH)
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name of the new run.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Our YAML, or StudioGAN's JSON or YAML; default: inferred from the weights.", **AS_PATH
        ),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Take the best checkpoint, not the current one.")] = False,
    overrides: SetOption = None,
) -> None:
    """Make a run of StudioGAN's weights, to fine-tune, evaluate, invert and blend. Prints its folder."""
    from harness.studiogan.weights.runs import import_run

    print(import_run(path, name, config, when="best" if best else "current", overrides=overrides or ()))


@app.command()
def benchmark(
    bench: Annotated[str, typer.Argument(help="One of StudioGAN's configs, such as CIFAR10/SNGAN.")],
    engine: Annotated[
        str, typer.Option("--engine", help="native, studiogan, or both from the same initial weights.")
    ] = "both",
    version: Annotated[str | None, typer.Option("--version", help="StudioGAN's: 0.2.0 or 0.4.0.")] = None,
    limit_steps: LimitOption = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only write the plan as a config, and print its path.")] = False,
) -> None:
    """Train one of StudioGAN's benchmarks and print the published figures beside ours."""
    from harness.benchmarks.benchmark import make_plan, run_benchmark

    planned = make_plan(bench, engine, overrides or (), version)
    if dry_run:
        for config in planned.configs.values():
            _print_plan(config, limit_steps)
    elif plan:
        print(planned.write())
    else:
        print(run_benchmark(bench, engine, limit_steps, overrides or (), version))


@app.command()
def read(
    run: RunArgument,
    count: Annotated[int, typer.Option(min=2, max=1_000_000, help="Samples to draw.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of their latents.")] = 0,
) -> None:
    """Read a run's samples with the factor reader: usable cars, futurism, variety, KID, as JSON."""
    from harness.metrics.evaluate import evaluate_with_reader

    print(to_json(evaluate_with_reader(run, count, seed), indent=1))


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, what the hardware can do."""
    from harness.doctor import main as examine

    raise typer.Exit(examine())


@app.command()
def studiogan(version: Annotated[str, typer.Option(help="0.2.0 or 0.4.0.")] = "0.2.0") -> None:
    """Clone StudioGAN into third_party/ and create its environment. Prints the checkout's folder."""
    from harness.studiogan.checkout import COMMITS, prepare

    if version not in COMMITS:
        raise UserError(f"VERSION: found {version!r}, allowed {' or '.join(COMMITS)}, try VERSION=0.2.0")
    print(prepare(version))


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="One small size only.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each variant.")] = 5,
    switches: Annotated[bool, typer.Option(help="Time each switch alone as well.")] = True,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time torch.compile as well (minutes of warm-up).")
    ] = False,
) -> None:
    """Time a step with each speed switch on and off, and beside StudioGAN's modules: one thread, CPU time."""
    from harness.benchmarks.step_speed import run_bench

    run_bench(quick, rounds, switches, compiled)


if __name__ == "__main__":
    run_command(app)
