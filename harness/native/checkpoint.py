"""A checkpoint is a folder: weights as safetensors, the rest of the state, and a meta.json with the sha256 of each.

It appears whole or not at all; a damaged one is passed over, with a word, for the one before it.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from harness.errors import UserError
from harness.rundir import atomic_folder, atomic_write

SCHEMA_VERSION = 1
NETWORKS = ("generator", "generator_ema", "discriminator")


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:08d}"


def save_checkpoint(
    folder: Path, weights: dict[str, dict[str, Tensor]], state: dict[str, Any], meta: dict[str, Any]
) -> None:
    """Writes one checkpoint.

    Args:
        folder: final name; must not exist.
        weights: network name → state dict; each becomes <name>.safetensors.
        state: what only resuming needs (optimisers, LeCam, step); becomes state.pt.
        meta: facts for people and for checks (config, data hash, versions).
    """
    text = {"config": json.dumps(meta["config"]), "step": str(meta["step"])}
    files = {f"{name}.safetensors": _weights_to_bytes(tensors, text) for name, tensors in weights.items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files["state.pt"] = buffer.getvalue()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files["meta.json"] = json.dumps({**meta, "schema_version": SCHEMA_VERSION, "sha256": hashes}, indent=1).encode()
    with atomic_folder(folder) as temporary:
        for name, content in files.items():
            atomic_write(temporary / name, content)


def _weights_to_bytes(tensors: dict[str, Tensor], text: dict[str, str]) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, text)


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a checkpoint whose files are all there and unharmed; ValueError says what is wrong with it."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        version = meta["schema_version"]
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema version {version}, this program reads {SCHEMA_VERSION}")
        for name, expected in meta["sha256"].items():
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise ValueError(f"{name} is damaged (sha256 differs)")
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"incomplete ({error!r})") from error
    return meta


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(checkpoints.glob("step-*"), reverse=True)


def newest_checkpoint(checkpoints: Path, say: Callable[[str], None]) -> Path | None:
    """The newest unharmed checkpoint; None when there is none at all.

    Raises UserError when all that exist are damaged: starting afresh in silence would hide a loss.
    """
    folders = list_checkpoints(checkpoints)
    for folder in folders:
        try:
            read_meta(folder)
        except ValueError as error:
            say(f"checkpoint {folder.name} cannot be used: {error}; trying the one before it")
            continue
        return folder
    if folders:
        raise UserError(
            f"{checkpoints}: none of {len(folders)} checkpoints is unharmed; remove the run's folder to start again"
        )
    return None


def load_weights(folder: Path, network: str) -> dict[str, Tensor]:
    """State dict of one network of a checkpoint, on the CPU."""
    return safetensors.torch.load_file(folder / f"{network}.safetensors")


def load_state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)


def purge_checkpoints(checkpoints: Path, keep: int) -> None:
    """Removes all but the newest `keep`; renamed first, so that a kill leaves no half folder under a true name."""
    for folder in list_checkpoints(checkpoints)[keep:]:
        doomed = folder.with_name(f".tmp-{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)
