"""Teaching an encoder from a config to measured figures; stops and goes on at any moment.

In: the checkpoints of a run and of the run fine-tuned from it. Out: runs/<base>/encoder/ with checkpoints, statistics
and a curve, and the figures in runs/<base>/metrics.json.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from blend.encoder.measure import SEED_LATENT_MSE, measure_encoder
from blend.encoder.model import build_encoder, encoder_folder, generator_keys
from blend.encoder.ridge_init import fit_skip
from blend.encoder.step import BETA2, Learning, encoder_step
from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator, load_generator
from harness.checkpoints.checkpoint import (
    checkpoint_folder,
    load_state,
    load_weights,
    newest_checkpoint,
    purge_checkpoints,
    read_meta,
    save_checkpoint,
    set_aside_damaged,
)
from harness.cli import say
from harness.config.experiment import Config, config_differences
from harness.errors import Interrupted, UserError
from harness.native.data import PictureOrder, PictureSource
from harness.native.signals_and_errors import stop_signals
from harness.native.state import open_training_set
from harness.runtime.device import prepare_hardware
from harness.runtime.progress import Reporter, save_curves
from harness.runtime.rng import Draws
from harness.storage.rundir import RunDir

# No update computes anything else with them. total_steps does: the learning rate follows it.
FREE_KEYS = ("encoder.log_every_steps", "encoder.save_every_steps", "encoder.valid_count")
CURVES = {"z_loss": "loss on z while learning", "latent_mse": "latent MSE on fresh pictures"}
CURVE_POINTS, CURVE_COUNT = 10, 128  # so many points over a run, each measured on so many pictures of each style


@dataclass(frozen=True)
class Lesson:
    """Everything about the teaching that does not change with a step. `facts` are kept with each checkpoint."""

    config: Config
    generator: StyledGenerator
    rundir: RunDir
    facts: dict[str, Any]
    target: int
    spent_sec: float  # CPU time of earlier processes
    began_sec: float

    @property
    def cpu_sec(self) -> float:
        return self.spent_sec + time.process_time() - self.began_sec

    def measure(self, run: Learning, count: int) -> dict[str, Any]:
        return measure_encoder(run.encoder, self.generator, _styles(self.config), count, self.config.seed)


def train_encoder(config: Config, limit_steps: int | None = None, root: Path = Path("runs")) -> Path:
    """Teaches the encoder of the config's run, or goes on with it. Returns runs/<base>/encoder.

    Args:
        limit_steps: stop (saved, resumable) once it has this many steps.

    Raises:
        UserError: a run is missing, or the encoder there began with other settings or learned from other generators.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    generator = load_generator(config, need_tuned=config.encoder.with_finetuned, root=root)
    rundir = RunDir(encoder_folder(generator))
    rundir.checkpoints.mkdir(parents=True, exist_ok=True)
    total = config.encoder.total_steps
    target = min(total, limit_steps or total)
    with stop_signals() as stopping, rundir.lock():
        newest = newest_checkpoint(rundir.checkpoints, say)
        set_aside_damaged(rundir.checkpoints, newest)
        facts, before = _facts(config, generator), read_meta(newest) if newest else {"step": 0, "cpu_sec": 0.0}
        if newest is not None:
            _check_unchanged(before, facts, rundir.path)
        measured = (rundir.read_status() or {}).get("state") == "done"
        if before["step"] >= target and (measured or target < total):
            say(f"{rundir.path}: already at step {before['step']} of {total}")
            return rundir.path
        lesson = Lesson(config, generator, rundir, facts, target, before["cpu_sec"], time.process_time())
        run = _build(config, generator)
        if newest is not None:
            _restore(run, newest)
        elif config.encoder.skip_pictures:
            say(f"{rundir.path}: fitting the skip to {config.encoder.skip_pictures:,} pictures")
            fit_skip(run)
        try:
            _learn(run, lesson, stopping)
        except Interrupted:
            raise
        except Exception as error:
            with suppress(OSError):  # a full disk, say, which is what `error` tells
                rundir.write_status("failed", step=run.step, total_steps=total, message=str(error))
            raise _explained(error, run) from error
        finally:
            for source in run.reals:
                source.close()
    return rundir.path


