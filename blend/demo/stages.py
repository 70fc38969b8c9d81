"""The stages of the demo: what each is called, runs, leaves, and about how long it takes.

In: a `Config`. Out: commands to run, and how much of the whole is left. Imports no torch.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.experiment import Config, base_name, finetune_config

RUNS = Path("runs")
# The pace of this machine is judged by what is done; so many seconds at the expected pace keep one short stage, or one
# whose work was there before, from saying too much.
PACE_PRIOR_SEC = 60.0
MIN_SHARE_LEFT = 0.1  # of a stage that has already taken longer than expected


@dataclass(frozen=True)
class Stage:
    """One command, which returns at once when its work is done and goes on where it was interrupted.

    Attributes:
        command: what follows the interpreter; `--config` and `--set` are added.
        expected_sec: on two idle cores, with configs/demo.yaml.
        leaves: what must be there for the stage to count as done.
    """

    name: str
    about: str
    command: tuple[str, ...]
    expected_sec: float
    leaves: Callable[[Config], list[Path]]

    def full_command(self, config_path: Path, overrides: Iterable[str]) -> list[str]:
        sets = [word for override in overrides for word in ("--set", override)]
        return [sys.executable, *self.command, "--config", str(config_path), *sets]


def run_folder(config: Config) -> Path:
    """The run of ordinary cars: all that the demo makes is beside it or in it."""
    return RUNS / base_name(config)


def page_path(config: Config) -> Path:
    return run_folder(config) / "report.html"


def _packed_sets(config: Config) -> list[Path]:
    return [each.data.hdf5_path("train") for each in (config, finetune_config(config))]


def _inside(name: str) -> Callable[[Config], list[Path]]:
    return lambda config: [run_folder(config) / name]


def _encoder_files(config: Config) -> list[Path]:
    """One that learned together with the generator lies in the run's own checkpoints; then its figures are left."""
    return [run_folder(config) / ("metrics.json" if config.reconstruction.apply else "encoder/checkpoints")]


STAGES = (
    Stage(
        "dataset",
        "ordinary and concept cars to learn from",
        ("-m", "datasets", "build", "--stage", "all"),
        165,
        _packed_sets,
    ),
    Stage("train", "learns to draw ordinary cars", ("-m", "harness", "train"), 565, _inside("checkpoints")),
    Stage(
        "finetune",
        "FreezeD on concept cars",
        ("-m", "harness", "finetune"),
        135,
        lambda config: [RUNS / finetune_config(config).name / "checkpoints"],
    ),
    Stage("encoder", "learns to read a picture back", ("-m", "blend", "encoder"), 12, _encoder_files),
    Stage("invert", "finds the latents of cars never seen", ("-m", "blend", "invert"), 50, _inside("inversions")),
    Stage(
        "measure",
        "turns cars futuristic step by step, and measures",
        ("-m", "blend", "measure"),
        60,
        _inside("blends/sweep"),
    ),
    Stage("blend", "mixes ordinary with concept cars", ("-m", "blend", "blend"), 10, _inside("blends")),
    Stage("gallery", "writes the page", ("-m", "blend", "gallery"), 6, lambda config: [page_path(config)]),
)


def start_from_pretrained(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The same stages, but training starts from the ready-made model."""
    more = {"train": ("--pretrained",)}
    return tuple(replace(stage, command=stage.command + more.get(stage.name, ())) for stage in stages)


def seconds_left(stages: Sequence[Stage], done_count: int, spent_sec: Mapping[str, float]) -> list[float]:
    """For each stage that is not done, about how long it still takes at the pace of those that are.

    Args:
        spent_sec: by name; of stages that were interrupted too.
    """
    done, open_stages = stages[:done_count], stages[done_count:]
    taken = sum(spent_sec.get(stage.name, stage.expected_sec) for stage in done)
    pace = (taken + PACE_PRIOR_SEC) / (sum(stage.expected_sec for stage in done) + PACE_PRIOR_SEC)
    wholes = [stage.expected_sec * pace for stage in open_stages]
    return [
        max(whole - spent_sec.get(stage.name, 0.0), MIN_SHARE_LEFT * whole)
        for stage, whole in zip(open_stages, wholes, strict=True)
    ]
