"""Augmentation of training pictures: warps, blur, colours, noise, JPEG artifacts.

Batches are float32 (B, 3, S, S) in [0, 1]; all randomness comes from one torch.Generator.
"""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from harness.images.decode import decode_picture

CHUNKS = 4  # parts of a batch, each resized and blurred in its own way
JPEG_SHARE = 0.12
SMALLEST_PX = 28


def uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng) * (high - low) + low


def pick(rng: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (1,), generator=rng))


def warp(
    x: Tensor,
    rng: torch.Generator,
    shift: float,
    bend: Tensor | float,
    cells: int,
    zoom: Tensor | None = None,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Mirrors, magnifies, shifts and bends; pixels from outside repeat the edge.

    Args:
        shift: largest shift, as a share of the side.
        bend: one or (B,), standard deviation of the displacement at `cells` x `cells` points, as a share of the side.
        zoom: (B,), above 1 = larger; None = 1.
        mirrored: bool (B,); None = none.
    """
    count, _, height, width = x.shape
    zoom = torch.ones(count) if zoom is None else zoom
    mirrored = torch.zeros(count, dtype=torch.bool) if mirrored is None else mirrored
    axis_x = (torch.arange(width) + 0.5) * 2 / width - 1
    axis_y = (torch.arange(height) + 0.5) * 2 / height - 1
    sign = 1.0 - 2.0 * mirrored.float()
    dx, dy = uniform(rng, -2 * shift, 2 * shift, 2, count)
    grid_x = (axis_x[None, None] / zoom[:, None, None] + dx[:, None, None]) * sign[:, None, None]
    grid_y = axis_y[None, :, None] / zoom[:, None, None] + dy[:, None, None]
    grid = torch.stack([grid_x.expand(-1, height, -1), grid_y.expand(-1, -1, width)], 3)
    points = torch.randn(count, 2, cells, cells, generator=rng) * 2 * torch.as_tensor(bend).reshape(-1, 1, 1, 1)
    grid = grid + smooth_field(points, height).permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def smooth_field(points: Tensor, size_px: int) -> Tensor:
    """Control points (B, C, cells, cells), interpolated to (B, C, size_px, size_px)."""
    return F.interpolate(points, (size_px, size_px), mode="bicubic", align_corners=True)


def continue_rows(x: Tensor, margins: Tensor) -> Tensor:
    """Replaces the first and last `margins` rows (B,) of each picture by copies of the row next to them."""
    side = x.shape[2]
    rows = torch.arange(side)[None].expand(len(x), -1)
    rows = rows.maximum(margins[:, None]).minimum(side - 1 - margins[:, None])
    return x.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def add_artifacts(x: Tensor, rng: torch.Generator) -> Tensor:
    """Slight artifacts of a fairly good generator: stains, a weak lattice, a ghost of another picture."""
    count, _, side, _ = x.shape
    ghost = uniform(rng, -0.4, 0.18, count, 1, 1, 1).clamp(min=0)
    x = x.lerp(x.roll(1 + pick(rng, count - 1), 0), ghost)
    cells = 4 + pick(rng, 13)
    stains = smooth_field(torch.randn(count, 3, cells, cells, generator=rng), side)
    x = x + uniform(rng, -0.06, 0.07, count, 1, 1, 1).clamp(min=0) * stains
    period = 1 + pick(rng, 4)
    even = torch.arange(side) // period % 2
    lattice = (even[:, None] + even[None] if pick(rng, 2) else even[None].expand(side, -1)) % 2 * 2.0 - 1
    where = smooth_field(torch.randn(count, 1, 5, 5, generator=rng), side).clamp(0, 1)
    return (x + uniform(rng, -0.12, 0.06, count, 1, 1, 1).clamp(min=0) * where * lattice).clamp(0, 1)


def blur(x: Tensor, sigma_px: float) -> Tensor:
    """Gaussian; edges are repeated."""
    reach = max(1, math.ceil(2.5 * sigma_px))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    count, channels, height, width = x.shape
    planes = x.reshape(count * channels, 1, height, width)
    planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None, :])
    planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), kernel[None, None, :, None])
    return planes.reshape(count, channels, height, width)


def resize(x: Tensor, size_px: int, mode: str) -> Tensor:
    """`mode`: bilinear or bicubic (antialiased), or nearest."""
    if x.shape[2] == size_px:
        return x
    if mode == "nearest":
        return F.interpolate(x, (size_px, size_px), mode="nearest-exact")
    return F.interpolate(x, (size_px, size_px), mode=mode, antialias=True, align_corners=False).clamp(0, 1)


def augment(x: Tensor, rng: torch.Generator, size_px: int) -> Tensor:
    """Random colours, sharpness, noise and JPEG artifacts; resized to (B, 3, size_px, size_px)."""
    count = len(x)
    gain = uniform(rng, 0.88, 1.12, count, 3, 1, 1).lerp(uniform(rng, 0.85, 1.15, count, 1, 1, 1), 0.8)
    offset = uniform(rng, -0.06, 0.06, count, 1, 1, 1)
    x = ((x - 0.5) * gain + 0.5 + offset).clamp(0, 1)
    x = torch.cat([_shrink(part, rng, size_px) for part in x.chunk(CHUNKS)])
    noise = uniform(rng, -0.03, 0.04, count, 1, 1, 1).clamp(min=0)
    return (x + noise * torch.randn(x.shape, generator=rng)).clamp(0, 1)


def _shrink(x: Tensor, rng: torch.Generator, size_px: int) -> Tensor:
    """A random path from the rendered size to `size_px`; a third of the time through 32 px."""
    if pick(rng, 3) == 0:
        x = blur(x, float(uniform(rng, 0.3, 1.1, 1)))
    path = pick(rng, 6)
    if path < 4:
        between = 32 if path < 2 else SMALLEST_PX + pick(rng, x.shape[2] - SMALLEST_PX)
        x = resize(x, between, ("bilinear", "bicubic")[pick(rng, 2)])
    jpeg = torch.rand(len(x), generator=rng) < JPEG_SHARE
    for row in torch.nonzero(jpeg).flatten().tolist():
        x[row] = _jpeg_round_trip(x[row], 45 + pick(rng, 50))
    return resize(x, size_px, ("bilinear", "bilinear", "bicubic", "nearest")[pick(rng, 4)])


def _jpeg_round_trip(picture: Tensor, quality: int) -> Tensor:
    levels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(decode_picture(stream.getvalue()).copy()).permute(2, 0, 1).float() / 255
