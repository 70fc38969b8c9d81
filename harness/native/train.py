"""Training and fine-tuning from a config to a finished run folder; stops and goes on at any moment.

In: a Config and its packed pictures. Out: runs/<name>/ with checkpoints, samples, curves and statistics.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from harness.config import Config, config_differences, config_to_dict, finetune_config
from harness.errors import Interrupted, UserError
from harness.hdf5 import PackedSet
from harness.images import picture_grid, save_png
from harness.native.build import (
    build_training,
    load_networks,
    load_training,
    open_training_set,
    save_training,
)
from harness.native.checkpoint import newest_checkpoint, read_meta
from harness.native.device import device_kind, prepare_hardware
from harness.native.dist import join_world, leave_world
from harness.native.draws import Draws
from harness.native.freeze import freeze_discriminator
from harness.native.progress import Reporter, save_curves
from harness.native.sampling import latents_to_pictures, standing_copy
from harness.native.step import Training, d_update, g_update
from harness.rundir import RunDir


def train_run(config: Config, *, limit_steps: int | None = None, allow_config_change: bool = False) -> Path:
    """Trains runs/<name> from scratch, or goes on with it. Returns the run's folder.

    Args:
        limit_steps: stop (saved, resumable) once the run has this many steps.
        allow_config_change: go on although the config differs from the run's.

    Raises:
        UserError: the data, the config or the folder cannot be used.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    return _run(config, None, limit_steps, allow_config_change)


def finetune_run(
    config: Config, *, checkpoint: str | None = None, limit_steps: int | None = None, allow_config_change: bool = False
) -> Path:
    """FreezeD: trains runs/<source>-freezed from the weights of a finished or unfinished run, which stays untouched.

    Args:
        checkpoint: a checkpoint folder of the source run; None = its newest.
    """
    source = find_source(config, checkpoint)
    return _run(finetune_config(config), source, limit_steps, allow_config_change)


def find_source(config: Config, checkpoint: str | None) -> Path:
    """The checkpoint that fine-tuning starts from, checked to fit this config's networks."""
    run = Path("runs") / (config.finetune.from_run or config.name)
    folder = Path(checkpoint) if checkpoint else newest_checkpoint(run / "checkpoints", _warn)
    if folder is None:
        raise UserError(f"finetune.from_run: {run} has no checkpoint to start from; try `make train` first")
    try:
        stored = read_meta(folder)["config"]
    except ValueError as error:
        raise UserError(f"{folder}: cannot be fine-tuned: {error}") from error
    mine = config_to_dict(config)
    differences = config_differences(stored["model"], mine["model"], "model.")
    if stored["data"]["img_size"] != mine["data"]["img_size"]:
        differences.append(("data.img_size", stored["data"]["img_size"], mine["data"]["img_size"]))
    if differences:
        lines = [f"  {key}: the run has {old!r}, this config {new!r}" for key, old, new in differences]
        raise UserError("\n".join([f"{folder}: a run of another shape cannot be fine-tuned with this config", *lines]))
    return folder


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _run(config: Config, source: Path | None, limit_steps: int | None, allow_config_change: bool) -> Path:
    world = join_world(device_kind(config.train))
    hardware = prepare_hardware(config.train, world.local_rank)
    packed = open_training_set(config)
    with ExitStack() as stack:
        stack.callback(leave_world, world)
        rundir = RunDir.open(config, allow_config_change=allow_config_change) if world.first else None
        if rundir:
            stack.enter_context(rundir.lock())
        world.barrier()
        rundir = rundir or RunDir(Path("runs") / config.name)
        run = build_training(config, hardware, world, packed)
        stack.callback(run.source.close)
        return _go(run, rundir, packed, source, limit_steps, stack)


def _go(
    run: Training, rundir: RunDir, packed: PackedSet, source: Path | None, limit_steps: int | None, stack: ExitStack
) -> Path:
    facts = _restore(run, rundir, packed, source)
    total = run.config.optim.total_steps
    target = min(total, limit_steps) if limit_steps else total
    if run.step >= target:
        if run.world.first:
            print(f"{rundir.path}: already at step {run.step} of {total}", file=sys.stderr)
        return rundir.path
    reporter = None
    if run.world.first:
        rundir.drop_stats_after(run.step)
        rundir.write_env(device=run.hardware.text, processes=run.world.size, **facts)
        optim = run.config.optim
        pictures = optim.batch_size * optim.acml_steps * optim.d_updates_per_step
        reporter = Reporter(rundir, run.step, target, pictures, run.config.train.log_every_steps)
        stack.callback(reporter.close)
        _announce(reporter, run, packed, target)
        if run.step == 0:
            save_reals(run, rundir, packed)
            save_samples(run, rundir)
    with stop_signals() as stopping:
        try:
            _loop(run, rundir, reporter, facts, target, stopping)
        except (UserError, RuntimeError) as error:
            if reporter:
                rundir.write_status("failed", step=run.step, total_steps=total, message=str(error))
            raise _explained(error, run) from error
    return rundir.path


