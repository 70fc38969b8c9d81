"""Training and fine-tuning from a config to a finished run folder; can be interrupted and resumed at any time.

In: a Config and its packed pictures. Out: runs/<name>/ with checkpoints, samples, curves and statistics.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.checkpoint import (
    disk_space_warning,
    list_checkpoints,
    newest_checkpoint,
    newest_for_resume,
    read_meta,
    state_bytes,
)
from harness.checkpoints.load import find_checkpoint
from harness.checkpoints.origin import check_finetuned_from
from harness.checkpoints.pretrained import BASE, open_pretrained, pretrained_facts
from harness.config.experiment import (
    Config,
    base_name,
    check_kept_config,
    complete_config,
    config_differences,
    config_to_dict,
    epochs_to_steps,
    finetune_config,
)
from harness.errors import EXIT_USER_ERROR, UserError
from harness.messages import counted, log
from harness.native.evaluate_while_training import Evaluations
from harness.native.freeze import freeze_discriminator, freeze_whitening
from harness.native.reconstruction import reconstruction_step
from harness.native.sample_grids import save_reals, save_reconstructions, save_samples
from harness.native.state import (
    build_training,
    load_networks,
    load_training,
    networks_of,
    open_training_set,
    optimizers_of,
    origin_facts,
    save_training,
    warn_of_empty_classes,
)
from harness.native.step import Training, train_step, trial_pass
from harness.networks.arch import ArchSpec
from harness.networks.base import Generator
from harness.networks.encoder import Encoder
from harness.runtime.device import Hardware, device_kind, prepare_hardware
from harness.runtime.dist import join_world, leave_world
from harness.runtime.precision import faster_format
from harness.runtime.progress import Reporter, save_curves
from harness.runtime.run_life import RunLife, run_life
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir, refuse_other_size

# Keys of `model` that determine the shapes of weights and their function.
SHAPE_KEYS = tuple(sorted(set(ArchSpec.__dataclass_fields__) - {"g_init", "d_init"}))


def train_run(
    config: Config,
    *,
    limit_steps: int | None = None,
    allow_config_change: bool = False,
    freeze: bool = False,
    source: Path | None = None,
) -> Path:
    """Trains runs/<name> from scratch, or resumes it. Returns the run's folder.

    Args:
        limit_steps: stop (saved, resumable) once the run has this many steps.
        allow_config_change: resume although the config differs from the run's.
        freeze: FreezeD with `finetune.freeze_layers`.
        source: the checkpoint whose weights the run starts with.

    Raises UserError when the data, the config or the folder cannot be used; Interrupted after SIGTERM or SIGINT, with
    the state saved.
    """
    world = join_world(device_kind(config.train))
    rundir = RunDir(Path("runs") / config.name)
    with run_life(rundir, world) as life:
        life.resources.callback(leave_world, world)
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        hardware = prepare_hardware(config.train, world.local_rank)

        def open_run() -> None:
            with open_training_set(config) as found:
                warn_of_empty_classes(config, found)
                life.open(epochs_to_steps(config, found.count), allow_config_change)
            _check_not_lost(rundir, newest_for_resume(rundir.checkpoints, life.log))

        world.on_rank0(open_run)
        packed = life.resources.enter_context(open_training_set(config))
        run = build_training(epochs_to_steps(config, packed.count), hardware, world, packed)
        life.resources.callback(run.source.close)
        facts = _restore(run, rundir, packed, source)
        if freeze:
            freeze_discriminator(run.discriminator, config.finetune.freeze_layers)
            if run.reconstruction is not None:
                freeze_whitening(run.reconstruction.encoder)
        if run.step == 0:
            run.hardware = faster_format(hardware, config.train, partial(trial_pass, run), world)
        life.set_target(run.config.optim.total_steps, limit_steps)
        _train(run, life, packed, facts)
    return rundir.path


def finetune_run(
    config: Config, *, checkpoint: str | None = None, limit_steps: int | None = None, allow_config_change: bool = False
) -> Path:
    """FreezeD: trains runs/<source>-freezed from the weights of a run, which is not changed and need not be finished.

    Args:
        checkpoint: name of a folder under the source run's checkpoints/, or `best`; None = the newest.
    """
    tuned, source = finetune_config(config), find_finetune_source(config, checkpoint)
    return train_run(
        tuned, limit_steps=limit_steps, allow_config_change=allow_config_change, freeze=True, source=source
    )


def find_finetune_source(config: Config, checkpoint: str | None) -> Path | None:
    """The checkpoint that fine-tuning starts from. UserError when it does not fit this config's networks.

    None when the fine-tuning has begun and no checkpoint is named: then the source is no longer needed.
    """
    refuse_other_size(config)
    run, tuned = Path("runs") / base_name(config), RunDir(Path("runs") / finetune_config(config).name)
    if not checkpoint and list_checkpoints(tuned.checkpoints):
        if (newest := newest_checkpoint(tuned.checkpoints, lambda text: None)) and run.is_dir():
            check_finetuned_from(RunDir(run), tuned, read_meta(newest))
        return None
    checkpoints = run / "checkpoints"
    folder = find_checkpoint(checkpoints, checkpoint) if checkpoint else newest_checkpoint(checkpoints, log)
    if folder is None:
        raise UserError(f"finetune.from_run: {run} has no checkpoint to start from; try `make train` first")
    try:
        stored = config_to_dict(check_kept_config(read_meta(folder)["config"], str(folder)))
    except ValueError as error:
        raise UserError(f"{folder}: cannot be fine-tuned: {error}") from error
    if differences := config_differences(_shape_keys(stored), _shape_keys(config_to_dict(config))):
        lines = [f"  {key}: the run has {old!r}, this config {new!r}" for key, old, new in differences]
        raise UserError("\n".join([f"{folder}: another model, which this config cannot fine-tune", *lines]))
    return folder


def pretrained_source(config: Config) -> Path:
    """The ready-made model's checkpoint. UserError when it does not fit this config's networks."""
    model_config = pretrained_facts()["runs"][BASE]["config"]
    if differences := config_differences(
        _shape_keys(complete_config(model_config)), _shape_keys(config_to_dict(config))
    ):
        found = ", ".join(f"{key}: {new!r} (the model has {old!r})" for key, old, new in differences)
        raise UserError(
            f"PRETRAINED: found {found}, allowed the ready-made model's picture size and networks; try "
            "configs/demo.yaml, or leave PRETRAINED out"
        )
    return open_pretrained()


def _shape_keys(config: dict[str, Any]) -> dict[str, Any]:
    model = {key: config["model"][key] for key in SHAPE_KEYS if key in config["model"]}
    return {"data": {"img_size": config["data"]["img_size"]}, "model": model}


def _check_not_lost(rundir: RunDir, newest: Path | None) -> None:
    """UserError when a run that ended with a save has no checkpoint: starting over would drop its statistics too."""
    status = rundir.read_status() or {}
    step = status.get("step")
    if newest is None and status.get("state") in ("done", "interrupted") and isinstance(step, int) and step > 0:
        raise UserError(
            f"{rundir.checkpoints}: found no checkpoint, but status.json says that step {step} was saved; put it back, "
            f"or move {rundir.path} away to start over"
        )


def _restore(run: Training, rundir: RunDir, packed: PackedSet, source: Path | None) -> dict[str, Any]:
    """Loads the newest checkpoint, or the fine-tuning source's weights. Returns the facts stored in each checkpoint."""
    newest = newest_checkpoint(rundir.checkpoints, lambda text: None)  # rank 0 has reported damaged ones
    facts = origin_facts(rundir, packed, newest, source)
    if newest is not None:
        load_training(run, newest)
    elif source is not None:
        load_networks(run, source, packed.class_names)
    return facts


