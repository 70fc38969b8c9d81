"""Copy detection: the nearest training pictures of a design in two feature spaces, compared with real pictures.

In: pictures uint8 (N, H, W, 3). Out: for each a verdict, and per space the nearest training picture and a percentile.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.features import Featurizer
from harness.images.tensors import pictures_to_tensor
from harness.networks.base import Discriminator

BLOCK_ROWS = 256
NEIGHBOURS = 5
GRID_ROWS = 8  # of cells that a feature map is averaged over; finer ones are sensitive to JPEG artefacts
MAX_DIMS, PROJECTION_SEED = 96, 0  # of the discriminator's features; a random projection preserves distances
FEATURE_DTYPE = np.float16  # in the cache


@dataclass(frozen=True)
class FeatureSpace:
    """Pictures → features; equal `sha256` means equal features."""

    name: str
    sha256: str
    extract: Callable[[np.ndarray], np.ndarray]

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) → float16 (N, d)."""
        parts = [self.extract(pictures[k : k + BLOCK_ROWS]) for k in range(0, len(pictures), BLOCK_ROWS)]
        return np.concatenate(parts).astype(FEATURE_DTYPE)


@dataclass(frozen=True)
class Nearest:
    """The nearest training pictures of N others.

    Attributes:
        rows: int64 (N,).
        distances: float64 (N,).
        relative: float64 (N,), distance / distance to the fifth nearest: small for a copy, in dense and sparse regions.
    """

    rows: np.ndarray
    distances: np.ndarray
    relative: np.ndarray


def reader_space(featurizer: Featurizer) -> FeatureSpace:
    return FeatureSpace("reader", featurizer.sha256, featurizer)


def discriminator_space(network: Discriminator) -> FeatureSpace:
    """The map of the first block: ReLU, averaged over a grid of cells, scaled to length 1; with more than MAX_DIMS
    dimensions, projected onto so many random directions (Johnson and Lindenstrauss 1984).

    The last features change more when a picture is saved as JPEG than between two cars: with them at most 6 in 10
    re-encoded photos were recognised, with the first map all.
    """
    block = network.blocks[0]
    device = next(block.parameters()).device

    @torch.inference_mode()
    def extract(pictures: np.ndarray) -> np.ndarray:
        x = pictures_to_tensor(torch.from_numpy(np.ascontiguousarray(pictures)).to(device))
        cells = GRID_ROWS, round(GRID_ROWS * x.shape[3] / x.shape[2])
        pooled = F.adaptive_avg_pool2d(F.relu(block[0](x)), cells).flatten(1)  # type: ignore[index]
        features = F.normalize(pooled.float()).cpu().numpy()
        return features if features.shape[1] <= MAX_DIMS else features @ _projection(features.shape[1])

    weights = hashlib.sha256(f"first map, {GRID_ROWS} rows, {MAX_DIMS} dimensions".encode())
    for name, value in sorted(block.state_dict().items()):
        weights.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return FeatureSpace("discriminator", weights.hexdigest(), extract)


@lru_cache(maxsize=1)
def _projection(length: int) -> np.ndarray:
    """float32 (length, MAX_DIMS), orthonormal columns scaled to preserve distances on average."""
    random = np.random.default_rng(PROJECTION_SEED).standard_normal((length, MAX_DIMS))
    directions, _ = np.linalg.qr(random)
    return (directions * (length / MAX_DIMS) ** 0.5).astype(np.float32)


def find_nearest(space: FeatureSpace, pictures: np.ndarray, training: np.ndarray) -> Nearest:
    """Of each picture or its mirror image, whichever is nearer, among the training pictures' features (M, d)."""
    bank = torch.from_numpy(training.astype(np.float32))
    count = min(NEIGHBOURS, len(bank))
    rows, distances = [], []
    for start in range(0, len(pictures), BLOCK_ROWS):
        block = pictures[start : start + BLOCK_ROWS]
        both = [torch.from_numpy(space.features(x).astype(np.float32)) for x in (block, block[:, :, ::-1])]
        squares = torch.minimum(*(_squared_distances(x, bank) for x in both))
        near = squares.topk(count, largest=False).indices  # (B, count)
        # Exact distances: those of copies would be rounding errors of the matrix product.
        exact = torch.minimum(*((x[:, None] - bank[near]).double().square().sum(2).sqrt() for x in both))
        ordered, order = exact.sort(1)
        rows.append(near.gather(1, order)[:, 0].numpy())
        distances.append(ordered.numpy())
    sorted_distances = np.concatenate(distances)
    nearest, fifth = sorted_distances[:, 0], sorted_distances[:, -1]
    relative = np.divide(nearest, fifth, out=np.ones_like(nearest), where=fifth > 0)
    return Nearest(np.concatenate(rows), nearest, relative)


