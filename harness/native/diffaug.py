"""DiffAugment (Zhao et al. 2020): differentiable augmentation of real and generated pictures. StudioGAN:
`utils/diff_aug.py`.

Random parameters are drawn first and then applied, so that they depend on their generator alone and can be split among
processes.
"""

import torch
from torch import Tensor

from harness.errors import UserError

POLICIES = ("color", "translation", "cutout")
_COLUMNS = {"color": 3, "translation": 2, "cutout": 2}  # random numbers per picture


def draw_diffaug(
    shape: tuple[int, ...] | torch.Size,
    policy: tuple[str, ...],
    generator: torch.Generator | None,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Random parameters for pictures of `shape` (B, 3, H, W), as of `numbers_to_draws`.

    The numbers are drawn on `generator`'s device in one call and copied to `device` at once.
    """
    unknown = [name for name in policy if name not in POLICIES]
    if unknown or len(set(policy)) != len(policy):
        raise UserError(
            f"augment.diffaug_policy: found {list(policy)}, allowed each of {list(POLICIES)} at most once, "
            f"try augment.diffaug_policy=[color,translation,cutout]"
        )
    where = generator.device if generator is not None else torch.device("cpu")
    columns = sum(_COLUMNS[name] for name in policy)
    # float64: a float32 just below 1, times a count, could round up to the count
    numbers = torch.rand(shape[0], columns, generator=generator, device=where, dtype=torch.float64)
    return numbers_to_draws(numbers.to(device), shape, policy, dtype)


def numbers_to_draws(
    numbers: Tensor, shape: tuple[int, ...] | torch.Size, policy: tuple[str, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Numbers (B, columns) in [0, 1) -> draws, keyed in the order in which `apply_diffaug` applies them.

    `brightness` in [-0.5, 0.5), `saturation` in [0, 2), `contrast` in [0.5, 1.5): `dtype` (B,).
    `translation`: int64 (B, 2), rows and columns to shift by, up to 1/8 of the size.
    `cutout`: int64 (B, 2), centre of the erased rectangle of half the height and width.
    """
    height, width = shape[2:]
    draws: dict[str, Tensor] = {}
    used = 0
    for name in policy:
        u = numbers[:, used : used + _COLUMNS[name]]
        used += _COLUMNS[name]
        if name == "color":
            draws["brightness"] = (u[:, 0] - 0.5).to(dtype)
            draws["saturation"] = (u[:, 1] * 2).to(dtype)
            draws["contrast"] = (u[:, 2] + 0.5).to(dtype)
        elif name == "translation":
            draws[name] = torch.stack([_shift(u[:, 0], height), _shift(u[:, 1], width)], dim=1)
        else:
            draws[name] = torch.stack([_centre(u[:, 0], height), _centre(u[:, 1], width)], dim=1)
    return draws


def _shift(u: Tensor, size: int) -> Tensor:
    """U[0, 1) -> -s..s with s = size / 8 rounded."""
    max_shift = int(size * 0.125 + 0.5)
    return (u * (2 * max_shift + 1)).long() - max_shift


def _cutout_side(size: int) -> int:
    return int(size * 0.5 + 0.5)


def _centre(u: Tensor, size: int) -> Tensor:
    """U[0, 1) -> 0..size for an even erased side, 0..size-1 for an odd one."""
    return (u * (size + 1 - _cutout_side(size) % 2)).long()


def slice_draws(draws: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """Parameters of pictures start..stop-1."""
    return {name: values[start:stop] for name, values in draws.items()}


def apply_diffaug(x: Tensor, draws: dict[str, Tensor], stepwise: bool = False) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] -> the same shape, not clamped. Differentiable in `x`.

    `stepwise` applies colour changes one after the other, with StudioGAN's rounding; the fused formula is faster.
    """
    for name in draws:
        if name == "brightness":
            color = _color_stepwise if stepwise else _color
            x = color(x, draws["brightness"], draws["saturation"], draws["contrast"])
        elif name == "translation":
            x = _Translate.apply(x, draws[name], stepwise)  # type: ignore[assignment]
        elif name == "cutout":
            x = x * _cutout_mask(x, draws[name])
    return x


def _color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness b, then saturation s about each pixel's grey m, then contrast c about the picture's mean M, as one
    formula.

    x + b, then s (x - m) + m + b, whose mean is M + b, then c s x + c (1 - s) m + (1 - c) M + b.
    """
    b, s, c = (draw.to(x.dtype).view(-1, 1, 1, 1) for draw in (brightness, saturation, contrast))
    grey = x.mean(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return torch.addcmul(c * (1 - s) * grey + ((1 - c) * mean + b), x, c * s)


def _color_stepwise(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """`_color`, one operation after the other."""
    b, s, c = (draw.to(x.dtype).view(-1, 1, 1, 1) for draw in (brightness, saturation, contrast))
    x = x + b
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * s + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * c + mean


class _Translate(torch.autograd.Function):
    """out[i, j] = x[i + di, j + dj], 0 outside. The gradient is the opposite shift: a gather, not a scattered sum.

    `nhwc`: a channels-last gradient, as in StudioGAN, which determines the summation order of a mean before it.
    """

    @staticmethod
    def forward(ctx, x: Tensor, shift: Tensor, nhwc: bool) -> Tensor:
        ctx.save_for_backward(shift)
        ctx.nhwc = nhwc
        batch, _, height, width = x.shape
        rows = torch.arange(height, device=x.device) + shift[:, :1]  # (B, H)
        columns = torch.arange(width, device=x.device) + shift[:, 1:]  # (B, W)
        inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
        index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        index = index.view(batch, 1, height * width).expand(-1, x.shape[1], -1)
        moved = x.reshape(batch, x.shape[1], height * width).gather(2, index).view(x.shape)
        return moved * inside[:, None].to(x.dtype)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (shift,) = ctx.saved_tensors
        moved = _Translate.apply(grad_outputs[0], -shift, False)
        assert isinstance(moved, Tensor)
        return moved.contiguous(memory_format=torch.channels_last) if ctx.nhwc else moved, None, None


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)


def _cutout_mask(x: Tensor, centre: Tensor) -> Tensor:
    """1 outside the erased rectangle, 0 inside; (B, 1, H, W)."""
    hidden = []
    for axis, size in enumerate(x.shape[2:]):
        side = _cutout_side(size)
        offset = torch.arange(size, device=x.device) - (centre[:, axis : axis + 1] - side // 2)  # (B, size)
        hidden.append((offset >= 0) & (offset < side))
    return (~(hidden[0][:, None, :, None] & hidden[1][:, None, None, :])).to(x.dtype)
