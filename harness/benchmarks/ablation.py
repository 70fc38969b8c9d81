"""Ablation of a config's stabilisers: trains with all of them and with each one off, and writes a table.

`python -m harness.benchmarks.ablation --config configs/brands_demo.yaml` (`make ablate`): same pictures and steps,
several seeds. Finished runs in the work folder are not repeated; interrupted ones are resumed.
"""

import os
from collections.abc import Callable
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from pydantic import BaseModel, TypeAdapter

from harness.cli import AS_PATH, ConfigOption, SetOption, run_command
from harness.config.experiment import Config, check_config, complete_config, config_to_dict, load_config, merge
from harness.errors import UserError
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import PackedWriter, open_packed
from harness.storage.json_files import read_json, to_json
from harness.storage.output import check_output
from harness.storage.splits import open_evaluation_rows, open_training_rows

MARKS = 4  # evenly spaced measurements of each run
SAMPLES = 1000
HELD_OUT = 2000
COMMAND = "python -m harness.benchmarks.ablation"
WHOLE = "whole"


class Mark(BaseModel):
    step: int
    kid: float
    diversity: float


class AblationFile(BaseModel):
    """The result of one run; `key`: all that it depends on."""

    key: dict[str, Any]
    arm: str
    seed: int
    marks: list[Mark]


RESULT = TypeAdapter(AblationFile)


# ---- arms: the config itself, and with stabilisers switched off or on ---------------------------------------------


class Stabiliser(NamedTuple):
    """Whether a config has it, and the nested keys that switch it on (True) or off."""

    is_on: Callable[[Config], bool]
    change: Callable[[Config, bool], dict[str, Any]]


def _switch(section: str, key: str) -> Stabiliser:
    return Stabiliser(lambda c: getattr(getattr(c, section), key), lambda c, on: {section: {key: on}})


STABILISERS: dict[str, Stabiliser] = {
    "spectral norm of D": _switch("model", "apply_d_sn"),
    "DiffAugment": _switch("augment", "apply_diffaug"),
    "EMA": _switch("model", "apply_g_ema"),
    "LeCam": _switch("loss", "apply_lecam"),
    "gradient penalty": _switch("loss", "apply_gp"),
    "R1": _switch("loss", "apply_r1_reg"),
    "mismatched names": _switch("loss", "apply_mismatch"),
    "similarity loss": _switch("loss", "apply_similarity"),
    "input noise": Stabiliser(
        lambda c: c.augment.d_input_noise > 0, lambda c, on: {"augment": {"d_input_noise": 0.1 if on else 0.0}}
    ),
    "two rates": Stabiliser(
        lambda c: c.optim.d_lr != c.optim.g_lr, lambda c, on: {"optim": {"d_lr": c.optim.g_lr * (2 if on else 1)}}
    ),
    "projection": Stabiliser(
        lambda c: c.model.d_cond_mtd == "PD",
        lambda c, on: (
            {"model": {"g_cond_mtd": "cBN", "d_cond_mtd": "PD"}}
            if on
            else {"model": {"g_cond_mtd": "concat", "d_cond_mtd": "concat"}, "loss": {"apply_mismatch": False}}
        ),
    ),
}


def default_arms(config: Config) -> list[str]:
    """The config itself, and without each of its stabilisers."""
    return [WHOLE, *(f"without {name}" for name, stabiliser in STABILISERS.items() if stabiliser.is_on(config))]


def arm_changes(config: Config, arm: str) -> dict[str, Any]:
    """Nested keys of an arm: `whole`, `without A`, `without A + B`, `with A`. UserError for unknown arms and for those
    that change nothing."""
    if arm == WHOLE:
        return {}
    word, _, rest = arm.partition(" ")
    changes: dict[str, Any] = {}
    for name in rest.split(" + "):
        stabiliser = STABILISERS.get(name)
        if word not in ("with", "without") or stabiliser is None:
            allowed = f"{WHOLE}, or with or without and any of {', '.join(STABILISERS)} (with + between)"
            raise UserError(f"--arms: found {arm!r}, allowed {allowed}")
        if stabiliser.is_on(config) == (word == "with"):
            state = "has it already" if word == "with" else "does not have it"
            raise UserError(f"--arms: found {arm!r}, but {config.name} {state}, try --arms {WHOLE}")
        changes = merge(changes, stabiliser.change(config, word == "with"))
    return changes


# ---- runs -------------------------------------------------------------------------------------------------------


