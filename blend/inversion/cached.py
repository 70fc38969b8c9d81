"""Parents as latents, kept on disk, so that equal pictures are never inverted twice.

In: parents, generator, encoder. Out: `runs/<base>/inversions/<kind>-<hash>.{safetensors,png}`.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from blend.encoder.model import Encoder, encode
from blend.generator.input_pictures import Parents
from blend.generator.kinds import Kind
from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator
from blend.inversion.distances import make_features
from blend.inversion.optimise import Watch, invert
from harness.checkpoints.load import LoadedCheckpoint
from harness.checkpoints.sampling import label_to_y
from harness.cli import say
from harness.config.class_choice import Label
from harness.config.experiment import Config
from harness.errors import UserError
from harness.images.decode import picture_grid, save_png
from harness.images.tensors import pictures_to_tensor
from harness.runtime.device import prepare_hardware
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import spread_rows

STYLES: dict[Kind, int] = {"ordinary": 0, "concept": 1}
VERSION = 1  # of how z is found: files of another are not taken for equal
TENSORS = ("targets", "encoder", "refined", "z_first", "z", "first_error", "error")
PART_TARGETS = 64  # kept before the next are begun
SHEET_COLUMNS, SHEET_TARGETS = 16, 64


@dataclass(frozen=True)
class Inversions:
    """N parents and what was found for them, on the CPU.

    Attributes:
        names, sha256s: of the parents.
        targets, encoder, refined: uint8 (N, H, W, 3): parent, encoder's guess redrawn, refined latent redrawn.
        z_first, z: float32 (N, z_dim): the encoder's guess, and refined.
        first_error, error: float32 (N,) picture error of these.
        y: int64 (N,) classes, or float32 (N, classes) shares of them, where the generator is conditional.
        path: the file that all this is kept in.
    """

    kind: Kind
    names: list[str]
    sha256s: list[str]
    targets: np.ndarray
    encoder: np.ndarray
    refined: np.ndarray
    z_first: Tensor
    z: Tensor
    first_error: Tensor
    error: Tensor
    y: Tensor | None
    path: Path

    def __len__(self) -> int:
        return len(self.names)

    def latents(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        return self.z[rows], None if self.y is None else self.y[rows]


def invert_parents(
    config: Config,
    generator: StyledGenerator,
    encoder: Encoder,
    parents: Parents,
    kind: Kind,
    start: "Inversions | None" = None,
    watch: Watch | None = None,
) -> Inversions:
    """Latents of the parents: found on disk, or the encoder's guess refined in the style of their kind, and kept.

    With `start`, the same parents' latents are refined in the other style, beginning where they are: then a straight
    line between the two is short.

    Stopped half-way, the same call goes on after the last whole part. `watch` sees the search, part after part.
    """
    size = parents.pictures.shape[1:3]
    if size != (generator.height, generator.width):
        raise UserError(
            f"parents: found {size[0]}x{size[1]} pictures, allowed {generator.height}x{generator.width} as "
            f"{generator.base.name} draws; try another CONFIG"
        )
    place = _place(config, generator, encoder, parents, kind, start)
    tensors = _read(place.path)
    if tensors is None:
        tensors = _invert_in_parts(config, generator, encoder, parents, place, start, watch)
    found = _inversions(parents, kind, place.path, tensors)
    if not place.path.with_suffix(".png").exists():
        save_png(place.path.with_suffix(".png"), draw_sheet(found.targets, found.encoder, found.refined))
    return found


def kept_inversions(
    config: Config,
    generator: StyledGenerator,
    encoder: Encoder,
    parents: Parents,
    kind: Kind,
    start: "Inversions | None" = None,
) -> Inversions | None:
    """What `invert_parents` left for these parents; None where it has yet to search."""
    path = _place(config, generator, encoder, parents, kind, start).path
    tensors = _read(path)
    return None if tensors is None else _inversions(parents, kind, path, tensors)


@dataclass(frozen=True)
class _Place:
    """Where an inversion is kept, the style that it is made in, and all that decides it."""

    path: Path
    style: int
    stamp: dict[str, Any]


def _place(
    config: Config,
    generator: StyledGenerator,
    encoder: Encoder,
    parents: Parents,
    kind: Kind,
    start: Inversions | None,
) -> _Place:
    style = STYLES[kind] if start is None else 1 - STYLES[kind]
    stamp = _stamp(config, generator, encoder, parents, kind, style)
    if start is not None:
        stamp |= {"start": start.path.stem}
    label = kind if start is None else f"style{style}-{kind}"
    return _Place(generator.folder / "inversions" / f"{label}-{_hash(stamp)}.safetensors", style, stamp)


def _inversions(parents: Parents, kind: Kind, path: Path, tensors: dict[str, Tensor]) -> Inversions:
    targets, redrawn, refined = (tensors[key].numpy() for key in ("targets", "encoder", "refined"))
    found = [tensors[key] for key in ("z_first", "z", "first_error", "error")]
    return Inversions(
        kind, parents.names, parents.sha256s, targets, redrawn, refined, *found, y=tensors.get("y"), path=path
    )


def draw_sheet(targets: np.ndarray, encoder: np.ndarray, refined: np.ndarray) -> np.ndarray:
    """uint8 (H', W', 3): strips of targets, encoder's guesses redrawn, refined ones; SHEET_TARGETS of them at most."""
    rows = spread_rows(len(targets), SHEET_TARGETS)
    blank = np.full_like(targets[0], 255)
    cells: list[np.ndarray] = []
    columns = min(SHEET_COLUMNS, len(rows))
    for start in range(0, len(rows), columns):
        strip = rows[start : start + columns]
        for pictures in (targets, encoder, refined):
            cells += [*pictures[strip], *[blank] * (columns - len(strip))]
    return picture_grid(cells, columns)


