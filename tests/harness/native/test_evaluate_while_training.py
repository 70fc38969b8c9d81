"""Evaluation during training: the best checkpoint is kept, and every step is evaluated once."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import harness.native.train
import harness.storage.atomic
from harness.checkpoints.checkpoint import best_checkpoint, checkpoint_folder, read_meta, save_checkpoint
from harness.checkpoints.load import find_checkpoint
from harness.config.experiment import Config
from harness.errors import UserError
from harness.metrics.evaluate import evaluate_run
from harness.native import evaluate_while_training
from harness.native.evaluate_while_training import Evaluations
from harness.native.train import finetune_run, train_run
from harness.runtime.dist import World
from harness.runtime.run_life import run_life
from harness.storage.atomic import clean_leftovers
from harness.storage.rundir import RunDir
from tests.harness.native.evaluated_runs import CHECKPOINTS, evaluations, names, quick_config, steps_evaluated
from tests.harness.sabotage import in_a_fork
from tests.harness.tiny_runs import die_at_operation, tiny_config

# ---- the best one -----------------------------------------------------------------------------------------------


def test_the_best_and_the_newest_stay(workplace: Path, no_pictures, scripted) -> None:
    scripted.figures = {2: 5.0, 4: 3.0, 6: 4.0, 8: 3.0, 10: None, 12: 3.5}
    config = quick_config(evaluate__every_steps=2, train__keep_last=1, train__save_every_steps=1)
    stays = {2: ["02"], 3: ["02", "03"], 5: ["04", "05"], 8: ["04", "08"], 11: ["04", "11"], 12: ["04", "12"]}
    for step, expected in stays.items():
        train_run(config, limit_steps=step)
        assert names() == expected
    assert find_checkpoint(CHECKPOINTS, "best").name == "step-00000004"  # of equal ones the earliest
    assert steps_evaluated() == [2, 4, 6, 8, 10, 12]
    assert (
        "fd_reader is left out: features: found 20 equal rows; best: step-00000004"
        in Path("runs/tiny/log.txt").read_text()
    )


def test_finetuning_starts_from_the_best(workplace: Path, no_pictures, scripted) -> None:
    scripted.figures = {2: 1.0, 4: 2.0, 6: 3.0}
    with pytest.raises(UserError, match=r"no checkpoint|found no runs/tiny|no best one"):
        finetune_run(quick_config(), checkpoint="best", limit_steps=1)
    train_run(quick_config(evaluate__every_steps=2, train__keep_last=1), limit_steps=6)
    finetune_run(quick_config(), checkpoint="best", limit_steps=1)
    meta = read_meta(Path("runs/tiny-freezed/checkpoints/step-00000001"))
    assert meta["finetuned_from"] == "runs/tiny/checkpoints/step-00000002"
    finetune_run(quick_config(), checkpoint="best", limit_steps=2)  # the same command resumes


def test_figures_of_another_kind_start_anew(workplace: Path, no_pictures, scripted) -> None:
    config = quick_config(evaluate__every_steps=2, train__keep_last=1)
    scripted.figures = {2: 1.0, 4: 2.0, 6: 30.0, 8: 40.0}
    train_run(config, limit_steps=4)
    assert best_checkpoint(CHECKPOINTS) == CHECKPOINTS / "step-00000002"
    scripted.name = "inception-unverified"
    train_run(config, limit_steps=8)
    assert steps_evaluated() == [2, 4, 4, 6, 8]  # the step that it stands at has no figure of this kind yet
    assert best_checkpoint(CHECKPOINTS) == CHECKPOINTS / "step-00000004" and names() == ["04", "08"]


def test_figures_of_other_samples_start_anew_and_earlier_versions_had_none(
    workplace: Path, no_pictures, scripted, monkeypatch
) -> None:
    scripted.figures = {2: 3.0, 4: 4.0, 6: 5.0}
    config = quick_config(evaluate__every_steps=2, optim__total_steps=6)
    train_run(config, limit_steps=2)
    record = json.loads((CHECKPOINTS / "best.json").read_text())
    del record["key"]["sample_passes"]
    (CHECKPOINTS / "best.json").write_text(json.dumps(record))
    train_run(config, limit_steps=4)
    assert json.loads((CHECKPOINTS / "best.json").read_text())["history"] == [[2, 3.0], [4, 4.0]]
    monkeypatch.setattr(scripted, "sample_passes", 2)
    train_run(config)
    assert json.loads((CHECKPOINTS / "best.json").read_text())["history"] == [[6, 5.0]]


def test_the_last_step_is_evaluated_wherever_it_is(workplace: Path, no_pictures, scripted) -> None:
    train_run(quick_config(evaluate__every_steps=5))
    assert steps_evaluated() == [5, 10, 12]


# ---- interrupted ------------------------------------------------------------------------------------------------


def test_no_step_is_evaluated_twice(workplace: Path, no_pictures, scripted) -> None:
    config = quick_config(evaluate__every_steps=3, train__save_every_steps=2)
    for cut in (1, 2, 3, 3, 5, 6, 7, 12, 12):
        train_run(config, limit_steps=cut)
    assert steps_evaluated() == [3, 6, 9, 12]


def test_an_evaluation_that_was_cut_short_is_made_up_for(workplace: Path, no_pictures, scripted, monkeypatch) -> None:
    real = scripted.evaluate
    config = quick_config(evaluate__every_steps=4, optim__total_steps=8)
    for step in (4, 8):

        def killed(self: Any, loaded: Any, step: int = step, **words: Any) -> dict[str, Any]:
            if loaded.step == step:
                raise SystemExit(9)
            return real(self, loaded, **words)

        with monkeypatch.context() as patch:
            patch.setattr(scripted, "evaluate", killed)
            with pytest.raises(SystemExit):
                train_run(config)
        assert names()[-1] == f"0{step}" and steps_evaluated() == [4] * (step == 8)
    train_run(config)  # nothing left to train
    assert steps_evaluated() == [4, 8]


def test_a_damaged_best_one_is_set_aside(workplace: Path, no_pictures, scripted, capsys) -> None:
    scripted.figures = {2: 1.0, 4: 3.0, 6: 2.0, 8: 4.0}
    config = quick_config(evaluate__every_steps=2, train__keep_last=2, train__save_every_steps=2)
    train_run(config, limit_steps=6)
    assert names() == ["02", "04", "06"]
    (CHECKPOINTS / "step-00000002/state.pt").write_bytes(b"")
    with pytest.raises(UserError, match="step-00000002: cannot be used"):
        evaluate_run("tiny", checkpoint="best")
    train_run(config, limit_steps=8)
    assert "best checkpoint, step-00000002, cannot be used" in capsys.readouterr().err
    assert best_checkpoint(CHECKPOINTS) == CHECKPOINTS / "step-00000006" and names() == ["06", "08"]


def test_what_was_lost_is_evaluated_again(workplace: Path, no_pictures, scripted) -> None:
    scripted.figures = {2: 3.0, 4: 1.0, 6: 2.0}
    config = quick_config(evaluate__every_steps=2)
    train_run(config, limit_steps=4)
    shutil.rmtree(CHECKPOINTS / "step-00000004")
    scripted.figures = {2: 3.0, 4: 5.0, 6: 4.0}
    train_run(config, limit_steps=6)
    assert steps_evaluated() == [2, 4, 4, 6] and best_checkpoint(CHECKPOINTS) == CHECKPOINTS / "step-00000002"


def test_an_unreadable_record_is_told(workplace: Path, no_pictures, scripted) -> None:
    train_run(quick_config(evaluate__every_steps=2), limit_steps=2)
    (CHECKPOINTS / "best.json").write_text("{")
    with pytest.raises(UserError, match="best.json: is damaged .* remove it"):
        train_run(quick_config(evaluate__every_steps=2), limit_steps=4)
    (CHECKPOINTS / "best.json").unlink()
    train_run(quick_config(evaluate__every_steps=2), limit_steps=4)


# ---- killed at every file operation -----------------------------------------------------------------------------


def save(step: int) -> None:
    weights = {"generator": {"a": torch.full((8, 4), float(step))}}
    save_checkpoint(checkpoint_folder(CHECKPOINTS, step), weights, {"step": step}, {"step": step, "config": {}})


def start(config: Config, step: int) -> None:
    """What a start does with the evaluations of a run that stands at this step."""
    run: Any = SimpleNamespace(
        config=config, world=World(), step=step, hardware=SimpleNamespace(device=torch.device("cpu"))
    )
    with run_life(RunDir(Path("runs/tiny"))) as life:
        Evaluations(run, life).evaluate_if_due()


@pytest.mark.parametrize("figure", [1.0, 9.0], ids=["better", "worse"])
def test_killed_at_every_file_operation_of_an_evaluation(tmp_path: Path, monkeypatch, scripted, figure: float) -> None:
    """Steps 2 and 4 are done, 6 is evaluated. The best (2, or 6 when better) and the newest are always there, and
    after the next start every step has its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        evaluate_while_training,
        "load_checkpoint",
        lambda folder, device: SimpleNamespace(folder=folder, step=read_meta(folder)["step"]),
    )
    monkeypatch.setattr(harness.storage.atomic, "WRITE_BYTES", 256)
    scripted.figures = {2: 3.0, 4: 4.0, 6: figure}
    config = tiny_config(evaluate__every_steps=2, train__keep_last=1)
    CHECKPOINTS.mkdir(parents=True)
    for step in (2, 4):
        save(step)
        start(config, step)
    save(6)
    template = shutil.copytree("runs", tmp_path / "template")
    outcomes, point, code = set(), 0, 9
    while code == 9:
        point += 1
        shutil.rmtree("runs")
        shutil.copytree(template, "runs")
        code = in_a_fork(partial(die_at_operation, point), partial(start, config, 6))
        found = best_checkpoint(CHECKPOINTS)
        assert found is not None and read_meta(found)["step"] in ((2, 6) if figure == 1.0 else (2,)), point
        assert read_meta(CHECKPOINTS / "step-00000006"), point
        outcomes.add((found.name, tuple(steps_evaluated())))

        clean_leftovers(CHECKPOINTS)
        clean_leftovers(CHECKPOINTS.parent)
        start(config, 6)
        assert steps_evaluated() == [2, 4, 6], point
        assert json.loads(Path("runs/tiny/metrics.json").read_text())["evaluate"] == evaluations()[-1], point
        assert best_checkpoint(CHECKPOINTS) == checkpoint_folder(CHECKPOINTS, 6 if figure == 1.0 else 2), point
        assert not [path for path in Path("runs").rglob("*") if ".tmp-" in path.name], point
    assert code == 0 and point > 30 and len(outcomes) >= 2, (code, point, outcomes)