def run_ablation(
    config: Config, work: Path, *, pictures: int | None, steps: int, seeds: int, arms: list[str], jobs: int
) -> list[dict[str, Any]]:
    """Trains and measures every arm with every seed in `work`. Returns one row per run: arm, seed, marks.

    Args:
        pictures: train on the first `pictures` only; None = all.
    """
    work.mkdir(parents=True, exist_ok=True)
    facts = pack_pictures(config, work, pictures)
    marks = sorted({max(1, round(steps * k / MARKS)) for k in range(1, MARKS + 1)})
    todo = []
    for seed in range(seeds):
        for arm in arms:
            content = config_to_dict(arm_config(config, arm, seed, steps))
            todo.append((content, str(work.resolve()), marks, {"arm": arm, "seed": seed, **facts}))
    if config.model.conditional:
        _train_classifier(config, work)  # once, before parallel runs would each train it
    with get_context("spawn").Pool(min(jobs, len(todo)), maxtasksperchild=1) as pool:
        rows = []
        for row in pool.imap_unordered(_train_one, todo):
            rows.append(row)
            log(f"{len(rows)} of {len(todo)}: {row['arm']}, seed {row['seed']}: {row['marks'][-1]}")
    return rows


def arm_config(config: Config, arm: str, seed: int, steps: int) -> Config:
    """The config of an arm; everything else, including the number of steps, is the same in all arms."""
    name = f"{arm.lower().replace(' ', '-').replace('+', 'and')}-{seed}"
    changes = {
        "name": name,
        "seed": config.seed + seed,
        "optim": {"total_steps": steps, "total_epochs": None},
        "train": {"threads": 1, "device": "cpu", "save_every_steps": steps, "sample_every_steps": steps},
    }
    return check_config(merge(merge(config_to_dict(config), arm_changes(config, arm)), changes), f"ablation {name}")


def pack_pictures(config: Config, work: Path, pictures: int | None) -> dict[str, Any]:
    """Packs the sets of the runs under `work`, once: the first training rows; valid and other rows are held out."""
    train, held_out = work / config.data.hdf5_path("train"), work / config.data.hdf5_path("valid")
    with open_training_rows(config.data) as source, open_evaluation_rows(config.data) as valid:
        count = pictures or source.count
        if source.count < count:
            raise UserError(f"--pictures: found {count}, allowed up to the {source.count} rows of {source.packed.path}")
        facts = {"data_sha256": source.sha256, "pictures": count}
        whole, made_from = source.packed, {"made_from": source.sha256}
        rest = [(valid, row) for row in range(valid.count)] + [(source, row) for row in range(count, source.count)]
        for path, rows in ((train, [(source, row) for row in range(count)]), (held_out, rest[:HELD_OUT])):
            if path.exists() and _made_from(path) == [source.sha256, len(rows)]:
                continue
            with PackedWriter(path, whole.height, whole.width, whole.class_names, made_from) as writer:
                for part, row in rows:
                    writer.append(part.read(np.array([row]))[0], int(part.labels[row]))
    return facts


def _made_from(path: Path) -> list[Any]:
    with open_packed(path) as packed:
        return [packed.attributes.get("made_from"), packed.count]


def _train_classifier(config: Config, work: Path) -> None:
    from harness.metrics.classifier import FOLDER, load_classifier

    with chdir(work):
        load_classifier([config.data], config.evaluate.brand_classifier, FOLDER)


def _train_one(job: tuple[dict[str, Any], str, list[int], dict[str, Any]]) -> dict[str, Any]:
    """One run in its own process: trains to each mark and measures there, unless done before."""
    content, work, marks, facts = job
    os.chdir(work)
    from harness.features import load_reader
    from harness.native.train import train_run

    config, reader = check_config(content, "ablation"), load_reader()
    result = Path("results") / f"{config.name}.json"
    result.parent.mkdir(exist_ok=True)
    key = {**facts, "config": content, "reader_sha256": reader.sha256, "samples": SAMPLES}
    kept = read_json(result.absolute(), "move it and the run of its name away", RESULT) or {}
    kept_key = kept.get("key", {})
    same = {**kept_key, "config": complete_config(kept_key.get("config", {}))} == key
    row = kept if same else {"key": key, "arm": facts["arm"], "seed": facts["seed"], "marks": []}
    done = {mark["step"] for mark in row["marks"]}
    for step in marks:
        if step not in done:
            run = train_run(config, limit_steps=step)
            row["marks"].append(_measure(reader, config, run, step))
            atomic_write(result, to_json(row))
    return row


def _measure(reader: Any, config: Config, run: Path, step: int) -> dict[str, Any]:
    """Held-out KID and diversity on the reader's features; for a conditional model also the accuracy of a classifier
    trained on the training pictures, and diversity within classes."""
    from harness.checkpoints.checkpoint import checkpoint_folder
    from harness.metrics.class_figures import hit_rate
    from harness.metrics.classifier import load_classifier
    from harness.metrics.distances import kid
    from harness.metrics.evaluate import sample_with_labels

    samples, labels = sample_with_labels(checkpoint_folder(run / "checkpoints", step), SAMPLES)
    with open_packed(config.data.hdf5_path("train")) as train, open_packed(config.data.hdf5_path("valid")) as held_out:
        real, seen = reader.featurizer(held_out.read()), reader.featurizer(train.read()[:HELD_OUT])
        real_labels = held_out.labels if labels is not None else None
    drawn = reader.featurizer(samples)
    figures = {
        "step": step,
        "kid": kid(drawn, real),
        "kid_of_training_pictures": kid(seen, real),
        "diversity": _spread(drawn, labels) / _spread(real, real_labels),
        "accepted": float(reader.accepts(samples).mean()),
    }
    if labels is not None:
        classifier = load_classifier([config.data], config.evaluate.brand_classifier)
        figures |= {"brand": hit_rate(classifier.scores(samples), labels, 1), "real_brand": classifier.accuracy}
    return figures