def out_of_memory_message(config: Config, hardware: Hardware) -> str:
    optim = config.optim
    return (
        f"out of memory on {hardware.text} with batch {optim.batch_size}; try --set optim.batch_size="
        f"{max(2, optim.batch_size // 2)} --set optim.acml_steps={2 * optim.acml_steps} in a new run; the last "
        "checkpoint is kept"
    )


def _train(run: Training, life: RunLife, packed: PackedSet, facts: dict[str, Any]) -> None:
    """The training loop, from the restored state to `life.target`."""
    train, first_step, first = run.config.train, run.step, run.world.is_rank0
    evaluations = Evaluations(run, life)
    if run.step >= life.target:
        evaluations.evaluate_if_due()
        return life.already_finished(run.step)
    life.start(run, out_of_memory_message(run.config, run.hardware))
    reporter = _start_report(run, life, packed, facts) if first else None
    evaluations.evaluate_if_due()  # killed before this step was evaluated
    step = train_step if run.reconstruction is None else reconstruction_step
    while run.step < life.target:
        values = step(run)

        # The device itself skips such updates; this reports them. Reading a CUDA scalar synchronises, so not at every
        # step.
        if run.hardware.device.type == "cpu" or run.step % train.log_every_steps == 0:
            _check_finite(run, values)
        if reporter:
            reporter.add(values, run.step)

        # Samples, checkpoint, evaluation, end.
        stop = run.world.any_rank(bool(life.stopping))
        at_end = run.step == life.target
        if first and (at_end or run.step % train.sample_every_steps == 0):
            generator, encoder = _averaged_networks(run)
            save_samples(run, generator, life.rundir, encoder)
            if encoder is not None:
                save_reconstructions(run, encoder, generator, packed, life.rundir)
        if at_end or stop or evaluations.due() or run.step % train.save_every_steps == 0:
            _check_finite(run, values)
            save_training(run, life.rundir.checkpoints, facts)
            if first:
                save_curves(life.rundir.read_stats(), life.rundir.path / "curves.png")
        if evaluations.due() and not stop:  # after a signal, at the next start
            began_at_sec = time.monotonic()
            evaluations.evaluate_if_due()
            if reporter:
                reporter.began_at += time.monotonic() - began_at_sec  # not part of the seconds per step
            stop = run.world.any_rank(bool(life.stopping))
        if stop and not at_end:
            life.stop()
    life.end(f" after {run.step - first_step} steps")