def _squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T


@dataclass(frozen=True)
class ReferenceSet:
    """Features of training pictures in one space.

    Attributes:
        training: features of the training pictures, (M, d).
        real_distances, real_relative: of held-out real pictures, (N,), as in `Nearest`.
    """

    space: FeatureSpace
    training: np.ndarray
    real_distances: np.ndarray
    real_relative: np.ndarray

    def percentiles(self, near: Nearest) -> np.ndarray:
        """Percentage of held-out real pictures that are nearer, by distance or relative distance, whichever is lower.

        Distance finds copies among similar training pictures, relative distance those of isolated ones.
        """
        return np.minimum(
            _percentiles(near.distances, self.real_distances), _percentiles(near.relative, self.real_relative)
        )

    def real_percentiles(self) -> np.ndarray:
        """Of the held-out real pictures themselves."""
        none = np.zeros(len(self.real_distances), np.int64)
        return self.percentiles(Nearest(none, self.real_distances, self.real_relative))


def _percentiles(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    return 100 * np.searchsorted(np.sort(real), values) / len(real)


class Novelty:
    """Checks designs for copies.

    Args:
        sets: names and sizes of the training sets, in the order of their features.
        left_out: why there are no verdicts: without held-out pictures there is nothing to compare with.
    """

    def __init__(
        self,
        references: Sequence[ReferenceSet],
        sets: Sequence[tuple[str, int]],
        warn_percentile: float,
        left_out: str = "",
    ) -> None:
        self.references, self.sets, self.warn_percentile, self.left_out = references, sets, warn_percentile, left_out
        self._ends = np.cumsum([count for _, count in sets])

    def check(self, pictures: np.ndarray) -> list[dict[str, Any]]:
        """For each: `verdict` PASS or WARN, and per space `percentile`, `distance`, `set` and `row` of the nearest; or
        `left_out` alone."""
        if self.left_out:
            return [{"left_out": self.left_out} for _ in pictures]
        found = {reference.space.name: self._nearest(reference, pictures) for reference in self.references}
        entries = [{name: column[k] for name, column in found.items()} for k in range(len(pictures))]
        return [{"verdict": self._verdict(entry), **entry} for entry in entries]

    def warn_rates(self) -> dict[str, float]:
        """False alarms: the share of held-out real pictures with a WARN, by all spaces and by each. Empty without
        verdicts."""
        if self.left_out:
            return {}
        warned = {each.space.name: each.real_percentiles() <= self.warn_percentile for each in self.references}
        rates = {f"warn_rate_{name}": float(values.mean()) for name, values in warned.items()}
        return {"warn_rate": float(np.any(list(warned.values()), axis=0).mean()), **rates}

    def _verdict(self, entry: dict[str, Any]) -> str:
        return "WARN" if any(near["percentile"] <= self.warn_percentile for near in entry.values()) else "PASS"

    def _nearest(self, reference: ReferenceSet, pictures: np.ndarray) -> list[dict[str, Any]]:
        near = find_nearest(reference.space, pictures, reference.training)
        table = zip(reference.percentiles(near), near.distances, near.rows, strict=True)
        return [{"percentile": float(p), "distance": float(d), **self._set_and_row(int(row))} for p, d, row in table]

    def _set_and_row(self, row: int) -> dict[str, Any]:
        number = int(np.searchsorted(self._ends, row, side="right"))
        name, count = self.sets[number]
        return {"set": name, "row": row - int(self._ends[number] - count)}
