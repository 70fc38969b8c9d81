"""Trains an encoder, from a config to measured figures; resumes bit for bit.

In: the checkpoints of a run and of the run fine-tuned from it. Out: runs/<base>/encoder/ with checkpoints, statistics
and a curve, and the figures in runs/<base>/metrics.json.
"""

import json
import time
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch

from blend.encoder.measure import BASELINE_LATENT_MSE, measure_encoder, measure_reconstruction
from blend.encoder.model import (
    Encoders,
    build_encoder,
    encoder_folder,
    generator_keys,
    generator_shape,
    has_joint_encoder,
    load_encoders,
)
from blend.encoder.polish import polish_encoders
from blend.encoder.ridge_init import fit_skip
from blend.encoder.step import BETA2, EncoderTraining, encoder_step, trial_pass
from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator, load_generator
from harness.checkpoints.checkpoint import (
    checkpoint_folder,
    disk_space_warning,
    load_state,
    load_weights,
    newest_for_resume,
    purge_checkpoints,
    read_meta,
    save_checkpoint,
    state_bytes,
)
from harness.config.experiment import Config, config_differences
from harness.errors import UserError
from harness.messages import log
from harness.native.data import PictureOrder, PictureSource
from harness.native.state import open_training_set
from harness.runtime.device import prepare_hardware
from harness.runtime.precision import faster_format, resumed_format
from harness.runtime.progress import save_curves
from harness.runtime.rng import RandomStreams
from harness.runtime.run_life import RunLife, run_life
from harness.storage.rundir import RunDir

# Keys that change no update. total_steps does: the learning rate depends on it.
FREE_KEYS = ("encoder.log_every_steps", "encoder.save_every_steps", "encoder.valid_count", "encoder.polish_steps")
CURVES = {"z_loss": "training loss on z", "latent_mse": "latent MSE on new pictures"}
CURVE_POINTS, CURVE_COUNT = 10, 128  # points over a run; pictures of each style for a point


def train_encoder(config: Config, limit_steps: int | None = None, root: Path = Path("runs")) -> Path:
    """Trains the encoder of the config's run, or resumes. Returns runs/<base>/encoder.

    Args:
        limit_steps: stop, saved and resumable, at this step.

    Raises:
        UserError: a run is missing, or the encoder there was started with other settings or generators.
        Interrupted: by SIGTERM or SIGINT; the state is saved.
    """
    generator = load_generator(config, need_tuned=config.encoder.with_finetuned, root=root)
    if has_joint_encoder(generator):
        return _measure_joint(config, generator)
    rundir = RunDir(encoder_folder(generator))
    with run_life(rundir) as life:
        rundir.checkpoints.mkdir(parents=True, exist_ok=True)
        life.resources.enter_context(rundir.lock())
        life.set_target(config.encoder.total_steps, limit_steps)
        newest = newest_for_resume(rundir.checkpoints, life.log)
        before = read_meta(newest) if newest else {"step": 0, "cpu_sec": 0.0}
        cpu_before_sec = before["cpu_sec"] - time.process_time()
        if newest is not None:
            _check_unchanged(before, _facts(config, generator), rundir.path)
        if before["step"] >= life.target and (life.is_done or life.target < life.total_steps):
            life.already_finished(before["step"], saved_is_done=False)
            return rundir.path
        run = _build(config, generator)
        run.cpu_before_sec = cpu_before_sec
        for source in run.reals:
            life.resources.callback(source.close)
        if newest is not None:
            _restore(run, newest)
        else:
            run.hardware = faster_format(run.hardware, config.train, partial(trial_pass, run))
            if config.encoder.skip_pictures:
                life.log(f"{rundir.path}: fitting the skip to {config.encoder.skip_pictures:,} pictures")
                fit_skip(run)
        _train(run, life)
    return rundir.path


def _measure_joint(config: Config, generator: StyledGenerator) -> Path:
    """Figures of encoders that were trained together with the generators; polished first if the config says so."""
    if config.encoder.polish_steps:
        polish_encoders(config, generator)
    encoders, settings = load_encoders(config, generator), config.encoder
    figures = measure_encoder(encoders, generator, _styles(config), settings.valid_count, config.seed)
    figures |= {"z_dim": generator.latents.z_dim, "steps": generator.base.step, "seed_latent_mse": BASELINE_LATENT_MSE}
    figures |= measure_reconstruction(config, encoders, generator)
    generator.base.run.write_metrics("encoder", figures)
    error = figures.get("picture_error")
    found = "" if error is None else f"; picture error of held-out pictures in one pass {error:.4f}"
    log(f"{generator.base.name}: its encoder was trained together with it{found}")
    return generator.folder


# ---- setup ----------------------------------------------------------------------------------------


def _facts(config: Config, generator: StyledGenerator) -> dict[str, Any]:
    """Everything that decides an update; saved with each checkpoint."""
    return {
        "config": {"seed": config.seed, "encoder": config.encoder.model_dump(mode="json")},
        "generator": generator_keys(generator, config.encoder.with_finetuned),
        "shape": generator_shape(generator),
    }


def _check_unchanged(meta: dict[str, Any], facts: dict[str, Any], folder: Path) -> None:
    """UserError with a list of what differs from the settings and generators that this encoder was started with."""
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
    head = f"{folder}: was started with other settings; move this folder away to start again, or restore these:"
    raise UserError("\n".join([head, *lines]))


