"""Evaluation during training changes no weight, gives way to signals, and runs in one process for all."""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.native.train
from harness.checkpoints.checkpoint import best_checkpoint, list_checkpoints
from harness.errors import Interrupted, UserError
from harness.metrics import evaluate
from harness.metrics.evaluate import evaluate_run
from harness.native.train import train_run
from harness.runtime.dist import join_world, leave_world
from tests.harness.native.evaluated_runs import (
    CHECKPOINTS,
    EVALUATED,
    LAST,
    assert_same_training,
    evaluations,
    names,
    quick_config,
    steps_evaluated,
)
from tests.harness.runtime.test_dist import FEWER, run_ranks, train_rank
from tests.harness.sabotage import raising
from tests.harness.tiny_runs import status, step_after, tiny_config

# ---- the real evaluation ----------------------------------------------------------------------------------------


def test_evaluation_changes_no_weight_and_finds_what_the_command_finds(
    workplace: Path, uninterrupted: Callable[..., Path], no_pictures
) -> None:
    """Saves every 5, evaluates every 4 of 12 steps; optimisers and everything else in state.pt are compared too."""
    random_state = torch.get_rng_state()
    train_run(tiny_config(**EVALUATED, train__keep_last=9))
    assert torch.equal(random_state, torch.get_rng_state())
    assert_same_training(uninterrupted(train__keep_last=9) / "checkpoints/step-00000012", LAST)
    assert_same_training(uninterrupted(train__keep_last=9) / "checkpoints/step-00000010", CHECKPOINTS / "step-00000010")
    assert names() == ["04", "05", "08", "10", "12"] and steps_evaluated() == [4, 8, 12]
    rows = evaluations()
    assert all(row["figures"]["fd_reader"] > 0 and "kid_reader" in row["figures"] for row in rows), rows
    assert json.loads(Path("runs/tiny/metrics.json").read_text())["evaluate"] == rows[-1]
    lowest = min(rows, key=lambda row: row["figures"]["fd_reader"])
    assert best_checkpoint(CHECKPOINTS) == CHECKPOINTS / lowest["checkpoint"]

    assert {**evaluate_run("tiny", checkpoint="step-00000008"), "seconds": 0} == {**rows[1], "seconds": 0}
    assert evaluate_run("tiny", checkpoint="best")["step"] == lowest["step"]


def test_two_processes_evaluate_once(workplace: Path, no_pictures) -> None:
    changes = {**FEWER, **EVALUATED, "optim__total_steps": 4, "evaluate__every_steps": 2, "train__keep_last": 9}
    assert run_ranks(train_rank, changes) == [0, 0], Path("rank_0.txt").read_text()
    assert steps_evaluated() == [2, 4]
    Path("runs/tiny").rename("runs/evaluated")
    assert run_ranks(train_rank, {**changes, "evaluate__every_steps": 0}) == [0, 0]
    assert_same_training(Path("runs/evaluated/checkpoints/step-00000004"), CHECKPOINTS / "step-00000004")


def test_what_cannot_be_evaluated_is_refused_before_the_first_step(workplace: Path, no_pictures) -> None:
    with pytest.raises(UserError, match=r"valid.hdf5: not there.*make dataset"):
        train_run(tiny_config(evaluate__every_steps=4))
    assert not list_checkpoints(CHECKPOINTS)


# ---- signals and memory ----


def test_a_signal_ends_an_evaluation_which_comes_first_next_time(
    workplace: Path, uninterrupted: Callable[..., Path], no_pictures, monkeypatch
) -> None:
    real = evaluate.Evaluator._drawn_features

    def signalled(self: Any, *words: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *words)

    config = tiny_config(**EVALUATED)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Evaluator, "_drawn_features", signalled)
        with pytest.raises(Interrupted, match="saved at step 4"):
            train_run(config)
    assert steps_evaluated() == [] and names() == ["04"]
    assert status()["state"] == "interrupted"
    train_run(config, limit_steps=5)
    assert steps_evaluated() == [4]
    assert_same_training(uninterrupted(train__keep_last=9) / "checkpoints/step-00000005", CHECKPOINTS / "step-00000005")


def test_a_signal_during_a_step_does_not_wait_for_the_evaluation(
    workplace: Path, no_pictures, scripted, monkeypatch
) -> None:
    signalled = step_after(lambda done: done == 3 and os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patch:
        patch.setattr(harness.native.train, "train_step", signalled)
        patch.setattr(scripted, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
        with pytest.raises(Interrupted):
            train_run(quick_config(evaluate__every_steps=4))
    train_run(quick_config(evaluate__every_steps=4), limit_steps=5)
    assert steps_evaluated() == [4]


def test_out_of_memory_becomes_advice(workplace: Path, no_pictures, scripted, monkeypatch) -> None:
    monkeypatch.setattr(scripted, "evaluate", raising(torch.OutOfMemoryError("too much")))
    with pytest.raises(UserError, match="while evaluating step 4, which is saved; try --set evaluate.batch_size=64"):
        train_run(quick_config(evaluate__every_steps=4))
    assert names() == ["04"]


# ---- waiting ----------------------------------------------------------------------------------------------------


def waiting_rank(rank: int) -> None:
    """The first process is busy for longer than messages may take otherwise."""
    for name in ("init_process_group", "new_group"):
        real = getattr(torch.distributed, name)
        setattr(torch.distributed, name, partial(real, timeout=timedelta(seconds=2)))  # unless it is said otherwise
    world = join_world("cpu")
    world.on_rank0(lambda: time.sleep(4))
    leave_world(world)


def test_the_others_wait_as_long_as_the_first_process_evaluates(workplace: Path) -> None:
    assert run_ranks(waiting_rank) == [0, 0], Path("rank_1.txt").read_text()