def _restore(run: Training, rundir: RunDir, packed: PackedSet, source: Path | None) -> dict[str, Any]:
    """Loads the newest checkpoint, or the fine-tuning source's weights. Returns the facts kept with each checkpoint."""
    newest = newest_checkpoint(rundir.checkpoints, _warn)
    facts: dict[str, Any] = {"data_sha256": packed.sha256, "class_names": packed.class_names}
    if newest is None and source is not None:
        load_networks(run, source)
        facts |= {"finetuned_from": str(source), "finetuned_from_sha256": read_meta(source)["sha256"]}
    if newest is not None:
        meta = read_meta(newest)
        if meta["data_sha256"] != packed.sha256:
            raise UserError(
                f"{packed.path}: is not the training set that {rundir.path} began with (its content hash differs); "
                "put the old one back, or train under another --set name="
            )
        load_training(run, newest)
        facts |= {key: meta[key] for key in meta if key.startswith("finetuned_from")}
    if source is not None:
        freeze_discriminator(run.discriminator, run.config.finetune.freeze_layers)
    return facts


def _announce(reporter: Reporter, run: Training, packed: PackedSet, target: int) -> None:
    train = run.config.train
    count = {n: sum(p.numel() for p in net.parameters()) for n, net in (("G", run.generator), ("D", run.discriminator))}
    where = "resident" if run.source.resident else "read when needed"
    layout = "channels-last" if train.channels_last else "channels-first"
    reporter.say(f"{reporter.rundir.path}: steps {run.step} to {target} on {packed.count} pictures ({where})")
    reporter.say(f"on {run.hardware.text}, {layout}, D call {train.d_call}, {run.world.size} process(es)")
    reporter.say(f"G {count['G']:,} and D {count['D']:,} parameters")


def _loop(
    run: Training, rundir: RunDir, reporter: Reporter | None, facts: dict[str, Any], target: int, stopping: list[int]
) -> None:
    train, optim, began_at_step = run.config.train, run.config.optim, run.step
    while run.step < target:
        # Discriminator, then generator.
        values: dict[str, torch.Tensor] = {}
        for update in range(optim.d_updates_per_step):
            values |= d_update(run, update)
        values |= g_update(run)

        # Caught before the update on the device; here a person is told. Reading a CUDA scalar waits, so not every step.
        if (run.hardware.device.type == "cpu" or run.step % train.log_every_steps == 0) and run.broken:
            raise UserError(_broken_text(run, values))
        if reporter:
            reporter.add(values, run.step)

        # Samples, checkpoint, and the way out.
        stop = run.world.any(bool(stopping))
        at_end = run.step == target
        if reporter and (at_end or run.step % train.sample_every_steps == 0):
            save_samples(run, rundir)
        if at_end or stop or run.step % train.save_every_steps == 0:
            if run.broken:
                raise UserError(_broken_text(run, values))
            if reporter:
                save_training(run, rundir.checkpoints, facts)
                save_curves(rundir.read_stats(), rundir.path / "curves.png")
            run.world.barrier()
        if stop and not at_end:
            if reporter:
                rundir.write_status("interrupted", step=run.step, total_steps=optim.total_steps)
                reporter.say(f"stopped at step {run.step}, saved; the same command goes on")
            raise Interrupted(f"saved at step {run.step}")
    if reporter:
        state = "done" if target == optim.total_steps else "interrupted"
        rundir.write_status(state, step=run.step, total_steps=optim.total_steps)
        reporter.say(f"{state} at step {run.step} after {run.step - began_at_step} steps")


def _broken_text(run: Training, values: dict[str, torch.Tensor]) -> str:
    bad = [name for name, value in values.items() if not torch.isfinite(value)] or ["a loss"]
    return (
        f"step {run.step}: {', '.join(bad)} not finite; the weights were not updated with it and the last checkpoint "
        "is kept. Try lower optim.g_lr and optim.d_lr or train.precision=fp32 (with --allow-config-change to go on)"
    )


def _explained(error: Exception, run: Training) -> Exception:
    """Out of memory becomes advice; everything else stays what it is."""
    if isinstance(error, torch.OutOfMemoryError):
        batch = run.config.optim.batch_size
        return UserError(
            f"out of memory on {run.hardware.text} with batch {batch}; try --set optim.batch_size={max(2, batch // 2)} "
            "--set optim.acml_steps=2 in a new run; the last checkpoint is kept"
        )
    return error


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that SIGTERM, SIGINT and SIGUSR1 fill: the loop finishes its step, saves and leaves."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        print(f"\n{signal.Signals(number).name}: finishing this step and saving", file=sys.stderr, flush=True)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def save_reals(run: Training, rundir: RunDir, packed: PackedSet) -> None:
    """A grid of training pictures, to lay beside the samples."""
    count = min(run.config.train.sample_count, packed.count)
    rows = np.linspace(0, packed.count - 1, count).astype(np.int64)
    save_png(rundir.samples / "reals.png", picture_grid(packed.read(rows), grid_columns(count)))


def save_samples(run: Training, rundir: RunDir) -> None:
    """A grid of samples on the run's fixed noise (noise.pt), so that grids of all steps compare."""
    model, count = run.config.model, run.config.train.sample_count
    if rundir.noise_path.exists():
        noise = torch.load(rundir.noise_path, weights_only=True)
    else:
        z, y = Draws(run.config.seed, torch.device("cpu")).latents("samples", 0, count, model.z_dim, run.num_classes)
        noise = {"z": z, "y": None if y is None else y.sort().values}
        torch.save(noise, rundir.noise_path)
    generator = standing_copy(run.generator_ema or run.generator, model.z_dim, run.num_classes)
    pictures = latents_to_pictures(generator, noise["z"], noise["y"])
    save_png(rundir.samples / f"step-{run.step:08d}.png", picture_grid(pictures, grid_columns(len(pictures))))


def grid_columns(count: int) -> int:
    return max(1, round(count**0.5))
