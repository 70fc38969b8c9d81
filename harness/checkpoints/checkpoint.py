"""Checkpoint folders: weights as safetensors, the rest of the state, and meta.json with the sha256 of each file.

A checkpoint is written atomically; a damaged one is reported and skipped for the one before it.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor, nn

from harness.errors import NewerVersion, UserError, refuse_newer
from harness.files import open_file
from harness.storage.atomic import atomic_folder, atomic_write, remove_folder
from harness.storage.cache import key_sha256
from harness.storage.json_files import read_json, read_json_or_none

SCHEMA_VERSION = 1
NETWORKS = ("generator", "generator_ema", "discriminator")
BEST_FILE = "best.json"
Step = Annotated[int, Field(ge=0, le=1_000_000_000)]


class LastEvaluation(BaseModel):
    step: Annotated[int, Field(ge=0)]  # larger than every step for "none yet"


class BestRecord(BaseModel):
    """best.json; `history`: [step, figure or None] of every evaluation during training; lower is better."""

    history: list[tuple[Step, float | None]]
    last: LastEvaluation


BEST = TypeAdapter(BestRecord)
FOLDER_NAME = re.compile(r"step-\d{8,}")


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:08d}"


def save_checkpoint(
    folder: Path, weights: dict[str, dict[str, Tensor]], state: dict[str, Any], meta: dict[str, Any]
) -> None:
    """Writes one checkpoint.

    Args:
        folder: must not exist.
        weights: network name → state dict, for <name>.safetensors.
        state: what only a resume needs (optimisers, LeCam, step), for state.pt.
        meta: config, data hash, versions and so on, for meta.json.
    """
    # One key: safetensors writes several in random order, and equal weights must give equal files.
    text = {"carforge": json.dumps({"config": meta["config"], "step": meta["step"]})}
    files = {
        f"{name}.safetensors": safetensors.torch.save(to_plain(tensors), text) for name, tensors in weights.items()
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files["state.pt"] = buffer.getvalue()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    meta = json.loads(json.dumps({**meta, "schema_version": SCHEMA_VERSION, "sha256": hashes}))
    files["meta.json"] = json.dumps({**meta, "meta_sha256": key_sha256(meta)}, indent=1).encode()
    with atomic_folder(folder) as temporary:
        for name, content in files.items():
            atomic_write(temporary / name, content)


def to_plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without gradients, contiguous, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a checkpoint, after checking all its files. ValueError when it is incomplete or damaged,
    NewerVersion when a newer version wrote it."""
    try:
        meta = read_json_or_none(folder / "meta.json")
        if meta is None:
            raise ValueError("meta.json is missing or damaged")
        if meta.pop("meta_sha256") != key_sha256(meta):  # before the version, in every version: damage is not newer
            raise ValueError("meta.json is damaged (sha256 differs)")
        version = meta["schema_version"]
        refuse_newer(folder, version, SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema version {version}, this program reads {SCHEMA_VERSION}")
        for name, expected in meta["sha256"].items():
            with open_file(folder / name) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise ValueError(f"{name} is damaged (sha256 differs)")
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"incomplete ({error!r})") from error
    return meta


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Checkpoint folders, newest first; other files are ignored. OSError when the folder exists but cannot be read."""
    try:
        with os.scandir(checkpoints) as entries:
            names = [entry.name for entry in entries if FOLDER_NAME.fullmatch(entry.name) and entry.is_dir()]
    except FileNotFoundError:
        return []
    return [checkpoints / name for name in sorted(names, key=lambda name: int(name[5:]), reverse=True)]


def newest_checkpoint(checkpoints: Path, log: Callable[[str], None]) -> Path | None:
    """The newest valid checkpoint; None when there is none.

    Raises UserError when all of them are damaged: silently starting over would hide a loss.
    """
    folders = list_checkpoints(checkpoints)
    for folder in folders:
        try:
            read_meta(folder)
        except NewerVersion:
            raise
        except ValueError as error:
            log(f"checkpoint {folder.name} cannot be used: {error}; trying the one before it")
            continue
        return folder
    if folders:
        raise UserError(
            f"{checkpoints}: all {len(folders)} checkpoints are damaged; move {checkpoints.parent} away to start over"
        )
    return None


def newest_for_resume(checkpoints: Path, log: Callable[[str], None]) -> Path | None:
    """`newest_checkpoint` for a resume, with the run's lock held: newer (damaged) ones are renamed to `damaged-...`.

    They would otherwise block the names of the next saves, and count as newest when old ones are purged.
    """
    newest = newest_checkpoint(checkpoints, log)
    for folder in list_checkpoints(checkpoints):
        if folder == newest:
            break
        rename_damaged(folder)
    return newest


def rename_damaged(folder: Path) -> None:
    """Renames a damaged checkpoint to `damaged-...`."""
    aside = folder.with_name(f"damaged-{folder.name}")
    if aside.exists():
        remove_folder(aside)
    os.rename(folder, aside)


def load_weights(folder: Path, network: str) -> dict[str, Tensor]:
    """A network's state dict from a checkpoint, on the CPU."""
    return safetensors.torch.load_file(folder / f"{network}.safetensors")


def load_state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)


def read_best(checkpoints: Path) -> dict[str, Any]:
    """best.json (`BestRecord`, and more keys of `harness/native/evaluate_while_training.py`); {} without one."""
    remedy = "remove it; then the best checkpoint is the best from now on"
    return read_json(checkpoints / BEST_FILE, remedy, BEST) or {}


def best_checkpoint(checkpoints: Path) -> Path | None:
    """The existing checkpoint with the best evaluation; None without one."""
    history = read_best(checkpoints).get("history", [])
    ranked = sorted((figure, step) for step, figure in history if figure is not None)
    folders = (checkpoint_folder(checkpoints, step) for _, step in ranked)
    return next((folder for folder in folders if folder.is_dir()), None)


def state_bytes(networks: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Approximate size of a checkpoint on disk: weights, and two moments for each trained parameter."""
    weights = [value for network in networks for value in network.state_dict().values()]
    learned = [value for one in optimizers for group in one.param_groups for value in group["params"]]
    return sum(value.numel() * value.element_size() for value in (*weights, *learned, *learned))


def disk_space_warning(checkpoints: Path, checkpoint_bytes: int, count: int) -> str | None:
    """A warning when `count` checkpoints of this size (and one more, before the oldest is purged) do not fit on the
    disk; None when they do."""
    existing = sum(path.stat().st_size for folder in list_checkpoints(checkpoints) for path in folder.iterdir())
    needed, free = (count + 1) * checkpoint_bytes - existing, shutil.disk_usage(checkpoints).free
    if needed <= free:
        return None
    return (
        f"{checkpoints}: {free / 2**30:.2f} GiB free on the disk, and the checkpoints take about "
        f"{needed / 2**30:.2f} GiB more: free some space, or the run will stop at a save (train.keep_last: how many "
        "are kept)"
    )


def purge_checkpoints(checkpoints: Path, keep: int) -> None:
    """Removes all checkpoints but the newest `keep` and the best one."""
    best = best_checkpoint(checkpoints)
    for folder in list_checkpoints(checkpoints)[keep:]:
        if folder != best:
            remove_folder(folder)