def _spread(features: np.ndarray, labels: np.ndarray | None) -> float:
    """Mean pairwise distance, with labels within classes."""
    from harness.metrics.class_figures import spread

    groups = [features] if labels is None else [features[labels == label] for label in np.unique(labels)]
    found = [value for group in groups if (value := spread(group)) is not None]
    return float(np.mean(found))


# ---- the table, as Markdown: means and standard deviations over seeds ---------------------------------------------


COLUMNS = (  # at the last mark: key, heading, number format
    ("diversity", "diversity", "{:.2f}"),
    ("brand", "brand accuracy", "{:.3f}"),
    ("accepted", "accepted as cars", "{:.0%}"),
)


def rows_to_markdown(rows: list[dict[str, Any]], arms: list[str], samples: int, command: str) -> str:
    """Held-out KID at every mark, the other figures at the last one, and each seed's last KID."""
    marks = [mark["step"] for mark in rows[0]["marks"]]
    last = rows[0]["marks"][-1]
    columns = [column for column in COLUMNS if column[0] in last]
    head = [*(f"KID, step {mark}" for mark in marks), *(heading for _, heading, _ in columns), "KID of each seed"]
    lines = [*_introduction(rows, samples), "", f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for arm in arms:
        runs = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        cells = [_cell([run["marks"][k]["kid"] for run in runs], "{:.3f}") for k in range(len(marks))]
        cells += [_cell([run["marks"][-1][key] for run in runs], form) for key, _, form in columns]
        each = ", ".join(f"{run['marks'][-1]['kid']:.3f}" for run in runs)
        lines.append(f"| {arm} | " + " | ".join([*cells, each]) + " |")
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def _introduction(rows: list[dict[str, Any]], samples: int) -> list[str]:
    last, seeds = rows[0]["marks"][-1], {row["seed"] for row in rows}
    brands = "brand" in last
    within = " within a brand" if brands else ""
    lines = [
        "# Stabilisers off in turn",
        "",
        "Held-out KID on the factor reader's features (lower is better) and diversity on them (mean distance of pairs"
        f"{within}, real pictures = 1).",
        f"Mean ± standard deviation over {len(seeds)} seeds; {rows[0]['key']['pictures']} training pictures, {samples} "
        f"samples a measure. The training pictures themselves have a KID of {last['kid_of_training_pictures']:.4f}.",
    ]
    if brands:
        lines.append(
            "Brand accuracy: how often a classifier trained on real pictures finds the brand that was asked for; its "
            f"accuracy on real held-out pictures is {last['real_brand']:.3f}."
        )
    return lines


def _cell(values: list[float], form: str) -> str:
    return f"{form.format(np.mean(values))} ± {form.format(np.std(values))}"


def main(
    config: ConfigOption = Path("configs/sngan_demo.yaml"),
    overrides: SetOption = None,
    work: Annotated[Path | None, typer.Option(help="Work folder; default: runs/.ablation/<config>.", **AS_PATH)] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table; default: ablation.md in the work folder.", **AS_PATH)
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=2, help="Training pictures; default: all.")] = None,
    steps: Annotated[int | None, typer.Option(min=MARKS, help="Steps of each run; default: half the config's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm.")] = 2,
    arms: Annotated[str | None, typer.Option(help="As `whole,without EMA`; default: each off in turn.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 2,
) -> None:
    """Train with each stabiliser off in turn; writes a table of KID, diversity and, with classes, brand accuracy."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the child processes
    resolved = load_config(config, overrides or ())
    chosen = arms.split(",") if arms else default_arms(resolved)
    for arm in chosen:
        arm_changes(resolved, arm)
    count = steps or max(MARKS, resolved.optim.total_steps // 2)
    work = work or Path("runs/.ablation") / resolved.name
    out = out or work / "ablation.md"
    check_output(out, lambda path: COMMAND in path.read_text(errors="replace"))
    rows = run_ablation(resolved, work, pictures=pictures, steps=count, seeds=seeds, arms=chosen, jobs=jobs)
    words = [COMMAND, "--config", str(config), *(f"--set '{text}'" for text in overrides or ())]
    words += [f"--pictures {pictures}"] * bool(pictures) + [f"--steps {count}", f"--seeds {seeds}"]
    words += [f"--arms '{','.join(chosen)}'"]
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, rows_to_markdown(rows, chosen, SAMPLES, " ".join(words)))
    print(out)


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command(epilog=f"Stabilisers: {', '.join(STABILISERS)}. {WHOLE} = the unchanged config.")(main)
    run_command(application)
