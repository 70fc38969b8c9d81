"""Do DiffAugment and LeCam help when there are few pictures? Trains with and without, and writes a table.

`python -m harness.metrics.ablation --config configs/demo.yaml`: same pictures and steps, several seeds; held-out KID on
the factor reader's features. Finished runs are kept in the scratch folder and not done again.
"""

import json
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from harness.atomic import atomic_write
from harness.cli import ConfigOption, SetOption, run_command
from harness.config import Config, check_config, config_to_dict, load_config, merge
from harness.errors import UserError
from harness.hdf5 import PackedWriter, open_packed

ARMS = {  # name → (DiffAugment, LeCam)
    "both": (True, True),
    "DiffAugment alone": (True, False),
    "LeCam alone": (False, True),
    "neither": (False, False),
}
MARKS = 4  # a run is measured so often, at even distances
SAMPLES = 1000
HELD_OUT = 2000
COMMAND = "python -m harness.metrics.ablation"


def run_ablation(
    config: Config, work: Path, *, pictures: int, steps: int, seeds: int, arms: list[str], jobs: int
) -> list[dict[str, Any]]:
    """Trains and measures every arm with every seed in `work`. Returns one row a run: arm, seed, marks, baseline."""
    work.mkdir(parents=True, exist_ok=True)
    facts = pack_pictures(config, work, pictures)
    marks = sorted({max(1, round(steps * k / MARKS)) for k in range(1, MARKS + 1)})
    todo = []
    for seed in range(seeds):
        for arm in arms:
            content = config_to_dict(arm_config(config, arm, seed, steps))
            todo.append((content, str(work.resolve()), marks, {"arm": arm, "seed": seed, **facts}))
    with get_context("spawn").Pool(min(jobs, len(todo)), maxtasksperchild=1) as pool:
        rows = []
        for row in pool.imap_unordered(_train_one, todo):
            rows.append(row)
            print(f"{len(rows)} of {len(todo)}: {row['arm']}, seed {row['seed']}: {row['marks'][-1]}", file=sys.stderr)
    return rows


def arm_config(config: Config, arm: str, seed: int, steps: int) -> Config:
    """The config with one arm's switches; everything else, the number of steps included, is alike in all arms."""
    diffaug, lecam = ARMS[arm]
    name = f"{arm.lower().replace(' ', '-')}-{seed}"
    changes = {
        "name": name,
        "seed": config.seed + seed,
        "augment": {"apply_diffaug": diffaug},
        "loss": {"apply_lecam": lecam},
        "optim": {"total_steps": steps},
        "train": {"threads": 1, "device": "cpu", "save_every_steps": steps, "sample_every_steps": steps},
    }
    return check_config(merge(config_to_dict(config), changes), f"ablation {name}")


def pack_pictures(config: Config, work: Path, pictures: int) -> dict[str, Any]:
    """The first training rows for the runs; the valid rows and all others are held out. Packed under `work`, once."""
    train, held_out = work / config.data.hdf5_path("train"), work / config.data.hdf5_path("valid")
    with open_packed(config.data.hdf5_path("train")) as source, open_packed(config.data.hdf5_path("valid")) as valid:
        if source.count < pictures:
            raise UserError(f"--pictures: found {pictures}, allowed up to the {source.count} rows of {source.path}")
        facts = {"data_sha256": source.sha256, "pictures": pictures}
        for path, parts in (
            (train, [(source, np.arange(pictures))]),
            (held_out, [(valid, np.arange(valid.count)), (source, np.arange(pictures, source.count))]),
        ):
            rows = [(packed, row) for packed, numbers in parts for row in numbers][:HELD_OUT]
            if path.exists() and _made_from(path) == [facts["data_sha256"], len(rows)]:
                continue
            made_from = {"made_from": facts["data_sha256"]}
            with PackedWriter(path, source.height, source.width, source.class_names, made_from) as writer:
                for packed, row in rows:
                    writer.append(packed.read(np.array([row]))[0], int(packed.labels[row]))
    return facts


def _made_from(path: Path) -> list[Any]:
    with open_packed(path) as packed:
        return [packed.attributes.get("made_from"), packed.count]


