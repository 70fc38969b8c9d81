"""Checkpoints are written atomically, when killed at any file operation or on a full disk; damage is detected."""

import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

import harness.storage.atomic
from harness.checkpoints.checkpoint import (
    checkpoint_folder,
    disk_space_warning,
    list_checkpoints,
    load_state,
    load_weights,
    newest_checkpoint,
    newest_for_resume,
    purge_checkpoints,
    read_meta,
    save_checkpoint,
)
from harness.errors import UserError
from harness.storage.atomic import clean_leftovers
from harness.storage.cache import key_sha256
from tests.harness.sabotage import in_a_fork
from tests.harness.tiny_runs import assert_same_state, die_at_operation, file_hashes
from tests.refusals import refused


def save(checkpoints: Path, step: int, keep: int) -> None:
    """A checkpoint whose every number is `step`, then the purge."""
    numbers = {"a": torch.full((64, 32), float(step)), "b": torch.full((32, 3, 3, 3), float(step))}
    weights = {name: numbers for name in ("generator", "generator_ema", "discriminator")}
    state = {"step": step, "moments": torch.full((6000,), float(step))}
    save_checkpoint(checkpoint_folder(checkpoints, step), weights, state, {"step": step, "config": {"name": "x"}})
    purge_checkpoints(checkpoints, keep)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Two of them: steps 1 and 2."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (1, 2):
        save(folder, step, keep=2)
    return folder


def newest(checkpoints: Path) -> tuple[str | None, list[str]]:
    """Name of what a start would load, and what it says."""
    said: list[str] = []
    found = newest_checkpoint(checkpoints, said.append)
    return found and found.name, said


def test_what_somebody_else_has_put_there_is_no_checkpoint_and_stays(checkpoints: Path) -> None:
    shutil.copytree(checkpoint_folder(checkpoints, 2), checkpoints / "step-00000002-backup")
    (checkpoints / "step-00000001.tar").write_bytes(b"mine")
    (checkpoints / "step-00000009").write_bytes(b"a file")
    save(checkpoints, 3, keep=1)
    assert [folder.name for folder in list_checkpoints(checkpoints)] == ["step-00000003"]
    assert (checkpoints / "step-00000002-backup").is_dir() and (checkpoints / "step-00000001.tar").is_file()
    save(checkpoints, 100_000_000, keep=2)
    assert newest(checkpoints)[0] == "step-100000000"


def test_round_trip(checkpoints: Path) -> None:
    folder = checkpoint_folder(checkpoints, 2)
    assert_same_state(load_weights(folder, "generator_ema")["a"], torch.full((64, 32), 2.0))
    assert_same_state(load_state(folder), {"step": 2, "moments": torch.full((6000,), 2.0)})
    meta = read_meta(folder)
    assert meta["step"] == 2 and set(meta["sha256"]) == {*os.listdir(folder)} - {"meta.json"}
    with safe_open(folder / "generator.safetensors", "pt") as file:  # enough to use the generator alone
        assert json.loads(file.metadata()["carforge"]) == {"config": {"name": "x"}, "step": 2}
    assert newest(checkpoints) == ("step-00000002", [])


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        save(tmp_path / str(number), 1, keep=1)
    assert len({tuple(file_hashes(tmp_path / str(number)).items()) for number in range(8)}) == 1


# ---- killed and full --------------------------------------------------------------------------------------------


