"""`make benchmark BENCH=CIFAR10/SNGAN`: trains a published StudioGAN configuration and compares the figures.

In: the name of one of StudioGAN's configuration files, and the engine, or both from the same initial weights. Out: a
run for each engine, and runs/bench-<dataset>-<name>/ with the plan and a table of published figures and ours.
"""

import difflib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, TypeAdapter

from harness.benchmarks.table import benchmark_table, read_published
from harness.config.experiment import Config, check_config, config_to_dict, config_to_yaml
from harness.config.yaml_files import merge, parse_overrides
from harness.errors import UserError
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import open_packed
from harness.storage.json_files import read_json, read_json_or_none, to_json
from harness.storage.rundir import RunDir
from harness.studiogan.checkout import COMMITS, check_environment, find_checkout, find_python
from harness.studiogan.dialects.convert import read_foreign
from harness.studiogan.dialects.table import safe_name

ENGINES = {"native": ("native",), "studiogan": ("studiogan",), "both": ("native", "studiogan")}
SUFFIXES = {"0.2.0": ".json", "0.4.0": ".yaml"}


class KeptResult(BaseModel):
    run: str
    step: int


class BenchmarkFile(BaseModel):
    """benchmark.json: results by engine."""

    engines: dict[str, KeptResult]


RESULTS = TypeAdapter(BenchmarkFile)


@dataclass(frozen=True)
class Plan:
    """A benchmark: `configs` by engine, `file` relative to StudioGAN's checkout."""

    bench: str
    version: str
    file: str
    folder: Path
    configs: dict[str, Config]

    @property
    def path(self) -> Path:
        """The plan as a config file, for the dataset stage; both engines use the same set."""
        return self.folder / "plan.yaml"

    def write(self) -> Path:
        config = next(iter(self.configs.values()))
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, config_to_yaml(config))
        return self.path


def run_benchmark(
    bench: str,
    engine: str = "both",
    limit_steps: int | None = None,
    overrides: Iterable[str] = (),
    version: str | None = None,
) -> str:
    """Trains or resumes, evaluates, and returns the table, which is also written to the benchmark's folder.

    Args:
        bench: `CIFAR10/SNGAN`: a file below StudioGAN's src/configs/, without its suffix.
        engine: native, studiogan, or both from the same initial weights.
        limit_steps: stop each run (saved, resumable) once it has this many steps.
        version: StudioGAN's; None = from the overrides, or 0.2.0.
    """
    plan = make_plan(bench, engine, overrides, version)
    if "studiogan" in plan.configs:
        check_environment(find_python())  # before the other engine trains for hours
    plan.write()
    results = read_results(plan)
    table = ""
    for name, config in plan.configs.items():
        config = _log_in_time(config, limit_steps)
        write_initial_checkpoint(config)
        find_trainer(name)(config, limit_steps=limit_steps)
        results[name] = measure(config)
        table = benchmark_table(plan.bench, plan.version, plan.file, results)
        kept = {"bench": plan.bench, "studiogan": plan.version, "config_file": plan.file, "engines": results}
        atomic_write(plan.folder / "benchmark.json", to_json(kept, indent=1) + "\n")
        atomic_write(plan.folder / "benchmark.txt", table + "\n")
    return table


def read_results(plan: Plan) -> dict[str, dict[str, Any]]:
    """Earlier results of the benchmark by engine: a call for one engine keeps the other's column."""
    path, remedy = plan.folder / "benchmark.json", "move it away; then both engines are run again"
    kept = (read_json(path, remedy, RESULTS) or {"engines": {}})["engines"]
    return {name: result for name, result in kept.items() if (Path("runs") / result["run"]).is_dir()}


# ---- configs ----------------------------------------------------------------------------------------------------


def make_plan(bench: str, engine: str, overrides: Iterable[str] = (), version: str | None = None) -> Plan:
    """Converts StudioGAN's config. UserError when it does not exist or has an unsupported feature."""
    if engine not in ENGINES:
        raise UserError(f"ENGINE: found {engine!r}, allowed {', '.join(ENGINES)}, try ENGINE=both")
    changes = parse_overrides(overrides)
    for key, instead in (("name", "a benchmark names its runs"), ("engine", "say ENGINE=")):
        if key in changes:
            raise UserError(f"OVERRIDE: found {key}, allowed any other key ({instead}), try to leave it out")
    version = version or changes.get("studiogan", {}).get("version") or "0.2.0"
    if version not in COMMITS:
        raise UserError(f"VERSION: found {version!r}, allowed {' or '.join(COMMITS)}, try VERSION=0.2.0")
    home = find_checkout(version)
    bench, file = find_bench(bench, home / "src" / "configs", version)
    content = merge(merge(config_to_dict(read_foreign(file)), _settings(version)), changes)
    stem = f"bench-{safe_name(bench.lower(), 'benchmark')}"[:48] + ("" if version == "0.2.0" else f"-{version}")
    configs = {
        name: check_config({**content, "name": f"{stem}-{name}", "engine": name}, bench) for name in ENGINES[engine]
    }
    return Plan(bench, version, file.relative_to(home).as_posix(), Path("runs") / stem, configs)