# ---- what it begins with ----------------------------------------------------------------------------------------


def _facts(config: Config, generator: StyledGenerator) -> dict[str, Any]:
    """What decides every update, kept with each checkpoint as JSON has it."""
    return {
        "config": {"seed": config.seed, "encoder": config.encoder.model_dump(mode="json")},
        "generator": generator_keys(generator, config.encoder.with_finetuned),
        "shape": [generator.z_dim, generator.num_classes, generator.height, generator.width],
    }


def _check_unchanged(meta: dict[str, Any], facts: dict[str, Any], folder: Path) -> None:
    """UserError that lists what differs from the settings and generators that this encoder began with."""
    old, new = ({**part["config"], "generator": part["generator"]} for part in (meta, facts))
    changed = [
        difference
        for difference in config_differences(old, new)
        if not any(fnmatchcase(difference[0], pattern) for pattern in FREE_KEYS)
    ]
    if not changed:
        return
    lines = []
    for key, before, now in changed:
        if key.startswith("generator"):
            lines.append(f"  the generator of style {int(key.split('.')[1]) / STYLE_STEPS:g}: other weights")
        else:
            lines.append(f"  {key}: it has {json.dumps(before)}, config says {json.dumps(now)}")
    head = f"{folder}: an encoder that began otherwise; move this folder away to begin anew, or go back to what it has"
    raise UserError("\n".join([head, *lines]))


def _build(config: Config, generator: StyledGenerator) -> Learning:
    settings, device = config.encoder, generator.device
    hardware = prepare_hardware(config.train.model_copy(update={"device": device.type}))
    encoder = build_encoder(config, generator).train()
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, settings.lr, (0.9, BETA2), weight_decay=settings.weight_decay, fused=config.train.fused_adam
    )
    drawers = [generator.at(style) for style in _styles(config)]
    return Learning(
        settings, hardware, drawers, encoder, optimizer, Draws(config.seed, device), generator.z_dim,
        generator.num_classes, _open_reals(config, generator, len(drawers)),
    )  # fmt: skip


def _open_reals(config: Config, generator: StyledGenerator, styles: int) -> list[PictureSource]:
    """The training pictures of each style's run, its part of a batch at a time."""
    settings = config.encoder
    if not (settings.real_pictures and settings.picture_lambda):
        return []
    sources = []
    for number, loaded in enumerate([generator.base, generator.tuned][:styles]):
        assert loaded is not None
        packed = open_training_set(loaded.config)
        size = settings.batch_size // styles + (number < settings.batch_size % styles)  # as tensor_split cuts it
        order = PictureOrder(config.seed, packed.count, size)
        sources.append(PictureSource(packed, order, False, generator.device, config.train.pictures, slice(None)))
    return sources


def _styles(config: Config) -> list[int]:
    return [0, 1] if config.encoder.with_finetuned else [0]


def _restore(run: Learning, newest: Path) -> None:
    """Goes on exactly where the checkpoint was written."""
    run.encoder.load_state_dict(load_weights(newest, "encoder"))
    state = load_state(newest)
    run.step = state["step"]
    run.optimizer.load_state_dict(state["optimizer"])


# ---- learning ---------------------------------------------------------------------------------------------------


