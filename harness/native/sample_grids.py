"""Grids of training pictures, of reconstructions, and of samples on noise that is fixed for the whole run."""

import copy
import io
import pickle
from contextlib import suppress
from typing import Protocol

import numpy as np
import torch

from harness.checkpoints.sampling import Sampler, latents_to_pictures, standing_copy
from harness.config.experiment import Config
from harness.errors import UserError
from harness.images.decode import picture_grid, save_png
from harness.images.tensors import grid_columns, pictures_to_tensor
from harness.networks.base import Generator
from harness.networks.encoder import Encoder
from harness.runtime.rng import RandomStreams
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir

RECONSTRUCTIONS = 16  # training pictures with their reconstructions


class Sampled(Protocol):
    """The part of a run that sampling needs."""

    config: Config
    step: int
    num_classes: int


def save_reals(rundir: RunDir, packed: PackedSet, count: int) -> None:
    """A grid of up to `count` training pictures, to compare with the samples."""
    count = min(count, packed.count)
    rows = np.linspace(0, packed.count - 1, count).astype(np.int64)
    save_png(rundir.samples / "reals.png", picture_grid(packed.read(rows), grid_columns(count)))


def save_samples(run: Sampled, generator: Generator, rundir: RunDir, encoder: Encoder | None = None) -> None:
    """A grid of samples on the run's fixed noise (noise.pt), comparable between steps.

    `encoder`: of joint training.
    """
    z, y = fixed_noise(run, rundir)
    pictures = Sampler(generator, encoder, run.config.reconstruction.sample_passes).draw(z, y)
    save_png(rundir.samples / f"step-{run.step:08d}.png", picture_grid(pictures, grid_columns(len(pictures))))


@torch.no_grad()
def save_reconstructions(
    run: Sampled, encoder: Encoder, generator: Generator, packed: PackedSet, rundir: RunDir
) -> None:
    """`redrawn-step-….png`: rows of training pictures, each above a row of their reconstructions."""
    count = min(RECONSTRUCTIONS, packed.count)
    pictures = packed.read(np.linspace(0, packed.count - 1, count).astype(np.int64))
    device = next(encoder.parameters()).device
    z, logits = copy.deepcopy(encoder).eval()(pictures_to_tensor(torch.from_numpy(pictures).to(device)))
    y = None if logits is None else logits.argmax(1)
    redrawn = latents_to_pictures(standing_copy(generator), z, y)
    columns = grid_columns(count)
    blank = [np.full_like(pictures[0], 255)] * (-count % columns)
    cells: list[np.ndarray] = []
    for start in range(0, count, columns):
        for kind in (pictures, redrawn):
            row_cells = [*kind[start : start + columns]]
            cells += row_cells + blank[: columns - len(row_cells)]
    save_png(rundir.samples / f"redrawn-step-{run.step:08d}.png", picture_grid(cells, columns))


def fixed_noise(run: Sampled, rundir: RunDir) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Latents float32 (sample_count, z_dim) and sorted labels int64 (sample_count,) or None, stored in noise.pt."""
    model, count = run.config.model, run.config.train.sample_count
    with suppress(FileNotFoundError):
        try:
            noise = torch.load(rundir.noise_path, weights_only=True)
            if len(noise["z"]) == count:
                return noise["z"], noise["y"]
        except (RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{rundir.noise_path}: is damaged; remove it, and it is created again") from error
    z, y = RandomStreams(run.config.seed, torch.device("cpu")).latents(
        "samples", 0, count, model.z_dim, run.num_classes
    )
    y = None if y is None else y.sort().values
    buffer = io.BytesIO()
    torch.save({"z": z, "y": y}, buffer)
    atomic_write(rundir.noise_path, buffer.getvalue())
    return z, y
