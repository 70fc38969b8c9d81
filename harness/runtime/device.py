"""Device, precision and determinism, as the config requests them and as the hardware allows."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from harness.config.experiment import Train
from harness.errors import UserError
from harness.messages import counted


@dataclass(frozen=True)
class Hardware:
    """Device and precision of a run. `text` describes what is in use."""

    device: torch.device
    precision: str
    text: str

    def autocast(self) -> AbstractContextManager:
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; otherwise bf16 is emulated and slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def device_kind(train: Train) -> str:
    if train.device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device: found cuda, but PyTorch sees no CUDA device; try --set train.device=cpu")
    return "cuda" if train.device != "cpu" and torch.cuda.is_available() else "cpu"


def prepare_hardware(train: Train, local_rank: int = 0) -> Hardware:
    """Sets TF32 and determinism. UserError for what the hardware cannot do."""
    kind = device_kind(train)
    device = torch.device(kind, local_rank) if kind == "cuda" else torch.device("cpu")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else cpu_has_bf16()
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if bf16 else "tf32" if kind == "cuda" else "fp32"
    if precision == "tf32" and kind == "cpu":
        raise UserError("train.precision: found tf32, which only CUDA devices have; try --set train.precision=fp32")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = not train.deterministic
    torch.backends.cudnn.deterministic = train.deterministic
    if train.deterministic and kind == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(train.deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # debugging aid that writes every buffer twice
    name = (
        torch.cuda.get_device_name(device) if kind == "cuda" else f"cpu, {counted(torch.get_num_threads(), 'thread')}"
    )
    emulated = " (emulated: this hardware has no bf16)" if precision == "bf16" and not bf16 else ""
    return Hardware(device, precision, f"{name}, {precision}{emulated}")


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: the order of sums, and so their last bits, depend on the number of threads. A single small
    picture is also faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
