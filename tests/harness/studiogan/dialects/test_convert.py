"""Reading a foreign file by its ending; rendering a run and its FreezeD run, with or without a packed set."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from harness.errors import UserError
from harness.studiogan.dialects.convert import config_to_020, count_classes, read_foreign, write_configs
from tests.harness.tiny_runs import make_config, pack_pictures

FREEZED = ("finetune.override={data: {set: concept}, optim: {g_lr: 2.5e-5, total_steps: 77}}",)
CONDITIONAL = ("model.g_cond_mtd=cBN", "model.d_cond_mtd=PD")


def pack(path: Path) -> None:
    """A set of two pictures, one of each class."""
    pack_pictures(path, np.zeros((2, 64, 64, 3), np.uint8), np.arange(2))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_and_its_freezed_run_before_anything_exists():
    paths = write_configs(make_config(*FREEZED, "optim.total_steps=99"))
    assert [str(path) for path in paths] == ["runs/run/studiogan.json", "runs/run-freezed/studiogan.json"]
    base, freezed = (json.loads(path.read_text()) for path in paths)
    assert base["train"]["optimization"]["total_step"] == 99 and base["data_processing"]["num_classes"] == 1
    assert freezed["train"]["optimization"]["total_step"] == 77 and freezed["train"]["optimization"]["g_lr"] == 2.5e-5
    assert [path.name for path in Path("runs/run").iterdir()] == ["studiogan.json"]


def test_the_shipped_recipes(tmp_path: Path):
    for file in ("base.yaml", "cars128.yaml", "cars128_seed.yaml", "cars128_freezed.yaml"):
        assert len(write_configs(make_config(file=file), tmp_path / file)) == 2


def test_yaml_for_0_4_0_in_a_folder_of_choice(tmp_path: Path):
    paths = write_configs(make_config("studiogan.version='0.4.0'", *FREEZED), tmp_path / "elsewhere")
    assert paths == [tmp_path / "elsewhere" / name / "studiogan.yaml" for name in ("run", "run-freezed")]
    assert yaml.safe_load(paths[1].read_text())["OPTIMIZATION"]["total_steps"] == 77


def test_classes_are_counted_in_the_packed_set():
    config = make_config(*CONDITIONAL, *FREEZED, "data.set=mine")
    with pytest.raises(UserError, match="data/hdf5/mine/custom_64_train.hdf5.*make dataset"):
        write_configs(config)
    pack(Path("data/hdf5/mine/custom_64_train.hdf5"))
    with pytest.raises(UserError, match="hdf5/concept/.*make dataset"):
        write_configs(config)
    assert not Path("runs").exists()  # both or none
    pack(Path("data/hdf5/concept/custom_64_train.hdf5"))
    for path in write_configs(config):
        assert json.loads(path.read_text())["data_processing"]["num_classes"] == 2
    assert count_classes(make_config("data.set=mine")) == 2 and count_classes(make_config("data.set=other")) == 1


def test_a_refusal_leaves_nothing_and_an_old_file_as_it_was():
    (path, _) = write_configs(make_config())
    before = path.read_bytes()
    with pytest.raises(UserError, match="optim.eps"):
        write_configs(make_config("finetune.override={optim: {eps: 1.0e-8}}", "optim.total_steps=5"))
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written():
    Path("runs").write_text("a file")
    with pytest.raises(UserError, match="runs/run/studiogan.json: cannot be written"):
        write_configs(make_config())


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path: Path):
    (tmp_path / "folder.json").mkdir()
    for name, text in (("a.json", "cannot read"), ("folder.json", "cannot read"), ("a.toml", "found .toml, allowed")):
        with pytest.raises(UserError, match=text):
            read_foreign(tmp_path / name)


BROKEN_JSON = (
    b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b"[" * 500 + b"]" * 500,
    b'{"data_processing": [1], "train": {"model": 3}}', b"9" * 5000, b" " * 1_000_001,
)  # fmt: skip
BROKEN_YAML = (
    b"", b"[]", b"DATA", b"DATA: [", b"\xff\xfe\x00", b"DATA: .nan", b"DATA: &a [*a]", b"DATA: 1\nDATA: 2",
    b"DATA: " + b"[" * 2000, b"? [a, b]\n: 1", b"DATA: {? {a: 1} : 2}", b"DATA: 2020-99-99",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"), [*(("a.json", text) for text in BROKEN_JSON), *(("a.yaml", text) for text in BROKEN_YAML)]
)
def test_broken_files_are_one_user_error(name: str, text: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UserError, match=name):
        read_foreign(tmp_path / name)


def test_a_file_becomes_a_config_of_its_name(tmp_path: Path):
    path = tmp_path / "DiffAugGAN(P).json"
    path.write_text(json.dumps(config_to_020(make_config("optim.d_updates_per_step=5"), 1)))
    config = read_foreign(path)
    assert (config.name, config.optim.d_updates_per_step) == ("DiffAugGAN-P", 5)
