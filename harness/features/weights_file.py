"""Small weights files: safetensors with metadata and a sha256 over everything."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from harness.errors import UserError, reason_of
from harness.files import read_file

SCHEMA = 1


def tensors_to_bytes(key: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> bytes:
    """safetensors in half precision, with `meta` and a sha256 over everything in its metadata."""
    halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    kept = {name: value.detach().contiguous() for name, value in halves.items()}
    text = json.dumps({"schema_version": SCHEMA, **meta}, sort_keys=True)
    # One entry: safetensors writes several in random order, and equal files must have equal bytes.
    return safetensors.torch.save(kept, {key: f"{content_sha256(text, kept)} {text}"})


def read_tensors(path: Path, key: str, what: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """(tensors, meta, sha256 of the file) of a file by `tensors_to_bytes`. UserError when it is missing or damaged.

    `what`, `remedy`: for its message, what the file contains and how to restore it."""
    try:
        content = read_file(path)
        with safetensors.safe_open(path, "pt") as file:
            stamp, _, text = (file.metadata() or {}).get(key, "").partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path}: {what}: the weights are missing; {remedy}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({reason_of(error)}); {remedy}") from error
    if stamp != content_sha256(text, tensors):
        raise UserError(f"{path}: damaged (sha256 differs from the one written into it); {remedy}")
    meta = json.loads(text)
    if meta["schema_version"] != SCHEMA:
        raise UserError(f"{path}: found schema version {meta['schema_version']}, allowed {SCHEMA}; {remedy}")
    return tensors, meta, hashlib.sha256(content).hexdigest()


def content_sha256(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
