"""Runs trained by StudioGAN (here a stand-in): from scratch, resumed, fine-tuned."""

import json
from pathlib import Path

import pytest

import harness.native.train
from harness.checkpoints.checkpoint import load_state, read_meta
from harness.checkpoints.load import find_checkpoint
from harness.errors import UserError
from harness.storage.rundir import RunDir
from harness.studiogan.engine import finetune_run, train_run
from tests.harness.studiogan.engine_runs import StandIn, tiny_config, write_set
from tests.harness.tiny_runs import RUN, checkpoint_names, status, steps_logged


def file_times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_whole_run_leaves_what_the_native_engine_leaves(stand_in: StandIn) -> None:
    assert train_run(tiny_config(train__sample_every_steps=2)) == RUN
    assert status() | {"updated_at": ""} == {
        "state": "done", "step": 6, "total_steps": 6, "message": "", "updated_at": "",
    }  # fmt: skip
    assert checkpoint_names() == ["step-00000004", "step-00000006"]  # train.keep_last
    meta = read_meta(RUN / "checkpoints/step-00000006")
    assert meta["step"] == 6 and meta["class_names"] == ["ordinary", "concept"] and len(meta["data_sha256"]) == 64
    rows = RunDir(RUN).read_stats()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["d_loss"] for row in rows[:2]] == [2.0, 1.5] and rows[3]["g_loss"] == -0.25
    assert all(row["sec_per_step"] >= 0 for row in rows)
    assert {p.name for p in (RUN / "samples").iterdir()} == {
        "reals.png", "step-00000002.png", "step-00000004.png", "step-00000006.png",
    }  # fmt: skip
    assert (RUN / "curves.png").exists() and "Start training" in (RUN / "studiogan.log").read_text()
    environment = json.loads((RUN / "env.json").read_text())
    assert (environment["engine"], environment["studiogan"]) == ("studiogan", "0.2.0")
    assert not (RUN / "studiogan").exists() and not stand_in.left_running()


