"""Training and fine-tuning from a config to a finished run folder; stops and goes on at any moment.

In: a Config and its packed pictures. Out: runs/<name>/ with checkpoints, samples, curves and statistics.
"""

import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.checkpoint import list_checkpoints, newest_checkpoint, read_meta, set_aside_damaged
from harness.checkpoints.load import find_checkpoint
from harness.cli import say
from harness.config.experiment import (
    Config,
    complete_config,
    config_differences,
    config_to_dict,
    epochs_to_steps,
    finetune_config,
)
from harness.errors import EXIT_USER_ERROR, Interrupted, UserError
from harness.native.evaluate_while_training import Evaluations
from harness.native.freeze import freeze_discriminator
from harness.native.sample_grids import save_reals, save_samples
from harness.native.signals_and_errors import disk_errors_told, explained, stop_signals
from harness.native.state import (
    build_training,
    load_networks,
    load_training,
    open_training_set,
    read_origin,
    save_training,
)
from harness.native.step import Training, train_step
from harness.networks.arch import ArchSpec
from harness.runtime.device import device_kind, prepare_hardware
from harness.runtime.dist import join_world, leave_world
from harness.runtime.progress import Reporter, save_curves
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir

# Keys of `model` that decide the shapes of weights and what they compute.
SHAPE_KEYS = tuple(sorted(set(ArchSpec.__dataclass_fields__) - {"g_init", "d_init"}))


def train_run(config: Config, *, limit_steps: int | None = None, allow_config_change: bool = False) -> Path:
    """Trains runs/<name> from scratch, or goes on with it. Returns the run's folder.

    Args:
        limit_steps: stop (saved, resumable) once the run has this many steps.
        allow_config_change: go on although the config differs from the run's.

    Raises:
        UserError: the data, the config or the folder cannot be used.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    return _run(config, limit_steps, allow_config_change)


def finetune_run(
    config: Config, *, checkpoint: str | None = None, limit_steps: int | None = None, allow_config_change: bool = False
) -> Path:
    """FreezeD: trains runs/<source>-freezed from the weights of a finished or unfinished run, which stays untouched.

    Args:
        checkpoint: name of a folder under the source run's checkpoints/, or `best`; None = the newest.
    """
    tuned = finetune_config(config)
    begun = list_checkpoints(Path("runs") / tuned.name / "checkpoints")  # then the source is not needed any more
    source = None if begun and not checkpoint else find_source(config, checkpoint)
    return _run(tuned, limit_steps, allow_config_change, freeze=True, source=source)


def find_source(config: Config, checkpoint: str | None) -> Path:
    """The checkpoint that fine-tuning starts from, checked to fit this config's networks."""
    run = Path("runs") / (config.finetune.from_run or config.name)
    checkpoints = run / "checkpoints"
    folder = find_checkpoint(checkpoints, checkpoint) if checkpoint else newest_checkpoint(checkpoints, say)
    if folder is None:
        raise UserError(f"finetune.from_run: {run} has no checkpoint to start from; try `make train` first")
    try:
        stored = complete_config(read_meta(folder)["config"])
    except ValueError as error:
        raise UserError(f"{folder}: cannot be fine-tuned: {error}") from error
    mine = config_to_dict(config)
    if differences := config_differences(_shape_of(stored), _shape_of(mine)):
        lines = [f"  {key}: the run has {old!r}, this config {new!r}" for key, old, new in differences]
        raise UserError("\n".join([f"{folder}: a run of another shape cannot be fine-tuned with this config", *lines]))
    return folder


def _shape_of(config: dict[str, Any]) -> dict[str, Any]:
    model = {key: config["model"][key] for key in SHAPE_KEYS if key in config["model"]}
    return {"data": {"img_size": config["data"]["img_size"]}, "model": model}


def _run(
    config: Config,
    limit_steps: int | None,
    allow_config_change: bool,
    freeze: bool = False,
    source: Path | None = None,
) -> Path:
    rundir = RunDir(Path("runs") / config.name)
    with disk_errors_told(rundir), ExitStack() as stack:
        world = join_world(device_kind(config.train))
        stack.callback(leave_world, world)
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        hardware = prepare_hardware(config.train, world.local_rank)
        stopping = stack.enter_context(stop_signals())

        def open_first() -> None:
            with open_training_set(config) as found:
                counted = epochs_to_steps(config, found.count)
            opened = RunDir.open(counted, allow_config_change=allow_config_change)
            stack.enter_context(opened.lock())
            newest = newest_checkpoint(opened.checkpoints, say)
            set_aside_damaged(opened.checkpoints, newest)
            _refuse_loss(opened, newest)

        world.on_first(open_first)
        packed = open_training_set(config)
        stack.callback(packed.close)
        config = epochs_to_steps(config, packed.count)
        run = build_training(config, hardware, world, packed)
        stack.callback(run.source.close)
        facts = _restore(run, rundir, packed, source)
        if freeze:
            freeze_discriminator(run.discriminator, config.finetune.freeze_layers)
        _train(run, rundir, packed, facts, limit_steps, stopping)
    return rundir.path


def _refuse_loss(rundir: RunDir, newest: Path | None) -> None:
    """UserError where a run ended saved, and no checkpoint is there: beginning anew would drop its statistics too."""
    status = rundir.read_status() or {}
    step = status.get("step")
    if newest is None and status.get("state") in ("done", "interrupted") and isinstance(step, int) and step > 0:
        raise UserError(
            f"{rundir.checkpoints}: found no checkpoint, but status.json says that step {step} was saved; put it back, "
            f"or move {rundir.path} away to begin anew"
        )


