"""One process or many: the same code path. `torchrun` sets the environment, plain `python` is a world of one."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from harness.errors import UserError


@dataclass(frozen=True)
class World:
    """Where this process stands. `control` is a CPU group for flags, so that asking never waits for the GPU."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: torch.distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's part of a global batch."""
        if batch_size % self.size:
            raise UserError(f"optim.batch_size: found {batch_size}, allowed multiples of the {self.size} processes")
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def any(self, flag: bool) -> bool:
        """True everywhere if it is true anywhere."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(int(flag))
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self.control)
        return bool(tensor)

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier(group=self.control)

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over the processes of a tensor that carries no gradient."""
        if self.size == 1:
            return tensor
        tensor = tensor.detach().clone()
        torch.distributed.all_reduce(tensor)
        return tensor / self.size


def join_world(device_kind: str) -> World:
    """Joins the group that torchrun announces in the environment; alone without one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device_kind == "cuda":
        torch.cuda.set_device(local_rank)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device_kind == "cuda" else "gloo")
    control = torch.distributed.new_group(backend="gloo") if device_kind == "cuda" else torch.distributed.group.WORLD
    return World(rank, size, local_rank, control)


def leave_world(world: World) -> None:
    if world.size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def average_gradients(parameters: Iterable[torch.nn.Parameter], world: World) -> None:
    """Gradients become their mean over the processes, in one message."""
    if world.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world.size
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
