"""Training and fine-tuning by the real StudioGAN, with the run folder of the native engine as the only truth.

In: a Config and its packed pictures. Out: runs/<name>/, from which either engine goes on. StudioGAN itself works in a
folder that is made anew for every start, begins there from our newest checkpoint, and each of its saves becomes one
of ours.
"""

import hashlib
from pathlib import Path
from typing import Any

from harness.checkpoints.checkpoint import read_meta, take_newest
from harness.checkpoints.class_tables import same_classes
from harness.config.experiment import Config, check_config, complete_config, epochs_to_steps, finetune_config
from harness.errors import UserError
from harness.native.state import log_empty_classes, open_training_set, read_origin
from harness.native.train import find_source
from harness.runtime.run_life import RunLife, run_life
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir
from harness.studiogan.follow_log import FollowedRun
from harness.studiogan.preflight import preflight
from harness.studiogan.process import end_left_behind
from harness.studiogan.supervise import supervise
from harness.studiogan.weights.convert import import_checkpoint
from harness.studiogan.workdir import drop_saves, list_saves, read_facts, workdir_of

BEGUN_FROM = "begun_from"  # kept with the working folder, and with each checkpoint that comes out of it


def train_run(
    config: Config,
    *,
    limit_steps: int | None = None,
    allow_config_change: bool = False,
    processes: int = 1,
    freeze: bool = False,
    source: Path | None = None,
    source_named: bool = False,
) -> Path:
    """Trains runs/<name> from scratch, or goes on with it. Returns the run's folder.

    Args:
        limit_steps: stop (saved, resumable) once the run has this many steps.
        allow_config_change: go on although the config differs from the run's.
        processes: GPUs, by StudioGAN's own -DDP.
        freeze: FreezeD, as `finetune.freeze_layers` says.
        source: a checkpoint whose weights the run begins with; `source_named`: the user asked for that very one.

    Raises:
        UserError: the data, the config, the checkout or its environment cannot be used, or StudioGAN failed.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    with run_life(RunDir(Path("runs") / config.name)) as life:
        packed = life.held.enter_context(open_training_set(config))
        log_empty_classes(config, packed)
        config = epochs_to_steps(config, packed.count)
        setting = preflight(config, packed, freeze, processes)
        life.open(config, allow_config_change)
        rundir = life.rundir
        _end_left_behind(rundir)
        newest = _take_over(life, take_newest(rundir.checkpoints, life.log))
        named = source if source_named or newest is None else None
        facts = read_origin(rundir, packed, newest, named) | {BEGUN_FROM: _mark(newest)}
        if begun_from := newest or source:
            _check_weights(begun_from, packed, config)
        step, classes = _mark(newest)["step"], len(packed.class_names) if config.model.conditional else 0
        run = FollowedRun(config, setting.hardware, step, classes, begun_from, facts)
        life.aim(config.optim.total_steps, limit_steps)
        supervise(run, life, setting, packed)
    return rundir.path


def finetune_run(
    config: Config,
    *,
    checkpoint: str | None = None,
    limit_steps: int | None = None,
    allow_config_change: bool = False,
    processes: int = 1,
) -> Path:
    """FreezeD: trains runs/<source>-freezed from the weights of a run of either engine, which stays untouched.

    Args:
        checkpoint: name of a folder under the source run's checkpoints/, or `best`; None = the newest.
    """
    tuned, source = finetune_config(config), find_source(config, checkpoint)
    return train_run(
        tuned, limit_steps=limit_steps, allow_config_change=allow_config_change, processes=processes, freeze=True,
        source=source, source_named=checkpoint is not None,
    )  # fmt: skip


def _end_left_behind(rundir: RunDir) -> None:
    """It dies with us where the system can do that; elsewhere it may have outlived a kill of ours."""
    if count := end_left_behind(workdir_of(rundir)):
        rundir.log(f"ended {count} processes of StudioGAN that an earlier start had left at work")


def _take_over(life: RunLife, newest: Path | None) -> Path | None:
    """Keeps what StudioGAN saved after our last look, when we were killed. The newest checkpoint then.

    Not where another engine has gone on since: the newest checkpoint is then neither what that start of StudioGAN began
    from, nor a save of that start.
    """
    rundir, workdir = life.rundir, workdir_of(life.rundir)
    kept = read_facts(workdir)
    if kept is None:
        return newest
    begun_from, before = kept["facts"].get(BEGUN_FROM), newest
    first_step = read_meta(before)["step"] if before else 0
    for step, folder in list_saves(workdir):
        if step <= first_step:
            continue
        if begun_from not in (_mark(before), before and read_meta(before).get(BEGUN_FROM)):
            life.log(
                f"{rundir.path}: step {step}, which StudioGAN had saved, is dropped: the run has gone another way since"
            )
            drop_saves(workdir, step)
            continue
        try:
            config = check_config(complete_config(kept["config"]), str(workdir))
            newest = import_checkpoint(folder, config, rundir.checkpoints, kept["facts"])
            rundir.log(f"step {step}, which StudioGAN had saved before all was killed, is kept")
        except UserError as error:
            life.log(f"{rundir.path}: what StudioGAN saved of step {step} cannot be used: {error}")
    return newest


def _mark(newest: Path | None) -> dict[str, Any]:
    """Where a start begins: step and sha256 of the run's newest checkpoint (meta.json has those of its files)."""
    if newest is None:
        return {"step": 0, "sha256": None}
    digest = hashlib.sha256((newest / "meta.json").read_bytes()).hexdigest()
    return {"step": read_meta(newest)["step"], "sha256": digest}


def _check_weights(checkpoint: Path, packed: PackedSet, config: Config) -> None:
    """What StudioGAN would answer with a traceback."""
    if not (checkpoint / "discriminator.safetensors").exists():
        raise UserError(f"{checkpoint}: has a generator alone, and training needs a discriminator too; start from both")
    meta, wanted = read_meta(checkpoint), packed.class_names
    if config.model.conditional and not same_classes(meta["class_names"], wanted):
        raise UserError(
            f"{checkpoint}: knows {meta['num_classes']} classes ({', '.join(meta['class_names'])}), allowed those of "
            f"{packed.path} ({', '.join(wanted)}), try engine=native, which matches classes by name"
        )