@pytest.mark.usefixtures("no_pictures")
def test_what_a_start_is_given(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    train_run(tiny_config(loss__lecam_lambda=0.2))
    (start,) = stand_in.starts
    job = start["job"]
    assert (job["seed"], job["first_step"], job["last_step"], job["checkpoint"]) == (42, 0, 6, None)
    assert (job["save_every"], job["print_every"], job["freeze_layers"], job["processes"]) == (2, 1, None, 1)
    assert job["lecam"] == {"type": "standard", "lambda": 0.2, "ema_decay": 0.99, "start_iter": 1000}
    assert job["optimizer"] == {"g_lr": 2e-4, "d_lr": 4e-4, "beta1": 0.0, "beta2": 0.9}
    # One picture of each class, in folders that sort as the labels do.
    valid = [name for name in start["files"] if "valid" in name]
    assert valid == ["data/CUSTOM/valid/0000/00000000.png", "data/CUSTOM/valid/0001/00000001.png"]
    assert "data/CUSTOM/custom_32_train.hdf5" in start["files"] and "config.json" in start["files"]
    assert "PYTHONPATH" not in start["environment"]
    assert not Path("data/hdf5/tiny/custom_32_train.hdf5").is_symlink()


@pytest.mark.usefixtures("no_pictures")
def test_a_limit_stops_and_the_same_command_goes_on(stand_in: StandIn) -> None:
    train_run(tiny_config(), limit_steps=3)
    assert (status()["state"], status()["step"]) == ("interrupted", 3)
    train_run(tiny_config(), limit_steps=3)  # nothing to do
    train_run(tiny_config())
    assert (status()["state"], status()["step"]) == ("done", 6)
    first, second = stand_in.starts
    assert (second["job"]["first_step"], second["job"]["checkpoint"]) == (3, "source")
    assert "source/model=G-current-weights-step=3.pth" in second["files"]
    # The first batches do not come again.
    assert first["job"]["seed"] == 42 != second["job"]["seed"]
    assert steps_logged() == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("no_pictures")
def test_the_native_engine_and_studiogan_go_on_from_each_other(stand_in: StandIn) -> None:
    quick = {"optim__d_updates_per_step": 1, "train__sample_every_steps": 100}
    harness.native.train.train_run(tiny_config(engine="native", **quick), limit_steps=2)
    train_run(tiny_config(**quick), limit_steps=4)
    assert stand_in.starts[0]["job"]["first_step"] == 2
    harness.native.train.train_run(tiny_config(engine="native", **quick))
    assert (status()["state"], status()["step"]) == ("done", 6)
    assert load_state(RUN / "checkpoints/step-00000006")["step"] == 6


@pytest.mark.usefixtures("no_pictures")
def test_fine_tuning_begins_at_the_source_and_leaves_it_alone(stand_in: StandIn) -> None:
    config = tiny_config()
    train_run(config)
    before = file_times(RUN)
    finetune_run(config, limit_steps=2)
    tuned = Path("runs/tiny-freezed")
    (first,) = stand_in.starts[1:]
    assert (first["job"]["first_step"], first["job"]["freeze_layers"], first["job"]["last_step"]) == (0, 2, 2)
    assert "source/model=D-current-weights-step=6.pth" in first["files"]
    assert not [name for name in first["files"] if "lecam" in name]  # anchors of other batches
    assert first["job"]["optimizer"]["g_lr"] == 1e-3
    meta = read_meta(tuned / "checkpoints/step-00000002")
    assert meta["finetuned_from"] == "runs/tiny/checkpoints/step-00000006"
    finetune_run(config)
    second = stand_in.starts[2]["job"]
    assert (second["first_step"], second["freeze_layers"], second["last_step"]) == (2, 2, 4)
    assert status("tiny-freezed")["state"] == "done"
    assert read_meta(tuned / "checkpoints/step-00000004")["finetuned_from"] == meta["finetuned_from"]
    assert file_times(RUN) == before
    with pytest.raises(
        UserError, match="was fine-tuned from runs/tiny/checkpoints/step-00000006, but .*00000004 is asked for"
    ):
        finetune_run(config, checkpoint="step-00000004")


@pytest.mark.usefixtures("no_pictures")
def test_its_own_figures_are_kept_under_names_that_say_whose_they_are(stand_in: StandIn) -> None:
    write_set("tiny", split="valid")
    train_run(tiny_config(studiogan__evaluate=True), limit_steps=4)
    history = [json.loads(line)["studiogan"] for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history] == [2, 4]
    assert history[0] == {
        "step": 2, "studiogan": "0.2.0", "split": "valid", "best": True, "studiogan_f8": 0.5, "studiogan_f1_8": 0.25,
        "studiogan_fid": 98.25, "studiogan_is": None, "studiogan_best_fid": 98.25,
    }  # fmt: skip
    assert RunDir(RUN).read_metrics()["studiogan"] == history[1]
    assert len([name for name in stand_in.starts[0]["files"] if "/valid/" in name]) == 12


@pytest.mark.usefixtures("no_pictures")
def test_what_it_found_best_is_kept(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set("tiny", split="valid")
    monkeypatch.setenv("STAND_IN_FID", "step")  # the lower the earlier
    train_run(tiny_config(studiogan__evaluate=True, train__keep_last=1))
    assert find_checkpoint(RUN / "checkpoints", "best").name == "step-00000002"
    assert {path.name for path in (RUN / "checkpoints").glob("step-*")} == {"step-00000002", "step-00000006"}
    # Evaluations of ours begin a record of their own, and note nothing that is not theirs.
    config = tiny_config(engine="native", evaluate__every_steps=7, optim__total_steps=7, studiogan__evaluate=True)
    harness.native.train.train_run(config)
    rows = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    assert [row["evaluate"]["step"] for row in rows if "evaluate" in row] == [7]
