"""Inversions with a cache on disk: the same pictures are never inverted twice.

In: parents, generator, encoder. Out: `runs/<base>/inversions/<kind>-<hash>.{safetensors,png}`.
"""

import hashlib
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blend.encoder.model import Encoder, Encoders, encode
from blend.generator.input_pictures import Parents
from blend.generator.kinds import Kind
from blend.generator.styled_generator import STYLE_STEPS, StyledGenerator
from blend.inversion.distances import make_features
from blend.inversion.optimise import StepCallback, invert
from harness.checkpoints.load import LoadedCheckpoint
from harness.checkpoints.sampling import label_to_y
from harness.config.experiment import Config
from harness.errors import UserError
from harness.images.decode import picture_grid, save_png
from harness.images.tensors import pictures_to_tensor
from harness.messages import log
from harness.runtime.device import prepare_hardware
from harness.storage.cache import Arrays, cached, key_sha256, read_cached
from harness.storage.hdf5 import spread_rows

STYLES: dict[Kind, int] = {"ordinary": 0, "concept": 1}
VERSION = 1  # of the search for z; part of the cache key
ENTRY = "inversion"  # name of the cache key in a file's metadata
PART_TARGETS = 64  # saved before the next are started
SHEET_COLUMNS, SHEET_TARGETS = 16, 64


