"""The stages of the demo: the name, command, outputs and expected time of each.

In: a `Config`. Out: commands to run, and the time left. Imports no torch.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.experiment import Config, base_name, finetune_config

RUNS = Path("runs")
# Finished stages tell the speed of this machine. So many seconds at the expected speed are added, so that one short
# stage, or one that found its work done, does not decide the estimate.
PRIOR_SEC = 60.0
MIN_SHARE_LEFT = 0.1  # of the time of a stage that has already taken longer than expected


@dataclass(frozen=True)
class Stage:
    """One command, which returns at once when its work is done and resumes when it was interrupted.

    Attributes:
        command: the arguments of the interpreter; `--config` and `--set` are added.
        expected_sec: on two idle cores, with configs/demo.yaml.
        outputs: paths that a finished stage has left.
    """

    name: str
    about: str
    command: tuple[str, ...]
    expected_sec: float
    outputs: Callable[[Config], list[Path]]

    def full_command(self, config_path: Path, overrides: Iterable[str]) -> list[str]:
        sets = [word for override in overrides for word in ("--set", override)]
        return [sys.executable, *self.command, "--config", str(config_path), *sets]


def run_folder(config: Config) -> Path:
    """The run of ordinary cars; the demo writes into it and beside it."""
    return RUNS / base_name(config)


def page_path(config: Config) -> Path:
    return run_folder(config) / "report.html"


def _packed_sets(config: Config) -> list[Path]:
    return [each.data.hdf5_path("train") for each in (config, finetune_config(config))]


def _inside(name: str) -> Callable[[Config], list[Path]]:
    return lambda config: [run_folder(config) / name]


def _encoder_files(config: Config) -> list[Path]:
    """An encoder that learned together with the generator is in the run's checkpoints, so its stage leaves figures."""
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
    """The same stages, with training started from the ready-made model."""
    more = {"train": ("--pretrained",)}
    return tuple(replace(stage, command=stage.command + more.get(stage.name, ())) for stage in stages)


def seconds_left(stages: Sequence[Stage], done_count: int, spent_sec: Mapping[str, float]) -> list[float]:
    """Estimated seconds left of each stage, 0 for the first `done_count`.

    Args:
        spent_sec: by name, of interrupted stages too.
    """
    done = stages[:done_count]
    taken = sum(spent_sec.get(stage.name, stage.expected_sec) for stage in done)
    slowdown = (taken + PRIOR_SEC) / (sum(stage.expected_sec for stage in done) + PRIOR_SEC)
    left = [0.0] * done_count
    for stage in stages[done_count:]:
        whole = stage.expected_sec * slowdown
        left.append(max(whole - spent_sec.get(stage.name, 0.0), MIN_SHARE_LEFT * whole))
    return left
