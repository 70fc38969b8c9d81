"""One process or many with the same code. `torchrun` sets the environment; plain `python` is a world of size 1."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from harness.errors import EXIT_USER_ERROR, UserError

Result = TypeVar("Result")
# While rank 0 evaluates, perhaps on a CPU; a dead process is noticed at once by its lost connection.
LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """Rank and size. `control`: a CPU group for flags (None = the default group), which never waits for the GPU and has
    a timeout of LONGEST_WAIT."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def is_rank0(self) -> bool:
        return self.rank == 0

    def local_slice(self, batch_size: int) -> slice:
        """This process's part of a global batch."""
        if batch_size % self.size:
            raise UserError(f"optim.batch_size: found {batch_size}, allowed multiples of the {self.size} processes")
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def any_rank(self, flag: bool) -> bool:
        """True on every rank if it is true on any."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(int(flag))
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self.control)
        return bool(tensor)

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over the processes of a tensor that carries no gradient."""
        if self.size == 1:
            return tensor
        tensor = tensor.detach().clone()
        torch.distributed.all_reduce(tensor)
        return tensor / self.size

    def gather(self, part: Tensor) -> Tensor:
        """Concatenates each process's part (B / size, ...) of a batch by rank: (B, ...)."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def on_rank0(self, action: Callable[[], Result]) -> Result | None:
        """Runs `action` on rank 0 while the others wait. If it fails, all processes end and only rank 0 raises it."""
        result, failure = None, None
        if self.is_rank0:
            try:
                result = action()
            except Exception as error:
                failure = error
        failed = self.any_rank(failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise SystemExit(EXIT_USER_ERROR)
        return result


def join_world(device_kind: str) -> World:
    """Joins the process group of torchrun's environment; a World of size 1 without one."""
    try:
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return World()
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE, RANK, LOCAL_RANK: found {error} in the environment, allowed the numbers that torchrun sets; "
            "unset WORLD_SIZE, and use NPROC= for several processes"
        ) from error
    if device_kind == "cuda":
        torch.cuda.set_device(local_rank)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device_kind == "cuda" else "gloo")
    control = torch.distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    return World(rank, size, local_rank, control)


def leave_world(world: World) -> None:
    if world.size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def average_gradients(gradients: Sequence[Tensor], world: World) -> None:
    """Averages gradients over the processes in place, with one all-reduce."""
    if world.size == 1:
        return
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world.size
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
