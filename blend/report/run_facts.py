"""Facts of runs for the page. What is missing is None or left out.

In: `runs/` and the packed sets. Out: runs with their newest samples, and pictures of the sets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blend.designs.design_set import SWEEP_SET
from blend.report.design_rows import InversionPair, SavedDesign, read_sweeps
from blend.report.reading import RunFiles, dict_at, picture_or_none
from harness.config.experiment import Config
from harness.errors import UserError
from harness.storage.hdf5 import open_packed, spread_rows
from harness.storage.rundir import RunDir

GRID_GAP_PX = 2  # of a run's sample grids


@dataclass(frozen=True)
class RunFacts:
    """A run, or the folder of the encoder."""

    folder: Path
    config: Config | None
    status: dict[str, Any]
    env: dict[str, Any]
    stats: list[dict[str, Any]]
    checkpoint: dict[str, Any]  # meta.json of the newest
    samples: list[np.ndarray]  # uint8 (H, W, 3) each, of the newest grid
    evaluation: dict[str, Any]  # the newest, of metrics.json
    evaluations: list[dict[str, Any]]  # all of them, of metrics.jsonl

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows: both runs, and what is in the folder of the base run.

    Attributes:
        tuned_config: of the fine-tuned run, or what it would be.
    """

    folder: Path
    base: RunFacts
    tuned: RunFacts | None
    encoder: RunFacts | None
    config: Config
    tuned_config: Config
    metrics: dict[str, Any]
    inversions: list[InversionPair]
    designs: dict[str, list[SavedDesign]]

    @property
    def sweeps(self) -> list[list[SavedDesign]]:
        return read_sweeps(self.designs.get(SWEEP_SET, []))


# ---- runs -------------------------------------------------------------------------------------------------------


def read_facts(folder: Path, files: RunFiles) -> RunFacts | None:
    """None when there is no such folder."""
    run = RunDir(folder)
    if not folder.is_dir():
        return None
    try:
        config = run.read_config() if run.config_path.is_file() else None
    except UserError as error:  # such as one of a newer version
        files.add_damaged(run.config_path, error)
        config = None
    metas = [files.record(path / "meta.json") for path in sorted(run.checkpoints.glob("step-*"))]
    samples = _newest_samples(run, config) if config is not None else []
    latest = dict_at(files.record(run.metrics_path), "evaluate")
    history = [row for line in files.rows(run.metrics_history_path) if (row := dict_at(line, "evaluate"))]
    return RunFacts(
        folder, config, files.record(run.status_path), files.record(run.env_path), files.rows(run.stats_path),
        metas[-1] if metas else {}, samples, latest, history,
    )  # fmt: skip


def _newest_samples(run: RunDir, config: Config) -> list[np.ndarray]:
    """The pictures of the newest readable sample grid."""
    for path in sorted(run.samples.glob("step-*.png"), reverse=True):
        if (grid := picture_or_none(path)) is not None:
            return grid_tiles(grid, *config.data.img_size)[: config.train.sample_count]
    return []


def grid_tiles(grid: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """The pictures of a grid, uint8 (height, width, 3) each, row by row."""
    tops, lefts = (
        range(0, side - part + 1, part + GRID_GAP_PX) for side, part in zip(grid.shape, (height, width), strict=False)
    )
    return [grid[top : top + height, left : left + width] for top in tops for left in lefts]


def evenly_spread(path: Path, count: int) -> list[np.ndarray]:
    """Up to `count` pictures of a packed set; [] when it is unusable."""
    try:
        with open_packed(path) as packed:
            return list(packed.read(spread_rows(packed.count, count)))
    except UserError:
        return []
