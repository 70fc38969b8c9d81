"""What belongs together: a run and its training set, a run and the one that was fine-tuned from it."""

import json
import shutil
from pathlib import Path

import pytest

from harness.checkpoints.checkpoint import newest_checkpoint, read_meta
from harness.checkpoints.load import load_run
from harness.checkpoints.origin import (
    accept_training_sets,
    check_finetuned_from,
    check_training_set,
    log_later_step,
    other_training_set_note,
)
from harness.config.experiment import load_config
from harness.errors import UserError
from harness.metrics.evaluate import evaluate_run, evaluate_with_reader
from harness.native.train import finetune_run, train_run
from harness.storage.rundir import RunDir
from tests.harness.native.test_train_elsewhere import NETWORKS, rewrite
from tests.harness.tiny_runs import tiny_config, write_set

SET = tiny_config().data.set
BASE, TUNED = RunDir(Path("runs/tiny")), RunDir(Path("runs/tiny-freezed"))


@pytest.fixture(autouse=True)
def tiny(workplace: Path, no_pictures: None) -> None:
    train_run(tiny_config(), limit_steps=2)


def meta_of(run: RunDir) -> dict:
    folder = newest_checkpoint(run.checkpoints, lambda text: None)
    assert folder is not None
    return read_meta(folder)


def checked() -> None:
    check_training_set(BASE, tiny_config().data, meta_of(BASE))


# ---- the training set -------------------------------------------------------------------------------------------


def test_a_set_that_was_rebuilt_is_refused_until_a_person_takes_it(capsys: pytest.CaptureFixture) -> None:
    trained_on = meta_of(BASE)["data_sha256"]
    checked()
    write_set(SET, seed=9)
    for measure in (checked, lambda: evaluate_run("tiny"), lambda: evaluate_with_reader("tiny", count=4)):
        with pytest.raises(
            UserError, match=f"found the set [0-9a-f]{{12}}, allowed {trained_on[:12]}, which runs/tiny"
        ):
            measure()
    accept_training_sets("tiny", "tiny-freezed")
    checked()
    note = other_training_set_note(BASE, meta_of(BASE))
    assert note.startswith("tiny is measured with the set ") and note.endswith(f"trained on {trained_on[:12]}.")
    write_set(SET, seed=10)
    with pytest.raises(UserError, match="found the set"):
        checked()
    write_set(SET)  # the first one comes back, and the run belongs to it again
    checked()
    assert other_training_set_note(BASE, meta_of(BASE)) == ""
    write_set(SET, seed=9)
    with pytest.raises(UserError, match="found the set"):
        checked()


def test_a_set_that_is_not_there_is_no_other_set() -> None:
    shutil.rmtree("data/hdf5")
    checked()
    assert other_training_set_note(BASE, meta_of(BASE)) == ""


def test_weights_from_elsewhere_belong_to_the_first_set_they_meet() -> None:
    rewrite(BASE.checkpoints / "step-00000002", NETWORKS, data_sha256=None)
    checked()
    write_set(SET, seed=9)
    with pytest.raises(UserError, match="found the set"):
        checked()


# ---- the run that it was fine-tuned from ------------------------------------------------------------------------


def descent() -> None:
    check_finetuned_from(BASE, TUNED, meta_of(TUNED))


def trained_anew() -> None:
    shutil.move("runs/tiny", "runs/old")
    train_run(tiny_config(), limit_steps=2)


def test_a_base_that_was_trained_anew_is_another_run() -> None:
    finetune_run(tiny_config(), limit_steps=1)
    descent()
    assert meta_of(TUNED)["finetuned_from_id"] == BASE.id == meta_of(BASE)["run_id"] != TUNED.id
    trained_anew()
    for use in (descent, lambda: finetune_run(tiny_config(), limit_steps=2)):
        with pytest.raises(
            UserError, match="tiny-freezed: was fine-tuned from another run than the present runs/tiny "
        ):
            use()
    shutil.rmtree("runs/tiny")  # a source that is gone is not another one
    finetune_run(tiny_config(), limit_steps=2)


def test_of_runs_without_an_id_the_source_checkpoint_decides() -> None:
    finetune_run(tiny_config(), limit_steps=1)
    folder = TUNED.checkpoints / "step-00000001"
    meta = {key: value for key, value in read_meta(folder).items() if key != "finetuned_from_id"}
    check_finetuned_from(BASE, TUNED, meta)
    with pytest.raises(UserError, match="was fine-tuned from another run"):
        check_finetuned_from(BASE, TUNED, {**meta, "finetuned_from_sha256": {"generator.safetensors": "0" * 64}})
    shutil.rmtree(BASE.checkpoints / "step-00000002")
    check_finetuned_from(BASE, TUNED, {**meta, "finetuned_from_sha256": {"generator.safetensors": "0" * 64}})


def test_a_later_step_of_the_same_base_is_said(capsys: pytest.CaptureFixture) -> None:
    finetune_run(tiny_config(), limit_steps=1)
    log_later_step(load_run("tiny"), load_run("tiny-freezed"))
    assert "fine-tuned from" not in capsys.readouterr().err
    train_run(tiny_config(), limit_steps=3)
    capsys.readouterr()
    log_later_step(load_run("tiny"), load_run("tiny-freezed"))
    assert capsys.readouterr().err == "runs/tiny: at step 3; tiny-freezed was fine-tuned from step 2\n"
    descent()


def test_an_earlier_run_gets_an_id_that_its_checkpoints_carry_on() -> None:
    first = BASE.id
    BASE.facts_path.unlink()
    assert BASE.id == first  # from its checkpoint
    for file in BASE.checkpoints.glob("*/meta.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "run_id": None}))
    BASE.facts_path.unlink()
    assert BASE.id not in (None, first) and BASE.id == json.loads(BASE.facts_path.read_text())["id"]


def test_checkpoints_of_another_run_are_refused() -> None:
    trained_anew()
    shutil.rmtree("runs/tiny/checkpoints")
    shutil.copytree("runs/old/checkpoints", "runs/tiny/checkpoints")
    with pytest.raises(UserError, match="step-00000002: found a checkpoint of another run"):
        train_run(tiny_config(), limit_steps=3)


# ---- a run's name is its folder's -------------------------------------------------------------------------------


def test_a_renamed_run_goes_on_under_its_folder_s_name() -> None:
    shutil.move("runs/tiny", "runs/other")
    config = load_config("runs/other/config.yaml")
    assert config.name == "other" and RunDir.existing("other").read_config().name == "other"
    assert train_run(config, limit_steps=3) == Path("runs/other")
    assert train_run(tiny_config(name="other"), limit_steps=4) == Path("runs/other")


def test_a_copy_that_named_itself_as_its_source_is_a_run_of_its_own() -> None:
    shutil.rmtree("runs/tiny")
    train_run(tiny_config(finetune__from_run="tiny"), limit_steps=1)
    shutil.copytree("runs/tiny", "runs/copy")
    config = RunDir.existing("copy").read_config()
    assert (config.name, config.finetune.from_run) == ("copy", None)
