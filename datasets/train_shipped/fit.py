"""The training loop of the small networks that the repository ships: AdamW, one cycle of the learning rate."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from harness.messages import log

PEAK_RATE, WEIGHT_DECAY = 3e-3, 0.02
SHOW_STEPS = 200
Network = TypeVar("Network", bound=nn.Module)


def fit(
    make_network: Callable[[], Network],
    losses_of: Callable[[Network, np.ndarray, torch.Generator], dict[str, Tensor]],
    count: int,
    batch: int,
    steps: int,
    seed: int,
) -> Network:
    """Trains for `steps` updates, and returns the network in evaluation mode: a function of the arguments alone.

    Args:
        losses_of: (network, rows int64 (batch,) of the `count` examples, rng) → losses that are added up.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_network()
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.15)
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = torch.randperm(count, generator=rng)
        rows, order = order[:batch].numpy(), order[batch:]
        losses = losses_of(network, rows, rng)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), start=torch.zeros(())).backward()
        optimizer.step()
        schedule.step()
        if step % SHOW_STEPS == 0 or step == steps:
            shown = ", ".join(f"{name} {float(value.detach()):.4f}" for name, value in losses.items())
            log(f"step {step}/{steps}: {shown}")
    return network.eval()


def to_float(pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
