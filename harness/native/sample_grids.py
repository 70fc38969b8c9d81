"""The grids that a person looks at: training pictures, and samples on noise that stays the same for the whole run."""

import io
import pickle
from contextlib import suppress
from typing import Protocol

import numpy as np
import torch

from harness.checkpoints.sampling import latents_to_pictures, standing_copy
from harness.config.experiment import Config
from harness.errors import UserError
from harness.images.decode import picture_grid, save_png
from harness.images.tensors import grid_columns
from harness.networks.base import Generator
from harness.runtime.rng import Draws
from harness.storage.atomic import atomic_write
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir


class Sampled(Protocol):
    """What samples need to know of a run."""

    config: Config
    step: int
    num_classes: int


def save_reals(rundir: RunDir, packed: PackedSet, count: int) -> None:
    """A grid of up to `count` training pictures, to lay beside the samples."""
    count = min(count, packed.count)
    rows = np.linspace(0, packed.count - 1, count).astype(np.int64)
    save_png(rundir.samples / "reals.png", picture_grid(packed.read(rows), grid_columns(count)))


def save_samples(run: Sampled, generator: Generator, rundir: RunDir) -> None:
    """A grid of the generator's samples on the run's fixed noise (noise.pt), so that grids of all steps compare."""
    z, y = fixed_noise(run, rundir)
    standing = standing_copy(generator)
    pictures = latents_to_pictures(standing, z, y)
    save_png(rundir.samples / f"step-{run.step:08d}.png", picture_grid(pictures, grid_columns(len(pictures))))


def fixed_noise(run: Sampled, rundir: RunDir) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Latents float32 (sample_count, z_dim) and sorted labels int64 (sample_count,) or None, kept in noise.pt."""
    model, count = run.config.model, run.config.train.sample_count
    with suppress(FileNotFoundError):
        try:
            noise = torch.load(rundir.noise_path, weights_only=True)
            if len(noise["z"]) == count:
                return noise["z"], noise["y"]
        except (RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{rundir.noise_path}: is damaged; remove it, it is made anew") from error
    z, y = Draws(run.config.seed, torch.device("cpu")).latents("samples", 0, count, model.z_dim, run.num_classes)
    y = None if y is None else y.sort().values
    buffer = io.BytesIO()
    torch.save({"z": z, "y": y}, buffer)
    atomic_write(rundir.noise_path, buffer.getvalue())
    return z, y
