"""Building networks and optimisers from a config, and saving and loading them."""

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.checkpoints.checkpoint import (
    checkpoint_folder,
    load_state,
    load_weights,
    purge_checkpoints,
    read_meta,
    save_checkpoint,
)
from harness.checkpoints.class_tables import class_changes, fit_classes
from harness.config.class_choice import to_class_names
from harness.config.experiment import Config, config_to_dict
from harness.errors import UserError
from harness.features.frozen_maps import load_frozen_maps
from harness.messages import log
from harness.native.data import PictureOrder, Pictures, PictureSource
from harness.native.losses import LeCam
from harness.native.muon import MuonAdam
from harness.native.reconstruction import SHARE_START, Reconstruction
from harness.native.step import Training
from harness.networks.build import build_encoder_and_heads, build_networks
from harness.networks.layers import synchronise_batch_norm
from harness.runtime.device import Hardware
from harness.runtime.dist import World
from harness.runtime.precision import resumed_format
from harness.runtime.rng import RandomStreams
from harness.storage.hdf5 import PackedSet, open_packed
from harness.storage.rundir import RunDir

MAX_REASON_CHARS = 200  # torch lists every weight
N = TypeVar("N", bound=nn.Module)


def open_training_set(config: Config) -> PackedSet:
    """The config's packed training set. UserError when its pictures have another size."""
    packed = open_packed(config.data.hdf5_path("train"))
    if (packed.height, packed.width) != config.data.img_size:
        raise UserError(
            f"{packed.path}: holds {packed.height}x{packed.width} pictures, "
            f"data.img_size is {config.data.img_size}; try `make dataset CONFIG=...` for this size"
        )
    return packed


def warn_of_empty_classes(config: Config, packed: PackedSet) -> None:
    """Logs classes without a training picture, of a set packed by an earlier version or elsewhere."""
    empty = sorted(set(range(len(packed.class_names))) - set(packed.labels.tolist()))
    if config.model.conditional and empty:
        names = ", ".join(packed.class_names[label] for label in empty)
        log(f"{packed.path}: has no picture of {names}; `make dataset REBUILD=1` drops such classes")


def build_training(config: Config, hardware: Hardware, world: World, packed: Pictures) -> Training:
    """The state of a run at step 0."""
    num_classes = len(packed.class_names) if config.model.conditional else 0
    device, optim, local_slice = hardware.device, config.optim, world.local_slice(config.optim.batch_size)
    generator, discriminator = build_networks(config, num_classes, device)
    if world.size > 1:
        synchronise_batch_norm(generator)
        synchronise_batch_norm(discriminator)  # it has batch norm if it has no spectral norm
    ema = make_ema(generator, config)

    loss, lecam = config.loss, None
    if loss.apply_lecam:
        lecam = LeCam(loss.lecam_type, loss.lecam_lambda, loss.lecam_ema_decay, loss.lecam_ema_start_iter)
    order = PictureOrder(config.seed, packed.count, optim.batch_size)
    source = PictureSource(packed, order, config.augment.apply_rflip, device, config.train.pictures, local_slice)
    run = Training(
        config, hardware, world, generator, discriminator, ema,
        _reconstruction_optimizer(generator, optim.g_lr, config), _adam(discriminator, optim.d_lr, config), lecam,
        source, RandomStreams(config.seed, device, local_slice),
        num_classes, nonfinite=torch.zeros((), device=device), nonfinite_steps=torch.zeros((), device=device),
    )  # fmt: skip
    if config.reconstruction.apply:
        run.reconstruction = _build_reconstruction(run)
    if config.train.compile:
        run.g_call, run.d_call = torch.compile(generator), torch.compile(discriminator.output)
    return run


def _adam(network: nn.Module, lr: float, config: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr, **_adam_settings(config))


def _reconstruction_optimizer(network: nn.Module, lr: float, config: Config) -> torch.optim.Optimizer:
    """For generator and encoder: Muon if they train jointly and `reconstruction.muon_lr` is set."""
    muon_lr = config.reconstruction.muon_lr if config.reconstruction.apply else None
    if muon_lr is None:
        return _adam(network, lr, config)
    return MuonAdam(network, lr, muon_lr, **_adam_settings(config))


