"""Negatives for the factor reader's car head: cars damaged as a bad generator damages them.

Batches are float32 (B, 3, S, S) in [0, 1]. Every transform is strong: slightly damaged cars belong to neither class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.train_shipped.augment import blur, pick, smooth_field, uniform, warp


def make_negatives(cars: Tensor, masks: Tensor, rng: torch.Generator) -> Tensor:
    """One negative per car; the transforms take turns. masks: bool (B, 1, S, S), True on the car."""
    negatives, first = torch.empty_like(cars), pick(rng, len(TRANSFORMS))
    for number, transform in enumerate(TRANSFORMS):
        rows = torch.arange((first + number) % len(TRANSFORMS), len(cars), len(TRANSFORMS))
        if len(rows):
            others = cars[torch.randperm(len(cars), generator=rng)]
            negatives[rows] = transform(cars[rows], masks[rows], others, rng).clamp(0, 1)
    return negatives


def _mirror_some(x: Tensor, rng: torch.Generator) -> Tensor:
    flips = torch.rand(len(x), generator=rng) < 0.5
    return torch.where(flips[:, None, None, None], x.flip(3), x)


def _shuffled(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """Patches in another order."""
    count, channels, side, _ = cars.shape
    cells = (2, 4, 4, 8)[pick(rng, 4)]
    patch = side // cells
    grid = cars.reshape(count, channels, cells, patch, cells, patch).permute(2, 4, 0, 1, 3, 5).reshape(cells**2, -1)
    order = torch.randperm(cells**2, generator=rng)
    if (order != torch.arange(cells**2)).sum() < cells**2 / 2:
        order = order.roll(1)
    grid = grid[order].reshape(cells, cells, count, channels, patch, patch)
    return grid.permute(2, 3, 0, 4, 1, 5).reshape(cars.shape)


def _halves(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """Half of one car and the wrong half of another: two noses, two tails, a roof facing the other way."""
    other, side = others[: len(cars)].flip(3), cars.shape[3]
    line = side // 2 + pick(rng, side // 8) - side // 16
    result = cars.clone()
    if pick(rng, 3) < 2:
        result[:, :, :, line:] = other[:, :, :, line:]
    else:
        result[:, :, line:] = other[:, :, line:]
    return result


def _bent(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """Neighbouring parts pulled apart by a tenth of the picture or more."""
    bend, cells = (0.10, 5) if pick(rng, 2) else (0.08, 8)
    return warp(cars, rng, 0.0, bend, cells)


def _averaged(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """Several cars blended."""
    layers = [cars] + [others.roll(k * len(cars), 0)[: len(cars)] for k in range(1 + pick(rng, 5))]
    layers = [cars, others[: len(cars)].flip(3)] if len(layers) == 2 else [_mirror_some(x, rng) for x in layers]
    return torch.stack(layers).mean(0)


def _blurred(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    return blur(cars, float(uniform(rng, 0.06, 0.14, 1)) * cars.shape[3])


def _holed(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """A third of the car or more replaced by the backdrop's colour, or a random one."""
    side = cars.shape[3]
    size = round(side * float(uniform(rng, 0.30, 0.5, 1)))
    result = cars.clone()
    middle = masks.float().mean((1, 2))  # (B, S): share of car in each column
    column = torch.multinomial(middle + 1e-6, 1, generator=rng).flatten() - size // 2
    fill = _backdrop_mean(cars, masks, (2, 3)) if pick(rng, 2) else uniform(rng, 0, 1, len(cars), 3, 1, 1)
    for k in range(len(cars)):
        left = min(max(int(column[k]), 0), side - size)
        top = round(side * 0.55) - size // 2 + pick(rng, side // 8)
        result[k, :, top : top + size, left : left + size] = fill[k]
    return result


def _backdrop_mean(cars: Tensor, masks: Tensor, dims: tuple[int, ...]) -> Tensor:
    outside = (~masks).float()
    return (cars * outside).sum(dims, keepdim=True) / outside.sum(dims, keepdim=True).clamp(min=1)


