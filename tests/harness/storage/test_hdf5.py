"""Packed sets are complete or absent, and every read is verified."""

import errno
import os
import resource
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.storage.hdf5 import PackedWriter, open_packed
from tests.harness.packing import ATTRIBUTES, CLASSES, pack, pictures_of, raw, refusal
from tests.harness.sabotage import fail_with, in_a_fork


@pytest.mark.parametrize("height, width", [(8, 8), (8, 12), (16, 10)])
def test_what_goes_in_comes_out(height: int, width: int, tmp_path: Path):
    path = pack(tmp_path / "new" / "x.hdf5", 70, height, width)
    pictures = pictures_of(70, height, width)
    assert os.listdir(path.parent) == ["x.hdf5"]
    with open_packed(path) as packed:
        assert (packed.path, packed.count, packed.height, packed.width) == (path, 70, height, width)
        assert packed.class_names == CLASSES and packed.attributes == ATTRIBUTES
        assert packed.labels.dtype == np.int64 and packed.labels.tolist() == [0, 1] * 35
        assert len(packed.sha256) == 64
        packed.check()
        everything = packed.read()
        assert everything.dtype == np.uint8 and np.array_equal(everything, pictures)
        assert everything.flags["C_CONTIGUOUS"]
        rows = np.array([69, 3, 3, 0, 64])
        assert np.array_equal(packed.read(rows), pictures[rows])
        assert packed.read(np.array([], int)).shape == (0, height, width, 3)


def test_studiogan_finds_its_contract(tmp_path: Path):
    with raw(pack(tmp_path / "x.hdf5"), "r") as file:
        imgs, labels = file["imgs"][:], file["labels"][:]
        chunks, compression = file["imgs"].chunks, file["imgs"].compression
    assert imgs.shape == (70, 3, 8, 12) and imgs.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(imgs, pictures_of(70).transpose(0, 3, 1, 2))
    assert chunks == (1, 3, 8, 12) and compression is None


def test_the_hash_is_of_everything(tmp_path: Path):
    def packed_hash(count: int = 5, label: int = 0, classes: list[str] = CLASSES, **attributes: object) -> str:
        path = tmp_path / "x.hdf5"
        with PackedWriter(path, 8, 12, classes, attributes) as writer:
            for picture in pictures_of(count):
                writer.append(picture, label)
        with open_packed(path) as packed:
            return packed.sha256

    hashes = [packed_hash(), packed_hash(6), packed_hash(label=1), packed_hash(classes=["a", "b"]), packed_hash(a=1)]
    assert len(set(hashes)) == 5 and packed_hash() == hashes[0]


def test_many_classes_fit(tmp_path: Path):
    names = [f"class {k} {'x' * 40}" for k in range(3000)]  # more than the 64 KiB of an HDF5 header message
    with PackedWriter(tmp_path / "x.hdf5", 8, 8, names, {}) as writer:
        writer.append(pictures_of(1, 8, 8)[0], 2999)
    with open_packed(tmp_path / "x.hdf5") as packed:
        assert packed.class_names == names


def test_names_of_an_older_set_come_in_the_one_form_and_its_hash_stays(tmp_path: Path):
    with PackedWriter(tmp_path / "x.hdf5", 8, 8, ["caf\udce9", "Citroe\u0308n"], {}) as writer:
        writer.append(pictures_of(1, 8, 8)[0], 0)
    with open_packed(tmp_path / "x.hdf5") as packed:
        assert packed.class_names == ["caf\u00e9", "Citro\u00ebn"]


# ---- interrupted writing ----


def test_a_kill_between_appends_leaves_no_file_and_the_next_build_is_equal(tmp_path: Path):
    with open_packed(pack(tmp_path / "whole.hdf5")) as packed:
        expected = packed.sha256
    path = tmp_path / "x.hdf5"
    for at in [*range(0, 71, 7), 63, 64, 65, 69, 70]:

        def die(k: int, at: int = at) -> None:
            if k == at:
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_a_fork(lambda die=die: pack(path, before=die)) == -signal.SIGKILL
        assert not path.exists()
        assert "interrupted" in refusal(path)
    with open_packed(pack(path)) as packed:
        assert packed.sha256 == expected
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_kill_at_the_end_leaves_the_old_file(operation: str, tmp_path: Path):
    path = pack(tmp_path / "x.hdf5", 3)
    killing = partial(setattr, os, operation, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    assert in_a_fork(killing, partial(pack, path, 5)) == -signal.SIGKILL
    with open_packed(path) as packed:
        assert packed.count == 3


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_an_error_at_the_end_leaves_the_old_file(operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = pack(tmp_path / "x.hdf5", 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, operation, fail_with(errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            pack(path, 5)
    assert os.listdir(tmp_path) == ["x.hdf5"]
    with open_packed(path) as packed:
        assert packed.count == 3


def test_a_file_that_may_not_grow_is_an_error_and_leaves_none(tmp_path: Path):
    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # as a full disk: the write fails
        try:
            pack(tmp_path / "x.hdf5", 700, 32, 32)
        except OSError:
            os._exit(28)  # at once: HDF5 cannot close a file that it could not write

    assert in_a_fork(act) == 28
    assert os.listdir(tmp_path) == []


def test_an_error_in_the_block_leaves_none(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), PackedWriter(tmp_path / "x.hdf5", 8, 12, CLASSES, {}) as writer:
        writer.append(pictures_of(1)[0], 0)
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_no_picture_is_no_set(tmp_path: Path):
    with pytest.raises(UserError, match="found no picture"), PackedWriter(tmp_path / "x.hdf5", 8, 12, CLASSES, {}):
        pass
    assert os.listdir(tmp_path) == []


def test_two_builds_of_one_file_do_not_mix(tmp_path: Path):
    with PackedWriter(tmp_path / "x.hdf5", 8, 12, CLASSES, {}) as writer:
        writer.append(pictures_of(1)[0], 0)
        with pytest.raises(UserError, match="another build"):
            PackedWriter(tmp_path / "x.hdf5", 8, 12, CLASSES, {})
    with open_packed(tmp_path / "x.hdf5") as packed:
        assert packed.count == 1


@pytest.mark.parametrize(
    "picture, label",
    [
        (np.zeros((12, 8, 3), np.uint8), 0),
        (np.zeros((8, 12, 3), np.float32), 0),
        (np.zeros((8, 12, 4), np.uint8), 0),
        (np.zeros((8, 12, 3), np.uint8), 2),
        (np.zeros((8, 12, 3), np.uint8), -1),
    ],
)
def test_other_pictures_are_our_bug(picture: np.ndarray, label: int, tmp_path: Path):
    with pytest.raises(AssertionError), PackedWriter(tmp_path / "x.hdf5", 8, 12, CLASSES, {}) as writer:
        writer.append(picture, label)