def _settings(version: str) -> dict[str, Any]:
    """StudioGAN's training and evaluation settings that differ from our base.yaml."""
    return {
        "studiogan": {"version": version},
        "evaluate": {"split": read_published(version)["split"], "count": 0},
        # cuDNN uses TF32 by default, and StudioGAN does not change that.
        "train": {"numerics": "studiogan", "precision": "tf32" if torch.cuda.is_available() else "fp32"},
    }


def find_bench(bench: str, folder: Path, version: str) -> tuple[str, Path]:
    """(name, file) of a configuration, ignoring case. UserError names similar ones."""
    suffix = SUFFIXES[version]
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob(f"*/*{suffix}"))}
    names = {name.lower(): name for name in files}
    wanted = bench.lower().removesuffix(suffix)
    if wanted in names:
        return names[wanted], files[names[wanted]]
    near = difflib.get_close_matches(wanted, names, 5, 0.5) or [name for name in names if name.endswith("/sngan")]
    listed = ", ".join(names[name] for name in near) or f"none, {folder} has no configuration"
    raise UserError(
        f"BENCH: found {bench or 'nothing'}, allowed the configurations of StudioGAN {version}, similar "
        f"ones: {listed}; try BENCH=CIFAR10/SNGAN"
    )


# ---- training -----------------------------------------------------------------------------------------------------


def find_trainer(engine: str) -> Callable[..., Path]:
    if engine == "native":
        from harness.native.train import train_run
    else:
        from harness.studiogan.engine import train_run
    return train_run


def write_initial_checkpoint(config: Config) -> None:
    """Gives a run without a checkpoint one of step 0, with the native engine's initial weights, a function of the seed.

    Both engines then start from the same weights.
    """
    from harness.checkpoints.checkpoint import list_checkpoints
    from harness.native.state import build_training, networks_of, open_training_set, save_training
    from harness.runtime.device import prepare_hardware
    from harness.runtime.dist import World

    with open_training_set(config) as packed:
        rundir = RunDir.open(config)
        with rundir.lock():
            if list_checkpoints(rundir.checkpoints):
                return
            run = build_training(config, prepare_hardware(config.train), World(), packed)
            facts = {"data_sha256": packed.sha256, "class_names": packed.class_names}
            save_training(run, rundir.checkpoints, facts)
            run.source.close()
            hashes = {name: _weights_sha256(network.state_dict()) for name, network in networks_of(run).items()}
            rundir.write_metrics("start", {"step": 0, "sha256": hashes})


def _log_in_time(config: Config, limit_steps: int | None) -> Config:
    """StudioGAN logs losses and time only at multiples of log_every_steps; a short run must reach one."""
    every = min(config.train.log_every_steps, limit_steps or config.optim.total_steps)
    return config.model_copy(update={"train": config.train.model_copy(update={"log_every_steps": every})})


def _weights_sha256(weights: dict[str, Any]) -> str:
    """sha256 of names and values; the checkpoint file also contains the run's name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---- results ------------------------------------------------------------------------------------------------------


def measure(config: Config) -> dict[str, Any]:
    """The results of one engine's run for the table."""
    from harness.metrics.evaluate import evaluate_run

    rundir = RunDir.existing(config.name)
    with open_packed(config.data.hdf5_path("train")) as packed:
        trained_on = {"pictures": packed.count, "classes": len(packed.class_names)}
    settings = {name: config.evaluate.model_copy(update={"features": name}) for name in ("reader", "inception")}
    reader = evaluate_run(rundir, settings["reader"])
    inception, missing = None, None
    try:
        inception = evaluate_run(rundir, settings["inception"])
    except UserError as error:  # only Inception can fail here: the reader's evaluation succeeded
        missing = str(error)
    start = rundir.read_metrics().get("start")
    return {
        "run": config.name,
        "step": reader["step"],
        "total_steps": config.optim.total_steps,
        "trained_on": trained_on,
        "start_sha256": start and start.get("sha256"),
        "hardware": (read_json_or_none(rundir.env_path) or {}).get("device"),
        **_training_time(rundir.read_stats()),
        "reader": reader,
        "inception": inception,
        "inception_missing": missing,
    }


def _training_time(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Training seconds in total and per step; each row has the mean of the steps since the previous one."""
    seconds, before = 0.0, 0
    for row in rows:
        if row.get("sec_per_step") is not None:
            seconds += (row["step"] - before) * row["sec_per_step"]
            before = row["step"]
    return {"seconds": round(seconds, 2), "sec_per_step": round(seconds / before, 5) if before else None}