def _adam_settings(config: Config) -> dict[str, Any]:
    optim = config.optim
    return {"betas": (optim.beta1, optim.beta2), "eps": optim.eps, "fused": config.train.applied.fused_adam}


def make_ema(network: N, config: Config) -> N | None:
    """A copy for the moving average; None with model.apply_g_ema=false."""
    return copy.deepcopy(network).requires_grad_(False) if config.model.apply_g_ema else None


def _build_reconstruction(run: Training) -> Reconstruction:
    config, device = run.config, run.hardware.device
    maps = load_frozen_maps(config.reconstruction.features, device)
    encoder, heads = build_encoder_and_heads(config, run.num_classes, maps.channels, device)
    if run.world.size > 1:
        synchronise_batch_norm(encoder)
    e_optimizer = _reconstruction_optimizer(encoder, config.reconstruction.e_lr, config)
    h_optimizer = _adam(heads, config.optim.d_lr, config)
    share, correlation = torch.tensor(SHARE_START, device=device), torch.eye(config.model.z_dim, device=device)
    ema = make_ema(encoder, config)
    return Reconstruction(encoder, ema, heads, maps, e_optimizer, h_optimizer, share, correlation)


# ---- to and from a checkpoint -----------------------------------------------------------------------------------


def networks_of(run: Training) -> dict[str, nn.Module]:
    named = {"generator": run.generator, "generator_ema": run.generator_ema, "discriminator": run.discriminator}
    if (rec := run.reconstruction) is not None:
        named |= {"encoder": rec.encoder, "encoder_ema": rec.encoder_ema, "feature_heads": rec.heads}
    return {name: network for name, network in named.items() if network is not None}


def optimizers_of(run: Training) -> dict[str, torch.optim.Optimizer]:
    named = {"g_optimizer": run.g_optimizer, "d_optimizer": run.d_optimizer}
    if (rec := run.reconstruction) is not None:
        named |= {"e_optimizer": rec.e_optimizer, "h_optimizer": rec.h_optimizer}
    return named


def save_training(run: Training, checkpoints: Path, facts: dict[str, Any]) -> Path:
    """Writes checkpoint `step-<n>` and purges old ones. Returns the folder. Called by all processes; rank 0 writes."""
    folder = checkpoint_folder(checkpoints, run.step)
    state = {
        "step": run.step,
        **{name: optimizer.state_dict() for name, optimizer in optimizers_of(run).items()},
        "lecam": lecam_state(run),
        "precision": run.hardware.precision,
    }
    if (rec := run.reconstruction) is not None:
        state["reconstruction"] = {"share": rec.share, "correlation": rec.correlation}
        facts = facts | {"feature_maps": {"name": rec.maps.name, "sha256": rec.maps.sha256}}
    meta = {"step": run.step, "num_classes": run.num_classes, "config": config_to_dict(run.config), **facts}
    weights = {name: network.state_dict() for name, network in networks_of(run).items()}

    def write() -> None:
        save_checkpoint(folder, weights, state, meta)
        purge_checkpoints(checkpoints, run.config.train.keep_last)

    run.world.on_rank0(write)
    return folder


def lecam_state(run: Training) -> dict[str, Tensor | None] | None:
    """LeCam's anchors; anchors by position in the batch (`gsrgan`) are gathered from all processes."""
    if run.lecam is None:
        return None
    anchors = run.lecam.state_dict()
    return {name: run.world.gather(anchor) if anchor is not None and anchor.dim() else anchor
            for name, anchor in anchors.items()}  # fmt: skip


