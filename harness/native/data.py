"""Training batches of packed pictures. Batch k is a function of (seed, k), resident or lazy, for any number of
processes.

Out: float32 (B, 3, H, W) in [-1, 1], channels-last in memory, on the device.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness.images.tensors import pictures_to_tensor
from harness.runtime.rng import numpy_rng

RESIDENT_SHARE = 0.6  # of the free memory of the device


class PictureOrder:
    """An endless sequence of epochs, each a permutation of all pictures, cut into batches.

    The first seed's loader dropped the end of each epoch; here every picture is seen once an epoch.
    """

    def __init__(self, seed: int, count: int, batch_size: int):
        self.seed, self.count, self.batch_size = seed, count, batch_size
        self._epochs: dict[int, np.ndarray] = {}

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {e: p for e, p in self._epochs.items() if e >= epoch - 1}
            self._epochs[epoch] = numpy_rng(self.seed, "order", epoch).permutation(self.count)
        return self._epochs[epoch]

    def rows(self, k: int) -> np.ndarray:
        """Row numbers of global batch k, int64 (batch_size,)."""
        positions = np.arange(k * self.batch_size, (k + 1) * self.batch_size)
        epochs, offsets = np.divmod(positions, self.count)
        return np.concatenate([self._epoch(int(e))[offsets[epochs == e]] for e in np.unique(epochs)])

    def flips(self, k: int) -> np.ndarray:
        """Which pictures of global batch k are mirrored, bool (batch_size,)."""
        return numpy_rng(self.seed, "flip", k).random(self.batch_size) < 0.5


class Pictures(Protocol):
    """Interface of a packed set: `labels` int64 (N,); `read` gives uint8 (B, H, W, 3) of these rows, or of all."""

    count: int
    height: int
    width: int
    class_names: list[str]
    labels: np.ndarray

    def read(self, rows: np.ndarray | None = None) -> np.ndarray: ...

    def close(self) -> None: ...


class PictureSource:
    """Batches from a packed set, which is resident on the device as uint8, or read one batch ahead."""

    def __init__(
        self, packed: Pictures, order: PictureOrder, flip: bool, device: torch.device, where: str, local_slice: slice
    ):
        self.order, self.flip, self.device, self.local_slice = order, flip, device, local_slice
        self._packed = packed
        self._labels = torch.from_numpy(np.asarray(packed.labels))
        size_bytes = packed.count * packed.height * packed.width * 3
        self.resident = where == "resident" or (where == "auto" and size_bytes < RESIDENT_SHARE * free_bytes(device))
        if self.resident:
            self._pictures = torch.from_numpy(packed.read()).to(device)
            self._labels = self._labels.to(device)
        else:
            self._reader = ThreadPoolExecutor(1)
            self._ahead: tuple[int, Future] | None = None

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """This process's part of global batch k: pictures float32 (B, 3, H, W) in [-1, 1], labels int64 (B,)."""
        rows = torch.from_numpy(self.order.rows(k)[self.local_slice])
        if self.resident:
            rows = rows.to(self.device, non_blocking=True)
            pictures, labels = self._pictures[rows], self._labels[rows]
        else:
            pictures, labels = self._read(k), self._labels[rows].to(self.device)
        x = pictures_to_tensor(pictures)
        if self.flip:
            flips = torch.from_numpy(self.order.flips(k)[self.local_slice]).to(self.device, non_blocking=True)
            x = torch.where(flips[:, None, None, None], x.flip(3), x)
        return x, labels

    def _read(self, k: int) -> Tensor:
        ahead, self._ahead = self._ahead, None
        future = ahead[1] if ahead and ahead[0] == k else self._submit(k)
        pictures = torch.from_numpy(future.result())
        self._ahead = (k + 1, self._submit(k + 1))
        return pictures.to(self.device, non_blocking=True)

    def _submit(self, k: int) -> Future:
        return self._reader.submit(self._packed.read, self.order.rows(k)[self.local_slice])

    def close(self) -> None:
        if not self.resident:
            self._reader.shutdown(cancel_futures=True)
        self._packed.close()


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; on a CPU the total, because the file cache makes "free" meaningless."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