def _invert_in_parts(
    config: Config,
    generator: StyledGenerator,
    encoder: Encoder,
    parents: Parents,
    place: _Place,
    start_from: Inversions | None,
    watch: Watch | None,
) -> dict[str, Tensor]:
    """Makes the place's file and returns its tensors. Each part is kept beside it until all are there."""
    path, stamp = place.path, place.stamp
    path.parent.mkdir(parents=True, exist_ok=True)
    parts, files, began = [], [], time.monotonic()
    for start in range(0, len(parents), PART_TARGETS):
        file = path.with_name(f"{path.stem}.{start:06d}.part")
        part = _read(file)
        if part is None:
            rows = slice(start, start + PART_TARGETS)
            guess = encode(encoder, parents.pictures[rows]) if start_from is None else start_from.latents(rows)
            part = _invert_part(config, generator, parents.pictures[rows], place.style, parents.label, guess, watch)
            atomic_write(file, safetensors.torch.save(part))
        parts.append(part)
        files.append(file)
        done, sec = min(start + PART_TARGETS, len(parents)), time.monotonic() - began
        errors = f"picture error {float(part['first_error'].mean()):.4f} → {float(part['error'].mean()):.4f}"
        say(f"inversion of {stamp['kind']} pictures: {done} of {len(parents)}, {errors}, {sec:.0f} s")
    tensors = {key: torch.cat([part[key] for part in parts]).contiguous() for key in parts[0]}
    atomic_write(path, safetensors.torch.save(tensors, {"inversion": json.dumps(stamp)}))
    for file in files:
        file.unlink(missing_ok=True)
    return tensors


def _invert_part(
    config: Config,
    generator: StyledGenerator,
    pictures: np.ndarray,
    style: int,
    label: Label | None,
    guess: tuple[Tensor, Tensor | None],
    watch: Watch | None,
) -> dict[str, Tensor]:
    hardware = prepare_hardware(config.train)
    z_first, y = guess
    y = y if label is None else label_to_y(label, len(pictures))
    pictures = np.ascontiguousarray(pictures)
    targets = pictures_to_tensor(torch.from_numpy(pictures).to(generator.device))
    labels = None if y is None else y.to(generator.device)
    features = make_features(config.inversion.features, _run_of(generator, style))
    network, first = generator.at(style), z_first.to(generator.device)
    found = invert(targets, network, first, config.inversion, features, labels, hardware.autocast, watch)
    tensors = {
        "targets": torch.from_numpy(pictures),
        "encoder": torch.from_numpy(generator.draw(found.z_first, style, y)),
        "refined": torch.from_numpy(generator.draw(found.z, style, y)),
        "z_first": found.z_first.cpu(),
        "z": found.z.cpu(),
        "first_error": found.first_error.cpu(),
        "error": found.error.cpu(),
    }
    return tensors if y is None else {**tensors, "y": y.cpu()}


def _run_of(generator: StyledGenerator, style: int) -> LoadedCheckpoint:
    run = generator.tuned if style else generator.base
    if run is None:
        raise UserError(
            f"concept pictures: found no fine-tuned run of {generator.base.name}, which draws them; try `make finetune`"
        )
    return run


# ---- on disk ----------------------------------------------------------------------------------------------------


def _stamp(
    config: Config, generator: StyledGenerator, encoder: Encoder, parents: Parents, kind: Kind, style: int
) -> dict[str, Any]:
    """All that decides the result, and the names."""
    _run_of(generator, style)
    settings = config.inversion.model_dump(mode="json", exclude={"count", "batch_size"})  # these change speed alone
    key = generator.key(style * STYLE_STEPS)
    pixels = hashlib.sha256(np.ascontiguousarray(parents.pictures).data).hexdigest()
    return {
        "version": VERSION, "kind": kind, "names": parents.names, "sha256s": parents.sha256s, "pixels_sha256": pixels,
        "label": parents.label,
        "settings": settings, "generator": key, "encoder_sha256": encoder.sha256,
    }  # fmt: skip


def _hash(stamp: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Tensor] | None:
    """A kept file's tensors; None when it is not there or damaged."""
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError) as error:
        say(f"{path}: damaged ({error}); made again")
        return None
    return tensors if set(TENSORS) <= set(tensors) else None