def _train_one(job: tuple[dict[str, Any], str, list[int], dict[str, Any]]) -> dict[str, Any]:
    """One run in a process of its own: trains to each mark and measures there, unless that was done before."""
    content, work, marks, facts = job
    os.chdir(work)
    from harness.features import load_reader
    from harness.native.train import train_run

    config, reader = check_config(content, "ablation"), load_reader()
    result = Path("results") / f"{config.name}.json"
    result.parent.mkdir(exist_ok=True)
    key = {**facts, "config": content, "reader_sha256": reader.sha256, "samples": SAMPLES}
    kept = json.loads(result.read_text()) if result.exists() else {}
    row = kept if kept.get("key") == key else {"key": key, "arm": facts["arm"], "seed": facts["seed"], "marks": []}
    done = {mark["step"] for mark in row["marks"]}
    for step in marks:
        if step not in done:
            run = train_run(config, limit_steps=step)
            row["marks"].append(_measure(reader, config, run, step))
            atomic_write(result, json.dumps(row))
    return row


def _measure(reader: Any, config: Config, run: Path, step: int) -> dict[str, Any]:
    from harness.metrics.distances import kid
    from harness.metrics.evaluate import sample_checkpoint
    from harness.native.checkpoint import checkpoint_folder

    samples = sample_checkpoint(checkpoint_folder(run / "checkpoints", step), SAMPLES)
    with open_packed(config.data.hdf5_path("train")) as train, open_packed(config.data.hdf5_path("valid")) as held_out:
        real, seen = reader.featurizer(held_out.read()), reader.featurizer(train.read())
    return {
        "step": step,
        "kid": kid(reader.featurizer(samples), real),
        "kid_of_training_pictures": kid(seen, real),
        "accepted": float(reader.accepts(samples).mean()),
    }


# ---- the table --------------------------------------------------------------------------------------------------


def rows_to_markdown(rows: list[dict[str, Any]], command: str) -> str:
    """Held-out KID: mean and standard deviation over seeds, at every mark; below, each seed's last value."""
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    marks = [mark["step"] for mark in rows[0]["marks"]]
    seeds = sorted({row["seed"] for row in rows})
    floor = rows[0]["marks"][0]["kid_of_training_pictures"]
    lines = [
        "# DiffAugment and LeCam, with and without",
        "",
        "Held-out KID on the factor reader's features (lower is better), mean ± standard deviation over seeds:",
        f"{len(seeds)} seeds, {rows[0]['key']['pictures']} training pictures, {SAMPLES} samples a measure.",
        f"The training pictures themselves have {floor:.4f}.",
        "",
        "| | " + " | ".join(f"step {mark}" for mark in marks) + " | accepted as cars | each seed at the end |",
        "|---" * (len(marks) + 3) + "|",
    ]
    for arm in arms:
        runs = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        values = np.array([[mark["kid"] for mark in row["marks"]] for row in runs])
        cells = [f"{mean:.3f} ± {std:.3f}" for mean, std in zip(values.mean(0), values.std(0), strict=True)]
        accepted = np.mean([row["marks"][-1]["accepted"] for row in runs])
        each = ", ".join(f"{value:.3f}" for value in values[:, -1])
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {accepted:.0%} | {each} |")
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def main(
    config: ConfigOption = Path("configs/demo.yaml"),
    overrides: SetOption = None,
    work: Annotated[Path, typer.Option(help="Scratch folder; finished runs in it are kept.")] = Path("runs/.ablation"),
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("docs/ablation.md"),
    pictures: Annotated[int, typer.Option(min=2, help="Training pictures.")] = 500,
    steps: Annotated[int | None, typer.Option(min=MARKS, help="Steps of each run; default: the config's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm.")] = 3,
    arms: Annotated[str, typer.Option(help="Names with commas between.")] = ",".join(ARMS),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 2,
) -> None:
    """Train with and without DiffAugment and LeCam on few pictures; writes a table of held-out KID."""
    chosen = arms.split(",")
    if unknown := sorted(set(chosen) - set(ARMS)):
        raise UserError(f"--arms: found {', '.join(unknown)}, allowed {', '.join(ARMS)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that are started
    resolved = load_config(config, overrides or ())
    count = steps or resolved.optim.total_steps
    rows = run_ablation(resolved, work, pictures=pictures, steps=count, seeds=seeds, arms=chosen, jobs=jobs)
    words = [COMMAND, "--config", str(config), *(f"--set {text}" for text in overrides or ())]
    words += [f"--pictures {pictures}", f"--steps {steps}" * bool(steps), f"--seeds {seeds}", f"--arms '{arms}'"]
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, rows_to_markdown(rows, " ".join(word for word in words if word)))
    print(out)


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(main)
    run_command(application)
