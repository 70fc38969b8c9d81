"""Scans every new or changed file and stores the results in blocks.

A killed build loses at most the current block and what the workers were ahead of it. Features are computed in this
process in batches of one size, so they do not depend on neighbours, on interruptions or on the number of workers.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from datasets.scan.pool import TaskFailed, map_in_order
from datasets.scan.scan import ScanJob, Scanned, scan
from datasets.scan.store import Pending, ScanStore, in_blocks
from harness.config.experiment import Data
from harness.runtime.progress import track

BLOCK_FILES = 64  # committed at once
FEATURE_FILES = 32  # pictures in a batch

Mapper = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterable[Any]]


def run_scan(
    store: ScanStore, data: Data, classifier: Any | None, workers: int, mapper: Mapper = map_in_order
) -> tuple[int, int]:
    """Scans pending files; returns their number, and that of files known from an earlier build.

    Args:
        classifier: a `datasets.clean.view_classifier.ViewClassifier`; None = the set is not cleaned.
        mapper: `map_in_order`, or the same on a cluster.
    """
    if classifier is not None:
        store.use_features(feature_kind(classifier))
    total, files = store.pending_counts(classifier is not None)
    under_way: deque[Pending] = deque()
    jobs = _jobs(store, data, classifier, under_way)
    results = track(mapper(scan, jobs, workers) if total else (), total, f"reading {data.set}")
    found = (Scanned(reason=one.reason) if isinstance(one, TaskFailed) else one for one in results)
    for block in in_blocks(((under_way.popleft(), one) for one in found), BLOCK_FILES):
        store.keep(block, _features(classifier, block))
    return total, files - total


def _jobs(store: ScanStore, data: Data, classifier: Any | None, under_way: deque[Pending]) -> Iterator[ScanJob]:
    """Jobs of the pending files, which are appended to `under_way`: results come back in the same order."""
    height, width = data.img_size
    input_px = classifier.input_px if classifier is not None else 0
    here = os.getcwd()
    for one in store.pending(classifier is not None):
        under_way.append(one)
        yield ScanJob(os.path.join(here, one.path), height, width, data.fast_decode, one.expected, input_px, data.fit)


def _features(classifier: Any | None, block: list[tuple[Pending, Scanned]]) -> np.ndarray | None:
    """float32 (N, dim) of the block's decoded pictures."""
    inputs = [found.classifier_input for _, found in block if found.classifier_input is not None]
    if classifier is None or not inputs:
        return None
    parts = []
    for start in range(0, len(inputs), FEATURE_FILES):
        batch = np.zeros((FEATURE_FILES, classifier.input_px, classifier.input_px, 3), np.uint8)
        some = inputs[start : start + FEATURE_FILES]
        batch[: len(some)] = some
        parts.append(classifier.features(batch)[: len(some)])
    return np.concatenate(parts)


def feature_kind(classifier: Any) -> str:
    """Key of stored features: another network or input size means other features."""
    return f"{classifier.name} {getattr(classifier, 'features_sha256', classifier.sha256)} {classifier.input_px}"
