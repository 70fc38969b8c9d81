"""Pictures as arrays, uint8 (B, H, W, 3), and as tensors, float32 (B, 3, H, W) in [-1, 1]."""

import numpy as np
import torch
from torch import Tensor


def pictures_to_tensor(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W) in [-1, 1]; a channels-last view."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def tensor_to_pictures(tensor: Tensor) -> np.ndarray:
    """float (B, 3, H, W) in [-1, 1] → uint8 (B, H, W, 3), rounded."""
    levels = tensor.detach().float().add(1.0).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grid_columns(count: int) -> int:
    return max(1, round(count**0.5))