def test_killed_at_every_file_operation_of_a_save(checkpoints: Path, tmp_path: Path, monkeypatch) -> None:
    """Before each operation, and half-way through each write: what loads next is the old state or the new one."""
    monkeypatch.setattr(harness.storage.atomic, "WRITE_BYTES", 1024)
    (reference := tmp_path / "new").mkdir()
    save(reference, 3, keep=1)
    before, new = file_hashes(checkpoints), file_hashes(reference / "step-00000003")
    template = shutil.copytree(checkpoints, tmp_path / "template")
    outcomes, point, code = {"old": 0, "new": 0}, 0, 9
    while code == 9:
        point += 1
        code = in_a_fork(partial(die_at_operation, point), partial(save, checkpoints, 3, keep=1))
        name, said = newest(checkpoints)
        clean_leftovers(checkpoints)
        assert code in (0, 9) and said == [], (point, code, said)
        if name == "step-00000002":
            assert file_hashes(checkpoints) == before, point
            outcomes["old"] += 1
            continue
        assert name == "step-00000003" and file_hashes(checkpoints / name) == new, point
        for folder in list_checkpoints(checkpoints):  # a half-removed one has no true name
            read_meta(folder)
        assert all(folder.name.startswith("step-") for folder in checkpoints.iterdir())
        outcomes["new"] += 1
        shutil.rmtree(checkpoints)
        shutil.copytree(template, checkpoints)
    assert sum(outcomes.values()) >= 160 and outcomes["new"] >= 15, outcomes


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace", "rename", "mkdir"])
def test_an_operation_that_fails_loses_nothing(checkpoints: Path, monkeypatch, operation: str) -> None:
    """A full disk at the n-th write, no permission at the n-th file …: told as OSError, cleaned up, and mendable."""
    before, number = file_hashes(checkpoints), 0
    code = errno.ENOSPC if operation in ("write", "fsync") else errno.EACCES
    while True:
        number += 1
        calls, real = 0, getattr(os, operation)

        def failing(*words: Any, real=real, number=number, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(code, os.strerror(code))
            return real(*words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, operation, failing)
            try:
                save(checkpoints, 3, keep=9)
            except OSError as error:
                assert error.errno == code
        if calls < number:
            break
        if newest(checkpoints)[0] == "step-00000003":  # only making the new name durable failed
            shutil.rmtree(checkpoints / "step-00000003")
        assert file_hashes(checkpoints) == before, (operation, number)
        assert all(p.name.startswith("step-") for p in checkpoints.iterdir())
    assert newest(checkpoints) == ("step-00000003", []) and number > (1 if operation in ("rename", "mkdir") else 4)


# ---- damaged ----------------------------------------------------------------------------------------------------


def places(files: list[Path], count: int) -> list[tuple[Path, int]]:
    """So many bytes spread evenly over all files: (file, offset)."""
    sizes = [file.stat().st_size for file in files]
    result = []
    for place in torch.linspace(0, sum(sizes) - 1, count).long().tolist():
        for file, size in zip(files, sizes, strict=True):
            if place < size:
                result.append((file, place))
                break
            place -= size
    return result


def test_a_shortened_checkpoint_is_passed_over(checkpoints: Path) -> None:
    files = sorted(checkpoint_folder(checkpoints, 2).iterdir())
    few = [(file, length) for file, length in places(files, 20)] + [(file, file.stat().st_size - 1) for file in files]
    for file, length in few:
        content = file.read_bytes()
        file.write_bytes(content[:length])
        name, said = newest(checkpoints)
        assert name == "step-00000001" and len(said) == 1 and "step-00000002 cannot be used" in said[0], (file, length)
        file.write_bytes(content)
    assert newest(checkpoints) == ("step-00000002", [])


def test_a_flipped_byte_is_noticed(checkpoints: Path) -> None:
    files = sorted(checkpoint_folder(checkpoints, 2).iterdir())
    meta = next(file for file in files if file.name == "meta.json")
    few = places(files, 50) + places([meta], 50)
    assert {file for file, _ in few} == set(files)
    for number, (file, offset) in enumerate(few):
        content = bytearray(file.read_bytes())
        content[offset] ^= 1 << (number % 8)
        same = file == meta and _reads_the_same(bytes(content), meta)
        good = file.read_bytes()
        file.write_bytes(content)
        name, said = newest(checkpoints)
        assert same or (name == "step-00000001" and "step-00000002 cannot be used" in said[0]), (file, offset)
        file.write_bytes(good)


def _reads_the_same(content: bytes, meta: Path) -> bool:
    """A blank that became another blank."""
    try:
        return json.loads(content) == json.loads(meta.read_text())
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["generator.safetensors", "generator_ema.safetensors", "state.pt", "meta.json"])
def test_a_missing_file_is_noticed(checkpoints: Path, name: str) -> None:
    (checkpoint_folder(checkpoints, 2) / name).unlink()
    assert newest(checkpoints)[0] == "step-00000001"


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema_version": 1, "sha256": []}', "null", '"text"', "\xff"])
def test_a_strange_meta_is_no_checkpoint(checkpoints: Path, content: str) -> None:
    (checkpoint_folder(checkpoints, 2) / "meta.json").write_bytes(content.encode("latin-1"))
    assert newest(checkpoints)[0] == "step-00000001"


def write_version(folder: Path, version: int) -> None:
    meta = {**json.loads((folder / "meta.json").read_text()), "schema_version": version}
    del meta["meta_sha256"]
    (folder / "meta.json").write_text(json.dumps({**meta, "meta_sha256": key_sha256(meta)}))


def test_an_older_schema_version_is_told(checkpoints: Path) -> None:
    write_version(checkpoint_folder(checkpoints, 2), 0)
    assert "schema version 0, this program reads 1" in newest(checkpoints)[1][0]


def test_a_newer_version_is_neither_passed_over_nor_set_aside(checkpoints: Path) -> None:
    write_version(checkpoint_folder(checkpoints, 2), 2)
    before = file_hashes(checkpoints)
    for action in (newest_checkpoint, newest_for_resume):
        with refused("step-00000002", "newer version", "format 2, allowed up to 1", "update"):
            action(checkpoints, pytest.fail)
    assert file_hashes(checkpoints) == before


def test_room_is_asked_for_where_the_checkpoints_would_not_fit(checkpoints: Path, monkeypatch) -> None:
    there = sum(path.stat().st_size for path in checkpoints.rglob("*") if path.is_file())
    usage = SimpleNamespace(free=3 * 2**30 - there)  # of which three checkpoints of 1 GiB take all
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert disk_space_warning(checkpoints, 2**30, 2) is None
    usage.free -= 1
    told = disk_space_warning(checkpoints, 2**30, 2)
    assert told and told.count("GiB") == 2 and "3.00 GiB" in told and "train.keep_last" in told


def test_all_damaged_is_an_error_and_none_is_none(checkpoints: Path, tmp_path: Path) -> None:
    for folder in list_checkpoints(checkpoints):
        (folder / "state.pt").write_bytes(b"")
    with pytest.raises(UserError, match="all 2 checkpoints are damaged"):
        newest_checkpoint(checkpoints, lambda text: None)
    assert newest_checkpoint(tmp_path / "nothing", lambda text: None) is None


def test_damaged_ones_make_room(checkpoints: Path) -> None:
    """Left in place, a damaged newer one would outlive all good ones in the purge and block the next save."""
    for _ in range(2):  # the second time, an older damaged one has the name
        save(checkpoints, 3, keep=9)
        (checkpoint_folder(checkpoints, 3) / "state.pt").write_bytes(b"")
        newest_for_resume(checkpoints, lambda text: None)
        names = sorted(path.name for path in checkpoints.iterdir())
        assert names == ["damaged-step-00000003", "step-00000001", "step-00000002"]
    save(checkpoints, 3, keep=1)
    assert [path.name for path in list_checkpoints(checkpoints)] == ["step-00000003"]
    assert newest(checkpoints) == ("step-00000003", [])