def _cut(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """The car ends at a line across its mask: the greenhouse, the wheels, the front or the rear is missing."""
    side, every = cars.shape[3], slice(None)
    result, fill = cars.clone(), _backdrop_rows(cars, masks)
    for k in range(len(cars)):
        rows = torch.nonzero(masks[k, 0].any(1)).flatten()
        columns = torch.nonzero(masks[k, 0].any(0)).flatten()
        if not len(rows):
            continue
        top, tall, left, wide = int(rows[0]), len(rows), int(columns[0]), len(columns)
        gone = torch.zeros(side, side, dtype=torch.bool)
        end, share = pick(rng, 4), float(uniform(rng, 0.40, 0.60, 1))
        gone[
            (
                (slice(top + round(tall * share)), every),
                (slice(top + round(tall * (1 - share)), None), every),
                (every, slice(left + round(wide * share))),
                (every, slice(left + round(wide * (1 - share)), None)),
            )[end]
        ] = True
        near = F.max_pool2d(masks[k].float(), 3, 1, 1)[0] > 0  # with its antialiased edge
        result[k] = torch.where(gone & near, fill[k], result[k])
    return result


def _backdrop_rows(cars: Tensor, masks: Tensor) -> Tensor:
    """The picture with the car replaced by each row's backdrop colour."""
    return torch.where(masks, _backdrop_mean(cars, masks, (3,)), cars)


def _blobs(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """The picture's colours sorted along a smooth random field; half of the time inside a bent silhouette alone."""
    count, _, side, _ = cars.shape
    cells = 3 + pick(rng, 10)
    field = smooth_field(torch.randn(count, 1, cells, cells, generator=rng), side)
    order = field.flatten(1).argsort(1)
    sorted_pixels = cars.flatten(2).gather(2, cars.mean(1).flatten(1).argsort(1)[:, None].expand(-1, 3, -1))
    blobs = torch.empty_like(sorted_pixels).scatter_(2, order[:, None].expand(-1, 3, -1), sorted_pixels)
    blobs = blobs.reshape(cars.shape)
    if pick(rng, 2):
        bent = warp(masks.float(), rng, 0.05, 0.06, 5)
        return torch.where(bent > 0.5, blobs, _backdrop_rows(cars, masks))
    return blobs


def _smeared(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """The car blurred inside its outline: right silhouette and colours, no parts."""
    inside = masks.float()
    soft = blur(cars * inside, 0.1 * cars.shape[3]) / blur(inside, 0.1 * cars.shape[3]).clamp(min=1e-3)
    bent = warp(inside, rng, 0.02, 0.03, 5)
    return torch.where(blur(bent, 1.5) > 0.5, soft, _backdrop_rows(cars, masks))


def _noise(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """Random phases under the picture's spectrum, or white noise over the picture."""
    if pick(rng, 2):
        spectrum = torch.fft.rfft2(cars)
        angle = uniform(rng, -torch.pi, torch.pi, len(cars), 1, *spectrum.shape[2:])
        angle[:, :, 0, 0] = 0
        return torch.fft.irfft2(spectrum * torch.exp(1j * angle), s=cars.shape[2:])
    share = float(uniform(rng, 0.5, 1.0, 1))
    return cars.lerp(torch.rand(cars.shape, generator=rng), share)


def _framed_wrongly(cars: Tensor, masks: Tensor, others: Tensor, rng: torch.Generator) -> Tensor:
    """Upside down, lying on its side, or far too near."""
    way = pick(rng, 4)
    if way < 2:
        return cars.transpose(2, 3) if way else cars.flip(2)
    return warp(cars, rng, 0.18, 0.0, 2, zoom=uniform(rng, 1.9, 3.2, len(cars)))


TRANSFORMS = (_shuffled, _halves, _bent, _averaged, _blurred, _holed, _cut, _blobs, _smeared, _noise, _framed_wrongly)