def _learn(run: Learning, lesson: Lesson, stopping: list[int]) -> None:
    """From the restored state to the last step, or as far as is asked for."""
    settings, rundir, total = run.settings, lesson.rundir, run.settings.total_steps
    rundir.drop_stats_after(run.step)
    rundir.write_env(device=run.hardware.text, **lesson.facts)
    reporter = Reporter(rundir, run.step, lesson.target, settings.batch_size, settings.log_every_steps)
    try:
        _announce(reporter, run, lesson)
        while run.step < lesson.target:
            values = encoder_step(run)
            stop = bool(stopping) and run.step < lesson.target
            saves = stop or run.step == lesson.target or run.step % settings.save_every_steps == 0
            if saves or run.hardware.device.type == "cpu" or run.step % settings.log_every_steps == 0:
                _check_finite(run, values)
            reporter.add(values, run.step)
            if run.step % max(1, total // CURVE_POINTS) == 0:
                _add_curve_point(run, reporter, lesson)
            if saves:
                _save(run, lesson)
            if stop:
                rundir.write_status("interrupted", step=run.step, total_steps=total)
                reporter.say(f"stopped at step {run.step}, saved; the same command goes on")
                raise Interrupted(f"saved at step {run.step}")
        level = (SEED_LATENT_MSE, f"the first seed's: {SEED_LATENT_MSE:.3f}")
        save_curves(rundir.read_stats(), rundir.path / "curve.png", [tuple(CURVES)], "updates", level, CURVES)
        if lesson.target == total:
            _finish(run, reporter, lesson)
        else:
            rundir.write_status("interrupted", step=run.step, total_steps=total)
            reporter.say(f"stopped as asked at step {run.step}")
    finally:
        reporter.close()


def _announce(reporter: Reporter, run: Learning, lesson: Lesson) -> None:
    count = sum(weight.numel() for weight in run.encoder.parameters())
    generator = lesson.generator
    names = " and ".join(loaded.name for loaded in (generator.base, generator.tuned)[: len(run.drawers)] if loaded)
    reporter.say(
        f"{lesson.rundir.path}: steps {run.step} to {lesson.target}, {count:,} parameters, pictures of {names}"
    )
    reporter.say(f"on {run.hardware.text}")


def _check_finite(run: Learning, values: dict[str, torch.Tensor]) -> None:
    bad = [name for name, value in values.items() if not torch.isfinite(value)]
    if bad:
        raise UserError(
            f"encoder step {run.step}: {', '.join(bad)} not finite; the last checkpoint is kept. Try a lower "
            "encoder.lr or train.precision=fp32, after moving the encoder's folder away"
        )


def _add_curve_point(run: Learning, reporter: Reporter, lesson: Lesson) -> None:
    error = lesson.measure(run, min(CURVE_COUNT, run.settings.valid_count))["latent_mse"]
    reporter.write_row({"step": run.step, "latent_mse": round(error, 6)})
    reporter.say(f"step {run.step}/{run.settings.total_steps}  latent MSE {error:.3f}")


def _save(run: Learning, lesson: Lesson) -> None:
    checkpoints = lesson.rundir.checkpoints
    state = {"step": run.step, "optimizer": run.optimizer.state_dict()}
    meta = {"step": run.step, "cpu_sec": lesson.cpu_sec, **lesson.facts}
    save_checkpoint(checkpoint_folder(checkpoints, run.step), {"encoder": run.encoder.state_dict()}, state, meta)
    purge_checkpoints(checkpoints, lesson.config.train.keep_last)


def _finish(run: Learning, reporter: Reporter, lesson: Lesson) -> None:
    """The figures, and only then `done`: killed before, the same command measures again."""
    figures = lesson.measure(run, run.settings.valid_count)
    spent_sec = round(lesson.cpu_sec, 1)
    figures |= {"z_dim": run.z_dim, "steps": run.step, "cpu_sec": spent_sec, "seed_latent_mse": SEED_LATENT_MSE}
    RunDir(lesson.rundir.path.parent).write_metrics("encoder", figures)
    lesson.rundir.write_status("done", step=run.step, total_steps=run.step)
    by_style = ", ".join(f"style {style}: {mse:.3f}" for style, mse in figures["latent_mse_styles"].items())
    reporter.say(f"done at step {run.step}: latent MSE {figures['latent_mse']:.3f} ({by_style}), {spent_sec:.0f} CPU-s")


def _explained(error: Exception, run: Learning) -> Exception:
    """Out of memory becomes advice; everything else stays what it is."""
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    batch = run.settings.batch_size
    return UserError(
        f"out of memory on {run.hardware.text} with encoder.batch_size={batch}; try --set "
        f"encoder.batch_size={max(2, batch // 2)} after moving the encoder's folder away"
    )
