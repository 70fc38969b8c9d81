"""StudioGAN's checkpoint files ↔ our checkpoint folder: weights and optimisers, bit for bit.

In: model={G,D,G_ema}-*.pth of 0.2.0 or 0.4.0. Out: checkpoints/step-XXXXXXXX, from which the native engine resumes; and
the reverse.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.checkpoints.checkpoint import (
    checkpoint_folder,
    load_state,
    load_weights,
    read_meta,
    save_checkpoint,
    to_plain,
)
from harness.checkpoints.sampling import standing_copy
from harness.config.class_choice import to_class_names
from harness.config.experiment import Config, check_kept_config, config_to_dict
from harness.errors import UserError
from harness.networks.build import build_networks, config_to_spec, spec_to_networks
from harness.studiogan.weights.files import (
    NETWORKS,
    ForeignCheckpoint,
    When,
    file_name,
    lecam_to_040,
    read_foreign_checkpoint,
    write_pth,
)
from harness.studiogan.weights.names import (
    BATCH_NORM_STATISTICS,
    fitted_state,
    leaf,
    parameter_names,
    to_foreign_optimizer,
    to_foreign_state,
    to_our_optimizer,
    to_our_state,
)

SIZES = (32, 64, 128, 256)


def import_checkpoint(
    source: Path, config: Config, checkpoints: Path, facts: dict[str, Any], *, when: When = "current"
) -> Path:
    """StudioGAN's files of its newest step → checkpoints/step-XXXXXXXX, unless that exists. Returns the folder.

    Args:
        source: folder with model=G-..., D and (with model.apply_g_ema) G_ema; or a single generator file.
        facts: more entries for meta.json: data_sha256, class_names, finetuned_from ...
        when: which of StudioGAN's two checkpoints, current or best.

    Raises:
        UserError: a file is missing, damaged, of another shape or not data.
    """
    foreign = read_foreign_checkpoint(source, when)
    if "D" not in foreign.contents and not source.is_file():
        raise UserError(
            f"{source}: lacks {file_name('D', when, foreign.step)} beside the generator's file, allowed files of one "
            "save, try an older copy of the folder"
        )
    folder = checkpoint_folder(checkpoints, foreign.step)
    if folder.exists():
        return folder
    weights, state, meta = foreign_to_parts(foreign, config, facts)
    checkpoints.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, weights, state, meta)
    return folder


def foreign_to_parts(
    foreign: ForeignCheckpoint, config: Config, facts: dict[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], dict[str, Any]]:
    """(weights, state, meta) for `save_checkpoint`. UserError when they do not fit the config."""
    num_classes = count_classes(foreign) if config.model.conditional else 0
    named = facts.get("class_names")
    if num_classes and named and len(named) != num_classes:
        raise UserError(
            f"{foreign.files['G']}: has {num_classes} classes, allowed the {len(named)} of the set, try the set it "
            "was trained with"
        )
    if config.model.apply_g_ema and "G_ema" not in foreign.contents:
        raise UserError(
            f"{foreign.files['G']}: found no G_ema file of step {foreign.step} beside it, try model.apply_g_ema=false"
        )
    networks = networks_on_meta(config, num_classes)
    weights, untracked = {}, False
    for letter, name in NETWORKS.items():
        if letter in foreign.contents and (letter != "G_ema" or config.model.apply_g_ema):
            weights[name], lacks = fitted_state(foreign.state_dict(letter), networks[name], foreign.files[letter])
            untracked |= lacks
    state = {
        "step": foreign.step,
        "g_optimizer": _our_optimizer(foreign, "G", networks["generator"]),
        "d_optimizer": _our_optimizer(foreign, "D", networks["discriminator"]),
        "lecam": foreign.lecam if config.loss.apply_lecam else None,
    }
    meta = {"step": foreign.step, "num_classes": num_classes, "config": config_to_dict(config), **facts}
    meta["studiogan"] = {key: _plain(foreign.fact(key)) for key in ("run_name", "seed", "best_step", "best_fid")}
    if untracked:  # sampling recomputes them (`standing_copy`), StudioGAN does not
        meta["batch_norm_statistics"] = "none"
    return weights, state, meta


def _our_optimizer(foreign: ForeignCheckpoint, letter: str, network: nn.Module) -> dict[str, Any]:
    content = foreign.contents.get(letter)
    optimizer = content.get("optimizer") if content else None
    names = parameter_names(content["state_dict"]) if content else []
    return to_our_optimizer(optimizer, names, network, foreign.files.get(letter, Path(letter)))


def count_classes(foreign: ForeignCheckpoint) -> int:
    """Classes of the weights; 0 = unconditional."""
    states = {letter: to_our_state(foreign.state_dict(letter)) for letter in ("G", "D") if letter in foreign.contents}
    tables = [v for k, v in states["G"].items() if k.endswith(("embed0.weight", "embed0.weight_orig"))]
    tables += [v for k, v in states.get("D", {}).items() if k in ("embedding.weight", "embedding.weight_orig")]
    return len(tables[0]) if tables else 0


def networks_on_meta(config: Config, num_classes: int) -> dict[str, nn.Module]:
    """Name → network on the meta device, in the memory layout of training. UserError for a conditional one without
    classes."""
    if config.model.conditional and num_classes < 1:
        raise UserError(
            "model.g_cond_mtd, model.d_cond_mtd: found cBN or PD and weights without classes, allowed null, "
            "try model.g_cond_mtd=null model.d_cond_mtd=null"
        )
    spec = config_to_spec(config, num_classes)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    with torch.device("meta"):
        generator, discriminator = (
            network.to(memory_format=layout)  # type: ignore[call-overload]
            for network in spec_to_networks(spec)
        )
    return {"generator": generator, "generator_ema": generator, "discriminator": discriminator}


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's; None for nan and infinity, which JSON does not have."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


# ---- the other way ------------------------------------------------------------------------------------------------


def export_checkpoint(
    folder: Path, out: Path, *, version: str, seed: int, run_name: str, when: When = "current"
) -> Path:
    """Our checkpoint folder → StudioGAN's files in folder `out`, from which it resumes.

    Args:
        version: "0.2.0" or "0.4.0".
        seed: 0.2.0 resumes only with this --seed.
        run_name: StudioGAN's name of the log and the folder.
    """
    try:
        meta = read_meta(folder)
    except ValueError as error:
        raise UserError(f"{folder}: cannot be exported: {error}") from error
    config, num_classes = check_kept_config(meta["config"], str(folder)), meta["num_classes"]
    _check_exportable(config, folder)
    state, step = load_state(folder), meta["step"]
    _check_empty(out, when, step)
    facts = {"seed": seed, "run_name": run_name, "step": step}
    kept = meta.get("studiogan", {})
    facts |= {"best_step": kept.get("best_step") or 0, "best_fid": kept.get("best_fid")}
    networks = networks_on_meta(config, num_classes)
    for letter, name in NETWORKS.items():
        if not (folder / f"{name}.safetensors").exists():
            continue
        weights = load_weights(folder, name)
        if letter != "D" and meta.get("batch_norm_statistics") == "none":
            weights = _with_standing_statistics(weights, config, num_classes)
        weights = {key: weights[key] for key in networks[name].state_dict()}  # safetensors does not keep the order
        content: dict[str, Any] = {"state_dict": to_plain(to_foreign_state(weights, version))}
        if letter != "G_ema":
            optimizer = state["g_optimizer" if letter == "G" else "d_optimizer"]
            content["optimizer"] = to_foreign_optimizer(optimizer, networks[name], version)
            content |= _facts_of(letter, version, facts, config, state["lecam"])
        if num_classes and meta.get("class_names"):
            content["class_names"] = to_class_names(meta["class_names"])  # ignored by StudioGAN, read by our import
        write_pth(out / file_name(letter, when, step), content)
    if state["lecam"] is not None and version == "0.2.0":
        write_pth(out / f"lecam-step={step}.pt", dict(state["lecam"]))
    return out


def _facts_of(
    letter: str, version: str, facts: dict[str, Any], config: Config, lecam: dict[str, Tensor | None] | None
) -> dict[str, Any]:
    """The entries besides the weights in G's or D's file (worker.py, save)."""
    general = {key: facts[key] for key in ("seed", "run_name", "step", "best_step")}
    if version == "0.2.0":
        general["ada_p"] = "No"
        own = {"best_fid": facts["best_fid"], "best_fid_checkpoint_path": None}
        return general | (own if letter == "D" else {})
    if letter == "G":
        return {}
    loss = config.loss
    return general | {
        "epoch": 0, "topk": config.optim.batch_size, "aa_p": "N/A",
        "best_fid": facts["best_fid"], "best_fid_ckpt": None,
        "lecam_emas": lecam_to_040(lecam, loss.lecam_ema_decay, loss.lecam_ema_start_iter),
    }  # fmt: skip


def _check_exportable(config: Config, folder: Path) -> None:
    height, width = config.data.img_size
    if height != width or height not in SIZES:
        raise UserError(
            f"{folder}: draws {height}x{width} pictures, allowed {', '.join(f'{s}x{s}' for s in SIZES)} with "
            "StudioGAN, try a run of such a size"
        )


def _check_empty(out: Path, when: When, step: int) -> None:
    """UserError for files of another save: StudioGAN loads any file of a matching name."""
    out.mkdir(parents=True, exist_ok=True)
    expected = {file_name(letter, when, step) for letter in NETWORKS}
    others = sorted(p.name for p in out.glob(f"model=*-{when}-weights-step=*.pth") if p.name not in expected)
    if others:
        raise UserError(f"{out}: found {others[0]} of another save in it, allowed an empty folder, try another --out")


def _with_standing_statistics(weights: dict[str, Tensor], config: Config, num_classes: int) -> dict[str, Tensor]:
    network, _ = build_networks(config, num_classes, torch.device("cpu"))
    network.load_state_dict(weights)
    standing = standing_copy(network).state_dict()
    return {name: standing[name] if leaf(name) in BATCH_NORM_STATISTICS else weights[name] for name in weights}
