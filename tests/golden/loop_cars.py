"""Inputs of a realistic training for the comparison of both engines: procedural cars at 32 px."""

import numpy as np
import torch

from datasets.procedural.sets import render_many
from tests.golden.loop_case import LoopCase
from tests.golden.parity_case import Inputs


def car_inputs(case: LoopCase, pictures: int, seed: int = 0) -> Inputs:
    """Procedural cars, so many different ones, in random order and mirrored by chance; all else drawn by torch."""
    cars = np.stack([picture for _, _, picture in render_many("ordinary", pictures, seed, 32)])
    tensor = torch.from_numpy(cars).permute(0, 3, 1, 2).float() / 127.5 - 1
    generator = torch.Generator().manual_seed(seed)
    d, g, batch = case.d_calls, case.g_calls, case.batch
    epochs = -(-d * batch // pictures)
    real = tensor[torch.cat([torch.randperm(pictures, generator=generator) for _ in range(epochs)])[: d * batch]]
    mirrored = torch.rand(d * batch, 1, 1, 1, generator=generator) < 0.5
    real = torch.where(mirrored, real.flip(3), real).view(d, batch, 3, 32, 32).contiguous()

    def numbers(calls: int) -> torch.Tensor:
        return torch.rand(calls, batch, 7, generator=generator).double()  # the same draws in float32 and in float64

    def labels(calls: int) -> torch.Tensor:
        return torch.randint(max(1, case.num_classes), (calls, batch), generator=generator)

    return Inputs(
        real=real,
        real_y=labels(d),
        d_z=torch.randn(d, batch, case.z_dim, generator=generator),
        d_y=labels(d),
        g_z=torch.randn(g, batch, case.z_dim, generator=generator),
        g_y=labels(g),
        d_real_numbers=numbers(d),
        d_fake_numbers=numbers(d),
        g_fake_numbers=numbers(g),
    )
