"""Starts of StudioGAN that are refused before anything is written; the contents of its working folder."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import harness.native.train
from harness.errors import UserError
from harness.storage.hdf5 import open_packed
from harness.storage.rundir import RunDir
from harness.storage.splits import open_evaluation_rows
from harness.studiogan import checkout, workdir
from harness.studiogan.engine import _check_weights, finetune_run, train_run
from harness.studiogan.preflight import ignored_keys, preflight, setup_to_job
from harness.studiogan.supervise import _add_missing_ema
from harness.studiogan.workdir import copy_channels_last, link_packed, make_workdir, write_valid
from tests.harness.packing import raw
from tests.harness.sabotage import fail_with
from tests.harness.studiogan.engine_runs import COUNT, StandIn, tiny_config, write_set
from tests.refusals import refusal_of


def refusal(stand_in: StandIn, **changes: Any) -> str:
    """The one line; nothing was started and no run folder made."""
    text = refusal_of(train_run, tiny_config(**changes))
    assert not stand_in.starts and not Path("runs").exists()
    return text


def test_a_missing_checkout_or_another_commit(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkout.COMMITS, "0.2.0", "0" * 40)
    assert "STUDIOGAN_HOME: found commit " in refusal(stand_in)
    monkeypatch.setenv("STUDIOGAN_HOME", "/nowhere")
    assert "found no StudioGAN in /nowhere, try `make studiogan`" in refusal(stand_in)


def test_a_wrong_environment(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'RuntimeError: operator torchvision::nms does not exist' >&2\nexit 1\n")
    python.chmod(stat.S_IRWXU)
    monkeypatch.setenv("STUDIOGAN_PYTHON", str(python))
    assert "torchvision::nms does not exist" in refusal(stand_in)
    monkeypatch.setenv("STUDIOGAN_PYTHON", "/nowhere")
    assert "STUDIOGAN_PYTHON: found no interpreter at /nowhere" in refusal(stand_in)


def test_pictures_that_it_cannot_draw(stand_in: StandIn) -> None:
    write_set("wide", width=40)
    text = refusal(stand_in, engine="native", data__set="wide", data__img_size=[32, 40])
    assert text.startswith("data.img_size: found 32x40, allowed squares")
    assert "holds 12 pictures, allowed sets of 16 or more" in refusal(stand_in, optim__batch_size=16)


def test_a_damaged_set(stand_in: StandIn) -> None:
    with raw(Path("data/hdf5/tiny/custom_32_train.hdf5"), "r+") as file:
        file["imgs"][3, 0, 0, 0] ^= 1
    assert "rows 3: damaged (sha256 differs)" in refusal(stand_in)


def test_too_many_frozen_blocks_or_processes(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="finetune.freeze_layers: found 4, allowed 1 to 3"):
        finetune_run(tiny_config(finetune__freeze_layers=4))
    with pytest.raises(UserError, match="optim.batch_size: found 4, allowed multiples of the 3 processes"):
        train_run(tiny_config(), processes=3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal(stand_in).startswith("NPROC: found 2, allowed 1 with engine: studiogan")


def test_lecam_that_0_4_0_does_not_have(stand_in: StandIn) -> None:
    changes = {"studiogan__version": "0.4.0", "loss__lecam_type": "gsrgan", "optim__d_updates_per_step": 1}
    assert refusal(stand_in, **changes).startswith("loss.lecam_type: found gsrgan")


def test_what_several_processes_cannot_do(stand_in: StandIn) -> None:
    with pytest.raises(UserError, match="^loss.lecam_type: found gsrgan, allowed standard with several processes"):
        train_run(tiny_config(loss__apply_lecam=True, loss__lecam_type="gsrgan"), processes=2)
    with pytest.raises(UserError, match="^studiogan.sync_bn: found true, allowed false on a CPU"):
        train_run(tiny_config(studiogan__sync_bn=True), processes=2)
    write_set("tiny", split="valid")
    with pytest.raises(UserError, match="^studiogan.evaluate: found true, and .* holds 12 pictures, allowed 2 to 7 of"):
        train_run(tiny_config(studiogan__evaluate=True, loss__lecam_type="standard"), processes=2)
    assert not stand_in.starts and not Path("runs").exists()


def test_a_class_without_a_picture_to_compare_with(stand_in: StandIn) -> None:
    write_set("tiny", split="valid", classes=1)
    told = "custom_32_valid.hdf5: holds no picture of concept, which StudioGAN's own evaluation needs"
    assert told in refusal(stand_in, studiogan__evaluate=True)


def test_weights_that_it_cannot_go_on_with(stand_in: StandIn) -> None:
    harness.native.train.train_run(tiny_config(model__g_cond_mtd="cBN", model__d_cond_mtd="PD"), limit_steps=1)
    source = Path("runs/tiny/checkpoints/step-00000001")
    config = tiny_config(model__g_cond_mtd="cBN", model__d_cond_mtd="PD")
    with open_packed(config.data.hdf5_path("train")) as packed:
        _check_weights(source, packed, config)
        packed.class_names.append("third")
        with pytest.raises(UserError, match=r"step-00000001: has 2 classes \(ordinary, concept\), allowed those of"):
            _check_weights(source, packed, config)
        (source / "discriminator.safetensors").unlink()
        with pytest.raises(UserError, match="step-00000001: has a generator only"):
            _check_weights(source, packed, config)


def test_a_source_without_a_moving_average_gets_one(tmp_path: Path) -> None:
    for name, content in (("G", "g"), ("D", "d")):
        (tmp_path / f"model={name}-current-weights-step=6.pth").write_text(content)
    _add_missing_ema(tmp_path)
    average = tmp_path / "model=G_ema-current-weights-step=6.pth"
    assert average.read_text() == "g" and len(list(tmp_path.iterdir())) == 3
    average.write_text("its own")
    _add_missing_ema(tmp_path)
    assert average.read_text() == "its own"


def test_a_set_that_is_not_the_runs_own(stand_in: StandIn) -> None:
    train_run(tiny_config(), limit_steps=2)
    write_set("tiny", seed=9)
    with pytest.raises(UserError, match="is not the training set of runs/tiny "):
        train_run(tiny_config())
    assert len(stand_in.starts) == 1


def test_keys_that_mean_nothing_to_it_are_named(stand_in: StandIn) -> None:
    assert ignored_keys(tiny_config()) == []
    config = tiny_config(train__precision="bf16", train__compile=True)
    assert ignored_keys(config) == ["train.precision=bf16", "train.compile=True"]
    train_run(config, limit_steps=1)
    assert "ignored by StudioGAN: train.precision=bf16" in Path("runs/tiny/log.txt").read_text()


def test_what_is_evaluated_is_saved(stand_in: StandIn) -> None:
    config = tiny_config(train__save_every_steps=4, evaluate__every_steps=6)
    with open_packed(config.data.hdf5_path("train")) as packed:
        setup = preflight(config, packed, freeze=False, processes=1)
    job = setup_to_job(setup, seed=1, first_step=0, last_step=6, has_source=False)
    assert job["save_every"] == 2
    assert Path(job["checkout"]).is_absolute()


# ---- the working folder -------------------------------------------------------------------------------------------


@pytest.fixture
def packed_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_set("tiny")


def test_the_set_for_0_4_0_is_channels_last(packed_set: Path, tmp_path: Path) -> None:
    with open_packed(packed_set) as packed:
        copy_channels_last(packed, tmp_path / "copy.hdf5")
        wanted, labels = packed.read(), packed.labels
    with raw(tmp_path / "copy.hdf5", "r") as file:
        imgs, kept = file["imgs"][:], file["labels"][:]
    assert imgs.dtype == np.uint8 and imgs.shape == (COUNT, 32, 32, 3) and np.array_equal(imgs, wanted)
    assert kept.dtype == np.int64 and np.array_equal(kept, labels)


def test_the_set_is_linked_or_where_that_cannot_be_pointed_to(
    packed_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_packed(packed_set, tmp_path / "hard")
    assert (tmp_path / "hard").samefile(packed_set) and not (tmp_path / "hard").is_symlink()
    monkeypatch.setattr(os, "link", fail_with(errno.EXDEV))
    link_packed(packed_set, tmp_path / "soft")
    assert (tmp_path / "soft").is_symlink() and (tmp_path / "soft").samefile(packed_set)


@pytest.mark.parametrize(("version", "name"), [("0.2.0", "custom_32"), ("0.4.0", "{}_32_wo_resize")])
def test_a_folder_is_fresh_and_has_the_layout_of_the_version(packed_set: Path, version: str, name: str) -> None:
    config = tiny_config(studiogan__version=version)
    rundir = RunDir.open(config)
    left = rundir.path / "studiogan/checkpoints/step-00000002"
    left.mkdir(parents=True)
    rendered = ("config.json", "{}") if version == "0.2.0" else ("config.yaml", "DATA: {name: cars}")
    with open_packed(packed_set) as packed:
        folder = make_workdir(rundir, config, packed, rendered)
    assert not left.exists() and (folder / rendered[0]).read_text() == rendered[1]
    assert (folder / f"data/CUSTOM/{name.format('cars')}_train.hdf5").is_file()
    assert len(list((folder / "data/CUSTOM/valid").glob("*/*.png"))) == 2


def test_pictures_to_measure_against_are_the_splits_own(packed_set: Path, tmp_path: Path) -> None:
    write_set("tiny", seed=5, split="valid")
    config = tiny_config(studiogan__evaluate=True)
    with open_packed(packed_set) as train, open_packed(config.data.hdf5_path("valid")) as valid:
        write_valid(config, train, tmp_path / "valid")
        write_valid(tiny_config(studiogan__evaluate=True, evaluate__split="train"), train, tmp_path / "train")
        for packed, folder in ((valid, tmp_path / "valid"), (train, tmp_path / "train")):
            files = sorted(folder.glob("*/*.png"), key=lambda path: path.name)
            assert [int(path.parent.name) for path in files] == packed.labels.tolist()
            assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in files]), packed.read())


def test_without_held_out_pictures_it_measures_against_a_sample(packed_set: Path, tmp_path: Path) -> None:
    config = tiny_config(studiogan__evaluate=True, data__valid_fraction=0.0)
    with open_packed(packed_set) as train, open_evaluation_rows(config.data) as sample:
        write_valid(config, train, tmp_path / "valid")
    names = sorted(path.stem for path in (tmp_path / "valid").glob("*/*.png"))
    assert names == [f"{row:08d}" for row in sample.rows] and len(names) == 2


def test_saves_are_found_whole_and_in_order(tmp_path: Path) -> None:
    for name in ("step-00000010", "step-00000002", "step-00000012.partial", "other"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [step for step, _ in workdir.list_saves(tmp_path)] == [2, 10]
    workdir.drop_saves(tmp_path, 2)
    assert [step for step, _ in workdir.list_saves(tmp_path)] == [10]
    assert workdir.list_saves(tmp_path / "nowhere") == []
