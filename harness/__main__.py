"""`python -m harness train | finetune | read | doctor | studiogan | bench`. Torch is imported where it is needed."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import ConfigOption, DryRunOption, SetOption, make_app, run_command
from harness.config import Config, config_to_yaml, finetune_config, load_config
from harness.errors import UserError

app = make_app("Trains the car GAN: the engines, and what they need to know about the machine.")

LimitOption = Annotated[int | None, typer.Option("--limit-steps", min=1, help="Stop after so many steps.")]
ChangeOption = Annotated[
    bool, typer.Option("--allow-config-change", help="Resume although the config differs from the run's.")
]


@app.command()
def train(
    config: ConfigOption,
    overrides: SetOption = None,
    limit_steps: LimitOption = None,
    dry_run: DryRunOption = False,
    allow_config_change: ChangeOption = False,
) -> None:
    """Train a run, or go on with it. Prints the run's folder."""
    resolved = load_config(config, overrides or ())
    if dry_run:
        return _print_plan(resolved, limit_steps)
    from harness.native.train import train_run

    _print_folder(train_run(resolved, limit_steps=limit_steps, allow_config_change=allow_config_change))


@app.command()
def finetune(
    config: ConfigOption,
    overrides: SetOption = None,
    checkpoint: Annotated[
        str | None, typer.Option("--from-checkpoint", help="Folder name under the source run's checkpoints/.")
    ] = None,
    limit_steps: LimitOption = None,
    dry_run: DryRunOption = False,
    allow_config_change: ChangeOption = False,
) -> None:
    """FreezeD: fine-tune the config's run on its second set. Prints the new run's folder."""
    resolved = load_config(config, overrides or ())
    if dry_run:
        tuned = finetune_config(resolved)
        source = resolved.finetune.from_run or resolved.name
        more = {"starts from": f"runs/{source}, checkpoint {checkpoint or 'newest'}"}
        return _print_plan(tuned, limit_steps, **more)
    from harness.native.train import finetune_run

    _print_folder(
        finetune_run(resolved, checkpoint=checkpoint, limit_steps=limit_steps, allow_config_change=allow_config_change)
    )


def _print_folder(folder: Path) -> None:
    """Once, also when torchrun started several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(folder)


def _print_plan(config: Config, limit_steps: int | None, **more: Any) -> None:
    """The resolved config as YAML, then what follows from it, as YAML comments."""
    optim, (height, width) = config.optim, config.data.img_size
    steps = min(optim.total_steps, limit_steps or optim.total_steps)
    pictures = optim.batch_size * optim.acml_steps
    packed = config.data.hdf5_path("train")
    facts = {
        "run folder": f"runs/{config.name}",
        "training set": f"{packed} ({'there' if packed.exists() else 'missing: make dataset'})",
        "picture": f"{height} x {width} pixels (height x width)",
        "steps": f"{steps} of {optim.total_steps}, with {optim.d_updates_per_step} D updates each",
        "real pictures a D update": f"{pictures}; {pictures * optim.d_updates_per_step * steps} in all",
        **more,
    }
    print(config_to_yaml(config), end="")
    for key, value in facts.items():
        print(f"# {key}: {value}")


@app.command()
def read(
    run: Annotated[str, typer.Argument(help="A run's name: its folder under runs/.")],
    count: Annotated[int, typer.Option(min=2, help="Samples to draw.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of their latents.")] = 0,
) -> None:
    """What the factor reader says of a run's samples, as JSON: cars or not, futurism, variety, KID."""
    from harness.metrics.evaluate import read_run

    print(json.dumps(read_run(run, count, seed), indent=1))


@app.command()
def doctor() -> None:
    """What is installed, what is missing, what the hardware can do."""
    from harness.doctor import main as examine

    raise typer.Exit(examine())


@app.command()
def studiogan(version: Annotated[str, typer.Option(help="0.2.0 or 0.4.0.")] = "0.2.0") -> None:
    """Clone StudioGAN into third_party/ and make its environment. Prints the checkout's folder."""
    from harness.studiogan.checkout import COMMITS, prepare

    if version not in COMMITS:
        raise UserError(f"VERSION: found {version!r}, allowed {' or '.join(COMMITS)}, try VERSION=0.2.0")
    print(prepare(version))


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A small size only.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each contender.")] = 5,
    switches: Annotated[bool, typer.Option(help="Each switch alone, too.")] = True,
    compiled: Annotated[bool, typer.Option("--compile", help="Also torch.compile (minutes of warm-up).")] = False,
) -> None:
    """Step time: each speed switch on and off, and ours against StudioGAN's modules; one thread, CPU time."""
    from harness.native.bench import run_bench

    run_bench(quick, rounds, switches, compiled)


if __name__ == "__main__":
    run_command(app)