def load_networks(run: Training, folder: Path, class_names: list[str] | None = None) -> None:
    """Loads a checkpoint's weights; a moving average that it lacks starts from G.

    Args:
        class_names: of the run's training set, if the checkpoint belongs to a run with other classes.
    """
    names = to_class_names(read_meta(folder).get("class_names", []))
    new_names = names if class_names is None or not run.num_classes else class_names
    if changes := class_changes(names, new_names):
        run.world.on_rank0(lambda: log(f"classes compared with {folder}: {changes}"))
    for name, network in networks_of(run).items():
        stored = name
        if not (folder / f"{name}.safetensors").exists():
            stored = name.removesuffix("_ema")
        if not (folder / f"{stored}.safetensors").exists():
            if name == "discriminator":
                raise UserError(
                    f"{folder}: has a generator only, and training needs a discriminator too; start from both"
                )
            raise UserError(
                f"{folder}: has no {stored}, which reconstruction.apply needs; start from a run trained with it, "
                "or try --set reconstruction.apply=false"
            )
        try:
            network.load_state_dict(fit_classes(load_weights(folder, stored), names, new_names, str(folder)))
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            short = f"{reason[:MAX_REASON_CHARS]} ..." if len(reason) > MAX_REASON_CHARS else reason
            raise UserError(f"{folder}: {name} has another shape than this config's model: {short}") from error


def load_training(run: Training, folder: Path) -> None:
    """Restores the exact state of a checkpoint."""
    load_networks(run, folder)
    state = load_state(folder)
    run.step = state["step"]
    run.hardware = resumed_format(run.hardware, run.config.train, state.get("precision"))
    if missing := [name for name in optimizers_of(run) if name not in state]:
        raise UserError(
            f"{folder}: has weights without the optimisers' state ({', '.join(missing)}), so its training cannot be "
            "resumed; try another --set name= (the ready-made model: PRETRAINED=1, which starts from its weights)"
        )
    for name, optimizer in optimizers_of(run).items():
        # Moments of the checkpoint; learning rates and the rest from the config, which may have changed.
        pairs = zip(optimizer.param_groups, state[name]["param_groups"], strict=True)
        groups = [{**now, "params": stored["params"]} for now, stored in pairs]
        optimizer.load_state_dict({**state[name], "param_groups": groups})
        _match_memory_layout(optimizer)
    if (rec := run.reconstruction) is not None:
        kept = {name: value.to(run.hardware.device) for name, value in state["reconstruction"].items()}
        rec.share, rec.correlation = kept["share"], kept["correlation"]
    if run.lecam is not None and state["lecam"] is not None:
        local_slice, device = run.streams.local_slice, run.hardware.device
        anchors = {name: a.to(device) if a is not None else None for name, a in state["lecam"].items()}
        run.lecam.load_state_dict(
            {name: a[local_slice] if a is not None and a.dim() else a for name, a in anchors.items()}
        )


def _match_memory_layout(optimizer: torch.optim.Optimizer) -> None:
    """Puts moments into their parameter's memory layout: a fused Adam pairs elements by address, ignoring strides."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, moment in state.items():
                if moment.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter).copy_(moment)


def origin_facts(rundir: RunDir, packed: PackedSet, newest: Path | None, source: Path | None) -> dict[str, Any]:
    """The facts stored in each checkpoint of a run: run id, training set, and what it was fine-tuned from.

    Args:
        newest: the checkpoint from which the run resumes; None = a new run.
        source: the fine-tuning source, of a new run or if named explicitly.
    """
    facts: dict[str, Any] = {"run_id": rundir.id, "data_sha256": packed.sha256, "class_names": packed.class_names}
    if newest is None:
        if source is None:
            return facts
        return facts | {
            "finetuned_from": str(source),
            "finetuned_from_sha256": read_meta(source)["sha256"],
            "finetuned_from_id": RunDir(source.parents[1]).id,
        }
    meta = read_meta(newest)
    if meta.get("run_id") not in (None, rundir.id):
        raise UserError(
            f"{newest}: found a checkpoint of another run, allowed those of {rundir.path}; move it away, and "
            f"{rundir.facts_path} too if the whole folder is that other run's"
        )
    if meta["data_sha256"] not in (None, packed.sha256):  # None: imported weights
        raise UserError(
            f"{packed.path}: is not the training set of {rundir.path} (its content hash differs); "
            "put the old one back, or train under another --set name="
        )
    if source is not None and meta.get("finetuned_from") != str(source):
        raise UserError(
            f"{rundir.path}: was fine-tuned from {meta.get('finetuned_from')}, but {source} is asked for; "
            "move the folder away first"
        )
    return facts | {key: meta[key] for key in meta if key.startswith("finetuned_from")}