@dataclass(frozen=True)
class Inversions:
    """N parents and their latents, on the CPU.

    Attributes:
        names, sha256s: of the parents.
        targets, encoder, refined: uint8 (N, H, W, 3): the parent; drawn from the encoder's guess; from the refined z.
        z_first, z: float32 (N, z_dim): the encoder's guess, and refined.
        first_error, error: float32 (N,) picture error of these.
        y: int64 (N,) classes, or float32 (N, classes) shares of them, where the generator is conditional.
        path: the file of all this.
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
    encoders: Encoders,
    parents: Parents,
    kind: Kind,
    start: "Inversions | None" = None,
    callback: StepCallback | None = None,
) -> Inversions:
    """Latents of the parents: from the cache, or the encoder's guess refined in the style of their kind.

    With `start`, the latents of the same parents are refined further in the other style, so that the two stay close.
    An interrupted call resumes after the last complete part.
    """
    size = parents.pictures.shape[1:3]
    if size != (generator.height, generator.width):
        raise UserError(
            f"parents: found {size[0]}x{size[1]} pictures, allowed {generator.height}x{generator.width} as "
            f"{generator.base.name} draws; try another CONFIG"
        )
    search = _Search(config, generator, encoders.of(kind), parents, kind, start)
    path = search.path
    found = search.to_inversions(cached(path, search.key, lambda: search.run(callback), ENTRY))
    for part in path.parent.glob(f"{path.stem}.*.part"):
        part.unlink(missing_ok=True)
    if not path.with_suffix(".png").exists():
        save_png(path.with_suffix(".png"), draw_sheet(found.targets, found.encoder, found.refined))
    return found


def cached_inversions(
    config: Config,
    generator: StyledGenerator,
    encoders: Encoders,
    parents: Parents,
    kind: Kind,
    start: "Inversions | None" = None,
) -> Inversions | None:
    """What `invert_parents` has saved for these parents; None if it would have to search."""
    search = _Search(config, generator, encoders.of(kind), parents, kind, start)
    arrays = read_cached(search.path, search.key, ENTRY)
    return None if arrays is None else search.to_inversions(arrays)


@dataclass(frozen=True)
class _Search:
    """The inversion of some parents: inputs, cache key and file."""

    config: Config
    generator: StyledGenerator
    encoder: Encoder
    parents: Parents
    kind: Kind
    start: Inversions | None

    def __post_init__(self) -> None:
        if self.style and self.generator.tuned is None:
            raise UserError(
                f"concept pictures: found no fine-tuned run of {self.generator.base.name}, which draws them; "
                "try `make finetune`"
            )

    @property
    def style(self) -> int:
        return STYLES[self.kind] if self.start is None else 1 - STYLES[self.kind]

    @property
    def checkpoint(self) -> LoadedCheckpoint:
        """Of the run that draws in this style."""
        return (self.generator.tuned if self.style else None) or self.generator.base

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that decides the result, and the names."""
        key = {
            "version": VERSION,
            "kind": self.kind,
            "names": self.parents.names,
            "sha256s": self.parents.sha256s,
            "pixels_sha256": hashlib.sha256(np.ascontiguousarray(self.parents.pictures).data).hexdigest(),
            "label": self.parents.label,
            # The excluded keys change only the speed.
            "settings": self.config.inversion.model_dump(mode="json", exclude={"count", "batch_size"}),
            "generator": self.generator.key(self.style * STYLE_STEPS),
            "encoder_sha256": self.encoder.sha256,
        }
        return key if self.start is None else {**key, "start": self.start.path.stem}

    @cached_property
    def path(self) -> Path:
        label = self.kind if self.start is None else f"style{self.style}-{self.kind}"
        return self.generator.folder / "inversions" / f"{label}-{key_sha256(self.key)[:16]}.safetensors"

    def to_inversions(self, arrays: Arrays) -> Inversions:
        pictures = ("targets", "encoder", "refined")
        found: dict[str, Any] = {"y": None}
        found |= {name: array if name in pictures else torch.from_numpy(array) for name, array in arrays.items()}
        return Inversions(self.kind, self.parents.names, self.parents.sha256s, path=self.path, **found)

    def run(self, callback: StepCallback | None) -> Arrays:
        """The content of the file. Parts are saved beside it until all are done."""
        parts, began = [], time.monotonic()
        for start in range(0, len(self.parents), PART_TARGETS):
            end = min(start + PART_TARGETS, len(self.parents))
            file = self.path.with_name(f"{self.path.stem}.{start:06d}.part")
            make = partial(self.run_part, slice(start, end), callback)
            part = cached(file, {**self.key, "rows": [start, end]}, make, ENTRY)
            parts.append(part)
            errors = f"picture error {float(part['first_error'].mean()):.4f} → {float(part['error'].mean()):.4f}"
            took = f"{time.monotonic() - began:.0f} s"
            again = "" if self.start is None else f" by {'the fine-tuned' if self.style else 'the base'} generator"
            log(f"inversion of {self.kind} pictures{again}: {end} of {len(self.parents)}, {errors}, {took}")
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def run_part(self, rows: slice, callback: StepCallback | None) -> Arrays:
        generator, settings = self.generator, self.config.inversion
        pictures = np.ascontiguousarray(self.parents.pictures[rows])
        z_first, y = encode(self.encoder, pictures) if self.start is None else self.start.latents(rows)
        hardware = prepare_hardware(self.config.train)
        y = y if self.parents.label is None else label_to_y(self.parents.label, len(pictures))
        targets = pictures_to_tensor(torch.from_numpy(pictures).to(generator.device))
        labels = None if y is None else y.to(generator.device)
        network, first = generator.at(self.style), z_first.to(generator.device)
        features = make_features(settings.features, self.checkpoint)
        found = invert(targets, network, first, settings, features, labels, hardware.autocast, callback)
        tensors = {key: getattr(found, key) for key in ("z_first", "z", "first_error", "error")}
        if y is not None:
            tensors["y"] = y
        return {
            "targets": pictures,
            "encoder": generator.draw(found.z_first, self.style, y),
            "refined": generator.draw(found.z, self.style, y),
            **{key: tensor.cpu().numpy() for key, tensor in tensors.items()},
        }


def draw_sheet(targets: np.ndarray, encoder: np.ndarray, refined: np.ndarray) -> np.ndarray:
    """uint8 (H', W', 3): rows of targets, of the encoder's guesses and of refined ones; SHEET_TARGETS at most."""
    rows = spread_rows(len(targets), SHEET_TARGETS)
    blank = np.full_like(targets[0], 255)
    cells: list[np.ndarray] = []
    columns = min(SHEET_COLUMNS, len(rows))
    for start in range(0, len(rows), columns):
        strip = rows[start : start + columns]
        for pictures in (targets, encoder, refined):
            cells += [*pictures[strip], *[blank] * (columns - len(strip))]
    return picture_grid(cells, columns)