def _restore(run: Training, rundir: RunDir, packed: PackedSet, source: Path | None) -> dict[str, Any]:
    """Loads the newest checkpoint, or the fine-tuning source's weights. Returns the facts kept with each checkpoint."""
    newest = newest_checkpoint(rundir.checkpoints, lambda text: None)  # the first process has told of damaged ones
    facts = read_origin(rundir, packed, newest, source)
    if newest is not None:
        load_training(run, newest)
    elif source is not None:
        load_networks(run, source)
    return facts


def _train(
    run: Training,
    rundir: RunDir,
    packed: PackedSet,
    facts: dict[str, Any],
    limit_steps: int | None,
    stopping: list[int],
) -> None:
    """From the restored state to the last step, or as far as is asked for."""
    total = run.config.optim.total_steps
    target = min(total, limit_steps or total)
    first = run.world.first
    evaluations = Evaluations(run, rundir, stopping)
    if run.step >= target:
        evaluations.catch_up(say)
        if first:
            say(f"{rundir.path}: already at step {run.step} of {total}")
            if run.step >= total and (rundir.read_status() or {}).get("state") != "done":  # killed right after the save
                rundir.write_status("done", step=run.step, total_steps=total)
        return
    reporter = None
    try:
        if first:
            reporter = _begin(run, rundir, packed, facts, target)
        evaluations.catch_up(reporter.say if reporter else say)  # killed before this step was evaluated
        _loop(run, rundir, reporter, facts, target, stopping, evaluations)
    except Interrupted:
        raise
    except Exception as error:
        if first:
            with suppress(OSError):  # a full disk, say, which is what `error` tells
                rundir.write_status("failed", step=run.step, total_steps=total, message=str(error))
        raise explained(error, run) from error
    finally:
        if reporter:
            reporter.close()


def _begin(run: Training, rundir: RunDir, packed: PackedSet, facts: dict[str, Any], target: int) -> Reporter:
    rundir.drop_stats_after(run.step)
    rundir.write_env(device=run.hardware.text, processes=run.world.size, **facts)
    optim = run.config.optim
    pictures = optim.batch_size * optim.acml_steps * optim.d_updates_per_step
    reporter = Reporter(rundir, run.step, target, pictures, run.config.train.log_every_steps)
    _announce(reporter, run, packed, target)
    if run.step == 0:
        save_reals(run, rundir, packed)
        save_samples(run, rundir)
    return reporter


def _announce(reporter: Reporter, run: Training, packed: PackedSet, target: int) -> None:
    train = run.config.train.applied
    count = {n: sum(p.numel() for p in net.parameters()) for n, net in (("G", run.generator), ("D", run.discriminator))}
    where = "resident" if run.source.resident else "read when needed"
    layout = "channels-last" if train.channels_last else "channels-first"
    reporter.say(f"{reporter.rundir.path}: steps {run.step} to {target} on {packed.count} pictures ({where})")
    reporter.say(f"on {run.hardware.text}, {layout}, {train.numerics} numerics, {run.world.size} process(es)")
    reporter.say(f"G {count['G']:,} and D {count['D']:,} parameters")


def _loop(
    run: Training,
    rundir: RunDir,
    reporter: Reporter | None,
    facts: dict[str, Any],
    target: int,
    stopping: list[int],
    evaluations: Evaluations,
) -> None:
    train, optim, began_at_step = run.config.train, run.config.optim, run.step
    while run.step < target:
        values = train_step(run)

        # Caught before the update on the device; here a person is told. Reading a CUDA scalar waits, so not every step.
        if run.hardware.device.type == "cpu" or run.step % train.log_every_steps == 0:
            _check_finite(run, values)
        if reporter:
            reporter.add(values, run.step)

        # Samples, checkpoint, evaluation, and the way out.
        stop = run.world.any(bool(stopping))
        at_end = run.step == target
        if reporter and (at_end or run.step % train.sample_every_steps == 0):
            save_samples(run, rundir)
        if at_end or stop or evaluations.due() or run.step % train.save_every_steps == 0:
            _check_finite(run, values)
            save_training(run, rundir.checkpoints, facts)
            if reporter:
                save_curves(rundir.read_stats(), rundir.path / "curves.png")
        if evaluations.due() and not stop:  # after a signal it waits for the next start
            began_at_sec = time.monotonic()
            evaluations.catch_up(reporter.say if reporter else say)
            if reporter:
                reporter.began_at += time.monotonic() - began_at_sec  # the seconds per step are those of training
            stop = run.world.any(bool(stopping))
        if stop and not at_end:
            if reporter:
                rundir.write_status("interrupted", step=run.step, total_steps=optim.total_steps)
                reporter.say(f"stopped at step {run.step}, saved; the same command goes on")
            raise Interrupted(f"saved at step {run.step}")
    if reporter:
        state, text = ("done", "done") if target == optim.total_steps else ("interrupted", "stopped as asked")
        rundir.write_status(state, step=run.step, total_steps=optim.total_steps)
        reporter.say(f"{text} at step {run.step} after {run.step - began_at_step} steps")


def _check_finite(run: Training, values: dict[str, torch.Tensor]) -> None:
    """UserError (from the first process) once a loss or gradient was not finite."""
    if not run.broken:
        return
    if not run.world.first:
        raise SystemExit(EXIT_USER_ERROR)
    bad = [name for name, value in values.items() if not torch.isfinite(value)] or ["a loss or gradient"]
    raise UserError(
        f"step {run.step - int(run.broken_steps) + 1}: {', '.join(bad)} not finite; the weights were not updated "
        "with it and the last checkpoint is kept. Try lower optim.g_lr and optim.d_lr or train.precision=fp32 "
        "(with --allow-config-change to go on)"
    )