def _start_report(run: Training, life: RunLife, packed: PackedSet, facts: dict[str, Any]) -> Reporter:
    """Logs and writes what precedes the first step, on rank 0."""
    train, optim = run.config.train.applied, run.config.optim
    pictures = optim.batch_size * optim.acml_steps * optim.d_updates_per_step
    env = {"device": run.hardware.text, "processes": run.world.size, **facts}
    reporter = life.make_reporter(pictures, train.log_every_steps, **env)
    networks = {"G": run.generator, "D": run.discriminator}
    if run.reconstruction is not None:
        networks |= {"E": run.reconstruction.encoder, "heads": run.reconstruction.heads}
    counts = [f"{name} {sum(p.numel() for p in network.parameters()):,}" for name, network in networks.items()]
    where = "resident" if run.source.resident else "read on demand"
    layout = "channels-last" if train.channels_last else "channels-first"
    life.log(f"{life.rundir.path}: steps {run.step} to {life.target} on {packed.count} pictures ({where})")
    life.log(f"on {run.hardware.text}, {layout}, {train.numerics} numerics, {counted(run.world.size, 'process', 'es')}")
    life.log(f"parameters: {', '.join(counts)}")
    size_bytes = state_bytes(networks_of(run).values(), optimizers_of(run).values())
    kept = train.keep_last + bool(run.config.evaluate.every_steps)
    if lacking := disk_space_warning(life.rundir.checkpoints, size_bytes, kept):
        life.log(lacking)
    if run.config.reconstruction.apply and run.step < life.target <= run.config.reconstruction.warmup_steps:
        life.log(
            f"warning: no discriminator learns, because optim.total_steps ends within reconstruction.warmup_steps "
            f"({run.config.reconstruction.warmup_steps})"
        )
    if run.step == 0:
        save_reals(life.rundir, packed, train.sample_count)
        generator, encoder = _averaged_networks(run)
        save_samples(run, generator, life.rundir, encoder)
    return reporter


def _averaged_networks(run: Training) -> tuple[Generator, Encoder | None]:
    """Generator and encoder (None without one), as moving averages if there are any."""
    rec = run.reconstruction
    return run.generator_ema or run.generator, None if rec is None else rec.encoder_ema or rec.encoder


def _check_finite(run: Training, values: dict[str, torch.Tensor]) -> None:
    """UserError (on rank 0) after a non-finite loss or gradient."""
    if not run.nonfinite:
        return
    if not run.world.is_rank0:
        raise SystemExit(EXIT_USER_ERROR)
    bad = [name for name, value in values.items() if not torch.isfinite(value)] or ["a loss or gradient"]
    raise UserError(
        f"step {run.step - int(run.nonfinite_steps) + 1}: {', '.join(bad)} not finite; the weights were not updated "
        "with it and the last checkpoint is kept. Try lower optim.g_lr and optim.d_lr or train.precision=fp32 "
        "(with --allow-config-change to go on)"
    )
