"""Tiny runs that are evaluated while they train, and an evaluator that gives what a test wants."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.checkpoints.checkpoint import NETWORKS, list_checkpoints, load_state, load_weights
from harness.config.experiment import Config
from harness.native import evaluate_while_training
from tests.harness.tiny_runs import ONE_UPDATE, assert_same_state, tiny_config

LAST = Path("runs/tiny/checkpoints/step-00000012")
CHECKPOINTS = LAST.parent
# The tiny sets have no valid part. 60 pictures in all: enough for every figure.
EVALUATED = {"evaluate__every_steps": 4, "evaluate__split": "train", "evaluate__count": 20, "evaluate__batch_size": 8}


def evaluations(run: str = "tiny") -> list[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    path = Path(f"runs/{run}/metrics.jsonl")
    return [json.loads(line)["evaluate"] for line in path.read_text().splitlines()] if path.exists() else []


def steps_evaluated() -> list[int]:
    return [row["step"] for row in evaluations()]


def names() -> list[str]:
    return [folder.name[-2:] for folder in reversed(list_checkpoints(CHECKPOINTS))]


def assert_same_training(one: Path, other: Path) -> None:
    """Every weight, moment and anchor, bit for bit. (The files differ: the config, which says evaluate, is in them.)"""
    for network in NETWORKS:
        assert_same_state(load_weights(one, network), load_weights(other, network), network)
    assert_same_state(load_state(one), load_state(other))


def quick_config(**changes: Any) -> Config:
    return tiny_config(**ONE_UPDATE, optim__batch_size=2, **changes)


class ScriptedEvaluator:
    """In the place of the real one: the figure of each step as it stands here."""

    figures: dict[int, float | None] = {}
    name = "reader"
    sample_passes = 0

    def __init__(self, *_: Any) -> None:
        self.featurizer = SimpleNamespace(name=self.name)

    def evaluate(self, loaded: Any, stopped: Callable[[], bool]) -> dict[str, Any]:
        figure, name = self.figures[loaded.step], f"fd_{self.name}"
        key = {part: 1 for part in evaluate_while_training.COMPARED_KEYS} | {"extractor": self.name}
        key["sample_passes"] = self.sample_passes
        figures = {"kid_reader": 0.5} if figure is None else {name: figure}
        left_out = {name: "features: found 20 equal rows"} if figure is None else {}
        row = {"checkpoint": loaded.folder.name, "step": loaded.step, "figures": figures, "left_out": left_out, **key}
        return {**row, "seconds": time.perf_counter_ns()}  # no evaluation is another one
