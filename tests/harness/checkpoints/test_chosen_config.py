"""`--config` or `--run`: which experiment a command works on, and which keys may change beside `--run`."""

import shutil
from pathlib import Path

import pytest

from harness.checkpoints.chosen_config import chosen_config, find_run, to_base_run
from harness.config.experiment import config_to_yaml
from harness.storage.rundir import RunDir
from tests.harness.tiny_runs import tiny_config
from tests.refusals import refused


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    RunDir.open(tiny_config())


def test_a_run_stands_for_the_config_that_it_was_made_with():
    Path("tiny.yaml").write_text(config_to_yaml(tiny_config()))
    assert chosen_config(None, "tiny") == chosen_config(Path("tiny.yaml"), None) == tiny_config()


@pytest.mark.parametrize("config, run, found", [(None, None, "neither"), (Path("configs/demo.yaml"), "tiny", "both")])
def test_one_of_the_two_is_needed(config, run, found):
    with refused(f"found {found} of --config and --run", "try --config"):
        chosen_config(config, run)


def test_a_run_that_is_not_there_is_refused_with_those_that_are():
    with refused("found no runs/other/config.yaml, allowed tiny"):
        chosen_config(None, "other")


def test_keys_that_training_does_not_depend_on_may_change_beside_a_run():
    changed = chosen_config(None, "tiny", ["blend.pairs=3", "reconstruction.sample_passes=2"])
    assert (changed.blend.pairs, changed.reconstruction.sample_passes) == (3, 2)


def test_a_key_that_the_run_was_trained_with_may_not_change():
    with refused("model.z_dim: found a new value, but runs/tiny was trained with", "blend.*", "--set name="):
        chosen_config(None, "tiny", ["model.z_dim=99"])
    assert chosen_config(None, "tiny", ["model.z_dim=99"], training=True).model.z_dim == 99  # RunDir.open refuses it


def test_a_fine_tuned_run_stands_for_its_base_run():
    assert (to_base_run("tiny-freezed"), to_base_run("other-freezed"), to_base_run("tiny")) == (
        "tiny",
        "other-freezed",
        "tiny",
    )
    assert to_base_run(None) is None


def test_the_ready_made_model_is_opened_where_its_run_is_missing():
    assert find_run("pretrained").config_path.is_file()
    assert chosen_config(None, "pretrained").name == "pretrained"
