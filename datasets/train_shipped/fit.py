"""What training the small networks in `harness/weights/` shares: seeds, the loop, writing the file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from harness.messages import log
from harness.storage.atomic import atomic_write

PEAK_RATE, WEIGHT_DECAY = 3e-3, 0.02
LOG_STEPS = 200
PURPOSES = ("train", "calibration", "held_out")
Network = TypeVar("Network", bound=nn.Module)


def set_seed(base: int, seed: int, purpose: str) -> int:
    """Seed of a drawn set. Sets of different purposes, and training sets of GANs (small seeds), share no picture."""
    return base + 10 * (3 * seed + PURPOSES.index(purpose))


def write_weights(path: Path, content: bytes, started_sec: float) -> None:
    """`started_sec`: `time.process_time()` when training began; the CPU time since then is logged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content)
    log(f"{path}: {len(content) / 1e6:.2f} MB after {time.process_time() - started_sec:.0f} s of CPU time")


def fit(
    make_network: Callable[[], Network],
    losses_of: Callable[[Network, np.ndarray, torch.Generator], dict[str, Tensor]],
    count: int,
    batch: int,
    steps: int,
    seed: int,
) -> Network:
    """Trains with AdamW and a one-cycle learning rate; returns the network in evaluation mode.

    The result depends on the arguments alone.

    Args:
        losses_of: (network, rows int64 (batch,) of the `count` examples, rng) → losses, which are summed.
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
        if step % LOG_STEPS == 0 or step == steps:
            shown = ", ".join(f"{name} {float(loss.detach()):.4f}" for name, loss in losses.items())
            log(f"step {step}/{steps}: {shown}")
    return network.eval()


def to_float(pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
