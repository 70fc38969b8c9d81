"""Training and fine-tuning by StudioGAN itself, into the same run folder as the native engine.

In: a Config and its packed pictures. Out: runs/<name>/, which either engine can resume. StudioGAN works in a temporary
folder that is created for every start; it loads our newest checkpoint there, and each of its saves is converted into
one of ours.
"""

import hashlib
from pathlib import Path
from typing import Any

from harness.checkpoints.checkpoint import newest_for_resume, read_meta
from harness.checkpoints.class_tables import same_classes
from harness.config.experiment import Config, check_config, complete_config, epochs_to_steps, finetune_config
from harness.errors import UserError
from harness.native.state import open_training_set, origin_facts, warn_of_empty_classes
from harness.native.train import find_finetune_source
from harness.runtime.run_life import RunLife, run_life
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir
from harness.studiogan.follow_log import FollowedRun
from harness.studiogan.preflight import preflight
from harness.studiogan.process import kill_leftover_group
from harness.studiogan.supervise import supervise
from harness.studiogan.weights.convert import import_checkpoint
from harness.studiogan.workdir import drop_saves, list_saves, read_facts, workdir_of

STARTED_FROM = "begun_from"  # stored in the working folder, and in each checkpoint imported from it


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
    """Trains runs/<name> from scratch, or resumes it. Returns the run's folder.

    Args:
        limit_steps: stop (saved, resumable) once the run has this many steps.
        allow_config_change: resume although the config differs from the run's.
        processes: number of GPUs, for StudioGAN's own -DDP.
        freeze: FreezeD with `finetune.freeze_layers`.
        source: the checkpoint whose weights the run starts with; `source_named`: the user asked for it by name.

    Raises:
        UserError: the data, the config, the checkout or its environment cannot be used, or StudioGAN failed.
        Interrupted: after SIGTERM or SIGINT; the state is saved.
    """
    with run_life(RunDir(Path("runs") / config.name)) as life:
        packed = life.resources.enter_context(open_training_set(config))
        warn_of_empty_classes(config, packed)
        config = epochs_to_steps(config, packed.count)
        setup = preflight(config, packed, freeze, processes)
        life.open(config, allow_config_change)
        rundir = life.rundir
        if count := kill_leftover_group(workdir_of(rundir)):  # outlived a kill of ours on a system without prctl
            rundir.log(f"killed {count} processes of StudioGAN that an earlier start had left running")
        newest = _import_leftover_saves(life, newest_for_resume(rundir.checkpoints, life.log))
        named = source if source_named or newest is None else None
        facts = origin_facts(rundir, packed, newest, named) | {STARTED_FROM: _checkpoint_id(newest)}
        if start_checkpoint := newest or source:
            _check_weights(start_checkpoint, packed, config)
        step, classes = _checkpoint_id(newest)["step"], len(packed.class_names) if config.model.conditional else 0
        run = FollowedRun(config, setup.hardware, step, classes, start_checkpoint, facts)
        life.set_target(config.optim.total_steps, limit_steps)
        supervise(run, life, setup, packed)
    return rundir.path


def finetune_run(
    config: Config,
    *,
    checkpoint: str | None = None,
    limit_steps: int | None = None,
    allow_config_change: bool = False,
    processes: int = 1,
) -> Path:
    """FreezeD: trains runs/<source>-freezed from the weights of a run of either engine, which is not changed.

    Args:
        checkpoint: name of a folder under the source run's checkpoints/, or `best`; None = the newest.
    """
    tuned, source = finetune_config(config), find_finetune_source(config, checkpoint)
    return train_run(
        tuned, limit_steps=limit_steps, allow_config_change=allow_config_change, processes=processes, freeze=True,
        source=source, source_named=checkpoint is not None,
    )  # fmt: skip


def _import_leftover_saves(life: RunLife, newest: Path | None) -> Path | None:
    """Imports what StudioGAN saved after we were killed. Returns the newest checkpoint.

    Saves are dropped when another engine has resumed the run since: then the newest checkpoint is neither the one that
    this start of StudioGAN loaded nor one of its saves.
    """
    rundir, workdir = life.rundir, workdir_of(life.rundir)
    kept = read_facts(workdir)
    if kept is None:
        return newest
    started_from, before = kept["facts"].get(STARTED_FROM), newest
    first_step = read_meta(before)["step"] if before else 0
    for step, folder in list_saves(workdir):
        if step <= first_step:
            continue
        if started_from not in (_checkpoint_id(before), before and read_meta(before).get(STARTED_FROM)):
            life.log(
                f"{rundir.path}: step {step}, saved by StudioGAN, is dropped: the run was resumed from another "
                "checkpoint since"
            )
            drop_saves(workdir, step)
            continue
        try:
            config = check_config(complete_config(kept["config"]), str(workdir))
            newest = import_checkpoint(folder, config, rundir.checkpoints, kept["facts"])
            rundir.log(f"step {step}, saved by StudioGAN before everything was killed, is kept")
        except UserError as error:
            life.log(f"{rundir.path}: StudioGAN's save of step {step} cannot be used: {error}")
    return newest


def _checkpoint_id(newest: Path | None) -> dict[str, Any]:
    """Step and sha256 of a checkpoint (of its meta.json, which has those of its files)."""
    if newest is None:
        return {"step": 0, "sha256": None}
    digest = hashlib.sha256((newest / "meta.json").read_bytes()).hexdigest()
    return {"step": read_meta(newest)["step"], "sha256": digest}


def _check_weights(checkpoint: Path, packed: PackedSet, config: Config) -> None:
    """UserError for weights that StudioGAN would fail on with a traceback."""
    if not (checkpoint / "discriminator.safetensors").exists():
        raise UserError(f"{checkpoint}: has a generator only, and training needs a discriminator too; start from both")
    meta, class_names = read_meta(checkpoint), packed.class_names
    if config.model.conditional and not same_classes(meta["class_names"], class_names):
        raise UserError(
            f"{checkpoint}: has {meta['num_classes']} classes ({', '.join(meta['class_names'])}), allowed those of "
            f"{packed.path} ({', '.join(class_names)}), try engine=native, which matches classes by name"
        )
