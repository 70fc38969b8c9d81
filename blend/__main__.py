"""`python -m blend encoder | invert | measure | blend | gallery | demo | studio | draw`. Paths go to stdout,
progress to stderr.

Torch is imported where it is needed.
"""

from pathlib import Path
from typing import Annotated

import typer

from blend.generator.kinds import Kind
from harness.checkpoints.chosen_config import chosen_config, chosen_path, to_base_run
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
from harness.config.experiment import Config, base_name, config_to_yaml, finetuned_name
from harness.storage.json_files import to_json
from harness.storage.rundir import refuse_other_size

app = make_app("From a photo to futuristic designs.")

LabelOption = Annotated[
    str | None, typer.Option(help="Class of the cars, or a mix (audi:0.6,porsche:0.4); default: predicted.")
]


@app.command()
def encoder(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    limit_steps: Annotated[int | None, typer.Option("--limit-steps", min=1, help="Stop at this step.")] = None,
    other_set: OtherSetOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train or resume the ResNet-18 that turns a picture into a latent. Prints its folder."""
    if resolved := _resolved(config, run, overrides, dry_run, other_set):
        from blend.encoder.train import train_encoder

        print(train_encoder(resolved, limit_steps=limit_steps))


@app.command()
def invert(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    src: Annotated[
        Path | None, typer.Option(help="A folder of pictures, or one picture; default: held-out pictures.", **AS_PATH)
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the pictures show.")] = "ordinary",
    label: LabelOption = None,
    other_set: OtherSetOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Find the latents of pictures. Prints sheets of targets, encoder outputs and refined pictures."""
    if resolved := _resolved(config, run, overrides, dry_run, other_set):
        from blend.designs.commands import invert_command

        for path in invert_command(resolved, src, kind, label):
            print(path)


@app.command()
def measure(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    other_set: OtherSetOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Measure the dial on pairs of held-out pictures. Prints metrics.json's path."""
    if resolved := _resolved(config, run, overrides, dry_run, other_set):
        from blend.designs.commands import measure_command

        print(measure_command(resolved))


@app.command()
def blend(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    ordinary: Annotated[Path | None, typer.Option(help="Folder of ordinary cars, or one picture.", **AS_PATH)] = None,
    concept: Annotated[Path | None, typer.Option(help="Folder of concept cars, or one picture.", **AS_PATH)] = None,
    intensity: Annotated[
        float | None, typer.Option(min=0, max=1, help="The concept car's share of the latent.")
    ] = None,
    style: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The fine-tuned generator's share of the weights; default: the intensity."),
    ] = None,
    futurism: Annotated[float | None, typer.Option(help="Futurism to reach: 0 = ordinary, 100 = concept.")] = None,
    span: Annotated[str | None, typer.Option("--range", help="Intensities for one pair, as from:to:count.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Cars without parents, such as 0-31.")] = None,
    label: LabelOption = None,
    name: Annotated[str | None, typer.Option(help="Name for the set of designs.")] = None,
    other_set: OtherSetOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Draw designs: all pairs of two folders, one pair over a range, or by seed. Prints the set's folder."""
    if resolved := _resolved(config, run, overrides, dry_run, other_set):
        from blend.designs.generate import Request, blend_command, text_to_range, text_to_seeds

        asked = Request(
            ordinary, concept, intensity, style, futurism,
            text_to_range(span) if span else None, tuple(text_to_seeds(seeds)) if seeds else None, label, name,
        )  # fmt: skip
        print(blend_command(resolved, asked))


@app.command()
def gallery(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    other_set: OtherSetOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Write the page of a run. Prints its path."""
    if resolved := _resolved(config, run, overrides, dry_run, other_set):
        from blend.report.report import make_report

        print(make_report(resolved))


@app.command()
def demo(
    config: ConfigOrNone = None,
    run: RunOption = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    pretrained: PretrainedOption = False,
) -> None:
    """Run all stages, from drawn cars to the page."""
    from blend.demo.demo import demo_run
    from blend.demo.stages import STAGES, start_from_pretrained

    changes, stages = overrides or [], STAGES
    if pretrained:
        from harness.checkpoints.pretrained import pretrained_changes

        changes, stages = [*pretrained_changes(), *changes], start_from_pretrained(STAGES)
    demo_run(chosen_path(config, to_base_run(run)), changes, dry_run, stages)


@app.command()
def studio(
    run: Annotated[
        str | None,
        typer.Option(help="A run (its folder in runs/); default: demo if it exists, else pretrained."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    overrides: SetOption = None,
    other_set: OtherSetOption = False,
) -> None:
    """Serve the designer's page on this machine. Prints its address."""
    from blend.studio.command import studio_command

    studio_command(run, host, port, open_page, other_set, overrides or ())


@app.command()
def draw(
    source: Annotated[Path, typer.Argument(help="A JSON or PNG file that the studio exported.", **AS_PATH)],
    out: Annotated[Path | None, typer.Option(help="The PNG to write; default: beside the source.", **AS_PATH)] = None,
    force: ForceOption = False,
) -> None:
    """Draw an exported design again, bit for bit. Prints the path of the PNG."""
    from blend.designs.export import draw_command

    for path in draw_command(source, out, force):
        print(path)


@app.command()
def drag(
    run: Annotated[str, typer.Option(help="A run (its folder in runs/).")] = "demo",
    tabs: Annotated[int, typer.Option(min=1, max=100)] = 10,
    seconds: Annotated[float, typer.Option(min=1, max=600)] = 60,
) -> None:
    """Load-test a studio: many tabs drag at once. Prints counts, times and memory as JSON."""

    from blend.studio.load_test import drag_command

    print(to_json(drag_command(run, tabs, seconds), indent=1))


def _resolved(
    config: Path | None, run: str | None, overrides: list[str] | None, dry_run: bool, other_set: bool
) -> Config | None:
    """The config of `--config` or `--run` with its overrides; None after a dry run, which prints it.

    UserError where its run has pictures of another size. `other_set`: accept the training sets that are there.
    """
    resolved = chosen_config(config, to_base_run(run), overrides)
    refuse_other_size(resolved)
    if not dry_run:
        if other_set:
            from harness.checkpoints.origin import accept_training_sets

            accept_training_sets(base_name(resolved), finetuned_name(resolved))
        return resolved
    print(config_to_yaml(resolved), end="")
    return None


if __name__ == "__main__":
    run_command(app)