def _build(config: Config, generator: StyledGenerator) -> EncoderTraining:
    settings, device = config.encoder, generator.device
    hardware = prepare_hardware(config.train.model_copy(update={"device": device.type}))
    encoder = build_encoder(config, generator).train()
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, settings.lr, (0.9, BETA2), weight_decay=settings.weight_decay, fused=config.train.fused_adam
    )
    generators = [generator.at(style) for style in _styles(config)]
    return EncoderTraining(
        config, generator, hardware, generators, encoder, optimizer, RandomStreams(config.seed, device),
        _open_real_pictures(config, generator, len(generators)),
    )  # fmt: skip


def _open_real_pictures(config: Config, generator: StyledGenerator, styles: int) -> list[PictureSource]:
    """The training pictures of each style's run, in batches of its part."""
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


def _restore(run: EncoderTraining, newest: Path) -> None:
    """Restores the exact state of a checkpoint."""
    run.encoder.load_state_dict(load_weights(newest, "encoder"))
    state = load_state(newest)
    run.step = state["step"]
    run.hardware = resumed_format(run.hardware, run.config.train, state.get("precision"))
    run.optimizer.load_state_dict(state["optimizer"])


# ---- training ---------------------------------------------------------------------------------------------------


def _train(run: EncoderTraining, life: RunLife) -> None:
    """From the restored state to the target step."""
    settings, batch = run.settings, run.settings.batch_size
    life.start(
        run,
        f"out of memory on {run.hardware.text} with encoder.batch_size={batch}; try --set "
        f"encoder.batch_size={max(2, batch // 2)} after moving the encoder's folder away",
    )
    env = {"device": run.hardware.text, **_facts(run.config, run.generator)}
    reporter = life.make_reporter(batch, settings.log_every_steps, **env)
    count = sum(weight.numel() for weight in run.encoder.parameters())
    styles = (run.generator.base, run.generator.tuned)[: len(run.generators)]
    names = " and ".join(loaded.name for loaded in styles if loaded)
    life.log(f"{life.rundir.path}: steps {run.step} to {life.target}, {count:,} parameters, pictures of {names}")
    life.log(f"on {run.hardware.text}")
    size_bytes = state_bytes([run.encoder], [run.optimizer])
    if lacking := disk_space_warning(life.rundir.checkpoints, size_bytes, run.config.train.keep_last):
        life.log(lacking)
    while run.step < life.target:
        values = encoder_step(run)
        stop = bool(life.stopping) and run.step < life.target
        saves = stop or run.step == life.target or run.step % settings.save_every_steps == 0
        if saves or run.hardware.device.type == "cpu" or run.step % settings.log_every_steps == 0:
            _check_finite(run, values)
        reporter.add(values, run.step)
        if run.step % max(1, life.total_steps // CURVE_POINTS) == 0:
            error = _measure(run, min(CURVE_COUNT, settings.valid_count))["latent_mse"]
            reporter.write_row({"step": run.step, "latent_mse": round(error, 6)})
            life.log(f"step {run.step}/{life.total_steps}  latent MSE {error:.3f}")
        if saves:
            _save(run, life.rundir.checkpoints)
        if stop:
            life.stop()
    level = (BASELINE_LATENT_MSE, f"earlier system: {BASELINE_LATENT_MSE:.3f}")
    curve = life.rundir.path / "curve.png"
    save_curves(life.rundir.read_stats(), curve, [tuple(CURVES)], "updates", level, CURVES)
    life.end(_write_figures(run, life.rundir) if life.target == life.total_steps else "")


def _check_finite(run: EncoderTraining, values: dict[str, torch.Tensor]) -> None:
    bad = [name for name, value in values.items() if not torch.isfinite(value)]
    if bad:
        raise UserError(
            f"encoder step {run.step}: {', '.join(bad)} not finite; the last checkpoint is kept. Try a lower "
            "encoder.lr or train.precision=fp32, after moving the encoder's folder away"
        )


def _measure(run: EncoderTraining, count: int) -> dict[str, Any]:
    encoders = Encoders(run.encoder, run.encoder)
    return measure_encoder(encoders, run.generator, _styles(run.config), count, run.config.seed)


def _save(run: EncoderTraining, checkpoints: Path) -> None:
    state = {"step": run.step, "optimizer": run.optimizer.state_dict(), "precision": run.hardware.precision}
    meta = {"step": run.step, "cpu_sec": run.cpu_sec, **_facts(run.config, run.generator)}
    save_checkpoint(checkpoint_folder(checkpoints, run.step), {"encoder": run.encoder.state_dict()}, state, meta)
    purge_checkpoints(checkpoints, run.config.train.keep_last)


def _write_figures(run: EncoderTraining, rundir: RunDir) -> str:
    """Writes the figures before the run is `done`, so that they are measured again after a kill; returns a summary."""
    figures = _measure(run, run.settings.valid_count)
    spent_sec = round(run.cpu_sec, 1)
    figures |= {
        "z_dim": run.generator.latents.z_dim,
        "steps": run.step,
        "cpu_sec": spent_sec,
        "seed_latent_mse": BASELINE_LATENT_MSE,
    }
    RunDir(rundir.path.parent).write_metrics("encoder", figures)
    by_style = ", ".join(f"style {style}: {mse:.3f}" for style, mse in figures["latent_mse_styles"].items())
    return f": latent MSE {figures['latent_mse']:.3f} ({by_style}), {spent_sec:.0f} CPU-s"
