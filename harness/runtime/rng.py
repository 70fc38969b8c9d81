"""Random streams as functions of (seed, purpose, index), so that an exact resume needs no saved state.

The whole global batch is drawn and then sliced, so 1 process and N processes see the same numbers.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


def seed_for(seed: int, purpose: str, index: int = 0) -> int:
    """A well-mixed 63-bit seed; neighbouring indices give independent streams."""
    digest = hashlib.blake2b(f"{seed}:{purpose}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed_for(seed, purpose, index)))


class RandomStreams:
    """One torch generator on `device`, re-seeded for each stream.

    Args:
        seed: the run's seed.
        local_slice: this process's part of a global batch.
    """

    def __init__(self, seed: int, device: torch.device, local_slice: slice = slice(None)):
        self.seed = seed
        self.device = device
        self.local_slice = local_slice
        self._generator = torch.Generator(device)

    def stream(self, purpose: str, index: int) -> torch.Generator:
        """The generator at the start of stream (purpose, index); valid until the next call, which re-seeds it."""
        return self._generator.manual_seed(seed_for(self.seed, purpose, index))

    def latents(
        self, purpose: str, index: int, count: int, z_dim: int, num_classes: int
    ) -> tuple[Tensor, Tensor | None]:
        """This process's part of `count` latents: float32 (B, z_dim) normal, and labels int64 (B,) or None."""
        generator = self.stream(purpose, index)
        z = torch.randn(count, z_dim, generator=generator, device=self.device)[self.local_slice]
        if not num_classes:
            return z, None
        return z, torch.randint(num_classes, (count,), generator=generator, device=self.device)[self.local_slice]
