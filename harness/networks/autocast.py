"""Contexts without autocast and TF32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager:
    """A context without autocast on `tensor`'s device: operations keep the precision of their inputs."""
    if not torch.amp.is_autocast_available(tensor.device.type):  # the meta device
        return nullcontext()
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def to_full_precision(x: Tensor) -> Tensor:
    """bf16 and fp16 become float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 without TF32, as for published figures; restores the settings afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
