"""Cached arrays are made once and never read from a stale, damaged or unhashed file."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from harness.storage.cache import Arrays, cached, read_cached
from tests.harness.sabotage import raising

KEY = {"version": 1, "names": ["a", "ü\udcff"], "size": (32, 48), "lr": 0.1}
ARRAYS: Arrays = {
    "features": np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32),
    "view": np.arange(24.0).reshape(4, 6)[:, ::2].T,
    "labels": np.arange(3),
    "count": np.array(7),
    "none": np.zeros((0, 3), np.uint8),
}


class Making:
    """Counts how often arrays are really made."""

    def __init__(self, arrays: Arrays = ARRAYS) -> None:
        self.arrays, self.count = arrays, 0

    def __call__(self) -> Arrays:
        self.count += 1
        return self.arrays


def assert_same(found: Arrays) -> None:
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_made_once_and_the_same_ever_after(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, making = tmp_path / "new" / "kept.safetensors", Making()
    assert read_cached(path, KEY) is None
    for _ in range(2):
        assert_same(cached(path, KEY, making))
        assert_same(read_cached(path, dict(KEY)) or {})
    assert making.count == 1 and [file.name for file in path.parent.iterdir()] == ["kept.safetensors"]
    content = path.read_bytes()
    path.unlink()
    cached(path, KEY, making)
    assert path.read_bytes() == content and capsys.readouterr().err == ""


@pytest.mark.parametrize("change", [{"version": 2}, {"names": ["a"]}, {"more": None}])
def test_another_key_is_made_anew_without_a_word(tmp_path: Path, change: dict, capsys: pytest.CaptureFixture) -> None:
    path, making = tmp_path / "kept.safetensors", Making()
    cached(path, KEY, making)
    assert read_cached(path, {**KEY, **change}) is None
    cached(path, {**KEY, **change}, making)
    assert making.count == 2 and read_cached(path, KEY) is None and capsys.readouterr().err == ""


def test_a_damaged_file_is_never_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "kept.safetensors"
    cached(path, KEY, Making())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged[: rng.integers(len(whole))] if trial % 4 == 0 else damaged)
        making = Making()
        assert_same(cached(path, KEY, making))
        message = capsys.readouterr().err
        assert making.count == message.count("\n") == 1 and message.startswith(f"{path}: ") and "made again" in message
        assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_edited_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A whole file, its key the right one."""
    path = tmp_path / "kept.safetensors"
    cached(path, KEY, Making())
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    for edited in ({**ARRAYS, "count": np.array(8)}, {**ARRAYS, "more": np.zeros(1)}, {"count": np.array(7)}):
        safetensors.numpy.save_file({name: array.copy() for name, array in edited.items()}, path, metadata)
        assert read_cached(path, KEY) is None
        assert_same(cached(path, KEY, Making()))
        assert "sha256 differs" in capsys.readouterr().err


@pytest.mark.parametrize("metadata", [None, {"key": "0" * 64}, {"made_from": '{"version": 1}'}, {"made_from": "[]"}])
def test_a_file_without_a_hash_is_made_again_with_one_line(
    tmp_path: Path, metadata: dict | None, capsys: pytest.CaptureFixture
) -> None:
    path, making = tmp_path / "kept.safetensors", Making()
    safetensors.numpy.save_file({"count": np.array(7)}, path, metadata)
    assert read_cached(path, KEY) is None and capsys.readouterr().err == ""
    assert_same(cached(path, KEY, making))
    assert_same(cached(path, KEY, making))
    assert making.count == 1 and capsys.readouterr().err.count("\n") == 1


def test_nothing_is_kept_of_a_making_that_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache" / "kept.safetensors", KEY, raising(KeyboardInterrupt()))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_a_warning_where_it_only_saves_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, code: int
) -> None:
    """Root may write anywhere, so the disk's refusal is simulated."""
    path = tmp_path / "kept.safetensors"
    monkeypatch.setattr("harness.storage.cache.atomic_write", raising(OSError(code, os.strerror(code))))
    assert_same(cached(path, KEY, Making(), must_keep=False))
    assert capsys.readouterr().err == (
        f"warning: {path}: {os.strerror(code)}; not cached, so the next command computes it again\n"
    )
    with pytest.raises(OSError, match=os.strerror(code)):
        cached(path, KEY, Making())
