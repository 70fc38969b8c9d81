"""Training and fine-tuning by the real StudioGAN, with the run folder of the native engine as the only truth.

In: a Config and its packed pictures. Out: runs/<name>/, from which either engine goes on. StudioGAN itself works in a
folder that is made anew for every start, begins there from our newest checkpoint, and each of its saves becomes one
of ours.
"""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.checkpoints.checkpoint import list_checkpoints, newest_checkpoint, read_meta, set_aside_damaged
from harness.cli import say
from harness.config.experiment import Config, check_config, complete_config, epochs_to_steps, finetune_config
from harness.errors import UserError
from harness.native.signals_and_errors import disk_errors_told, stop_signals
from harness.native.state import open_training_set, read_origin
from harness.native.train import find_source
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir
from harness.studiogan.preflight import check_setting
from harness.studiogan.process import end_left_behind
from harness.studiogan.supervise import Beginning, supervise
from harness.studiogan.weights.convert import import_checkpoint
from harness.studiogan.workdir import drop_saves, list_saves, read_facts, scratch_folder

BEGUN_FROM = "begun_from"  # kept with the working folder, and with each checkpoint that comes out of it


def train_run(
    config: Config, *, limit_steps: int | None = None, allow_config_change: bool = False, processes: int = 1
) -> Path:
    """Trains runs/<name> from scratch, or goes on with it. Returns the run's folder.

    Args:
        limit_steps: stop (saved, resumable) once the run has this many steps.
        allow_config_change: go on although the config differs from the run's.
        processes: GPUs, by StudioGAN's own -DDP.

    Raises:
        UserError: the data, the config, the checkout or its environment cannot be used, or StudioGAN failed.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    return _run(Request(config, limit_steps, allow_config_change, processes))


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
    tuned = finetune_config(config)
    begun = list_checkpoints(Path("runs") / tuned.name / "checkpoints")  # then the source is not needed any more
    source = None if begun and not checkpoint else find_source(config, checkpoint)
    return _run(Request(tuned, limit_steps, allow_config_change, processes, True, source, checkpoint is not None))


@dataclass(frozen=True)
class Request:
    """`source`: the checkpoint that fine-tuning starts from; `source_named`: the user asked for that very one."""

    config: Config
    limit_steps: int | None
    allow_config_change: bool
    processes: int
    freeze: bool = False
    source: Path | None = None
    source_named: bool = False


def _run(request: Request) -> Path:
    config = request.config
    rundir = RunDir(Path("runs") / config.name)
    with disk_errors_told(rundir), ExitStack() as stack:
        stopping = stack.enter_context(stop_signals())
        packed = stack.enter_context(open_training_set(config))
        config = epochs_to_steps(config, packed.count)
        setting = check_setting(config, packed, request.freeze, request.processes)
        rundir = RunDir.open(config, allow_config_change=request.allow_config_change)
        stack.enter_context(rundir.lock())
        _end_left_behind(rundir)
        newest = newest_checkpoint(rundir.checkpoints, say)
        set_aside_damaged(rundir.checkpoints, newest)
        newest = _take_over(rundir, newest)
        beginning = _find_beginning(rundir, packed, newest, request)
        supervise(rundir, setting, packed, beginning, request.limit_steps, stopping)
    return rundir.path


def _end_left_behind(rundir: RunDir) -> None:
    """It dies with us where the system can do that; elsewhere it may have outlived a kill of ours."""
    if count := end_left_behind(scratch_folder(rundir)):
        rundir.log(f"ended {count} processes of StudioGAN that an earlier start had left at work")


def _take_over(rundir: RunDir, newest: Path | None) -> Path | None:
    """Keeps what StudioGAN saved after our last look, when we were killed. The newest checkpoint then.

    Not where another engine has gone on since: the newest checkpoint is then neither what that start of StudioGAN began
    from, nor a save of that start.
    """
    scratch = scratch_folder(rundir)
    kept = read_facts(scratch)
    if kept is None:
        return newest
    begun_from, before = kept["facts"].get(BEGUN_FROM), newest
    first_step = read_meta(before)["step"] if before else 0
    for step, folder in list_saves(scratch):
        if step <= first_step:
            continue
        if begun_from not in (_mark(before), before and read_meta(before).get(BEGUN_FROM)):
            say(
                f"{rundir.path}: step {step}, which StudioGAN had saved, is dropped: the run has gone another way since"
            )
            drop_saves(scratch, step)
            continue
        try:
            config = check_config(complete_config(kept["config"]), str(scratch))
            newest = import_checkpoint(folder, config, rundir.checkpoints, kept["facts"])
            rundir.log(f"step {step}, which StudioGAN had saved before all was killed, is kept")
        except UserError as error:
            say(f"{rundir.path}: what StudioGAN saved of step {step} cannot be used: {error}")
    return newest


def _mark(newest: Path | None) -> dict[str, Any]:
    """Where a start begins: step and sha256 of the run's newest checkpoint (meta.json has those of its files)."""
    if newest is None:
        return {"step": 0, "sha256": None}
    digest = hashlib.sha256((newest / "meta.json").read_bytes()).hexdigest()
    return {"step": read_meta(newest)["step"], "sha256": digest}


def _find_beginning(rundir: RunDir, packed: PackedSet, newest: Path | None, request: Request) -> Beginning:
    named = request.source if request.source_named or newest is None else None
    facts = read_origin(rundir, packed, newest, named) | {BEGUN_FROM: _mark(newest)}
    if begun_from := newest or request.source:
        _check_weights(begun_from, packed, request.config)
    if newest is None:
        return Beginning(request.source, 0, facts)
    return Beginning(newest, read_meta(newest)["step"], facts)


def _check_weights(checkpoint: Path, packed: PackedSet, config: Config) -> None:
    """What StudioGAN would answer with a traceback."""
    if not (checkpoint / "discriminator.safetensors").exists():
        raise UserError(f"{checkpoint}: has a generator alone, and training needs a discriminator too; start from both")
    found, wanted = read_meta(checkpoint)["num_classes"], len(packed.class_names)
    if config.model.conditional and found != wanted:
        raise UserError(
            f"{checkpoint}: knows {found} classes, allowed the {wanted} of {packed.path}, try a set with as many, or "
            "weights that were trained with these"
        )
