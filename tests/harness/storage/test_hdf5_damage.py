"""Damaged, truncated and foreign HDF5 files are refused in one line; a wrong pixel is reported with its row."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from harness.errors import UserError
from harness.storage import hdf5
from harness.storage.hdf5 import open_packed
from tests.harness.packing import ATTRIBUTES, CLASSES, pack, pictures_of, raw, refusal
from tests.refusals import refused


def flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 0x10]))


def test_a_flipped_byte_in_a_picture_names_its_row(tmp_path: Path):
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r") as file:
        offsets = {row: file["imgs"].id.get_chunk_info(row).byte_offset for row in (5, 66)}
    for offset in offsets.values():
        flip(path, offset + 17)
    assert "rows 5, 66: damaged" in refusal(path)
    with open_packed(path) as packed:
        with pytest.raises(UserError, match="rows 66: damaged"):
            packed.read(np.array([1, 66, 2, 66]))
        with pytest.raises(UserError, match="rows 5, 66: damaged"):
            packed.read()
        sound = np.array([k for k in range(70) if k not in offsets])
        assert np.array_equal(packed.read(sound), pictures_of(70)[sound])


def test_many_damaged_rows_are_counted(tmp_path: Path):
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r+") as file:
        file["imgs"][:30] = 0
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more: damaged" in refusal(path)


@pytest.mark.parametrize("key", ["labels", "row_sha256"])
def test_a_changed_label_or_hash_is_refused(key: str, tmp_path: Path):
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r+") as file:
        file[key][5] = 1 - file[key][5]
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    "key, value", [("class_names", '["a", "b"]'), ("resizer", "bicubic"), ("recipe", "{}"), ("new", 1)]
)
def test_a_changed_attribute_is_refused(key: str, value: object, tmp_path: Path):
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r+") as file:
        file.attrs[key] = value
    assert "damaged" in refusal(path)


def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path):
    content = pack(tmp_path / "x.hdf5").read_bytes()
    for length in [0, 1, 7, 8, 100, *range(500, len(content), len(content) // 20), len(content) - 1]:
        (tmp_path / "x.hdf5").write_bytes(content[:length])
        refusal(tmp_path / "x.hdf5")


def test_rows_that_are_declared_and_not_there_are_refused_before_any_is_read(tmp_path: Path, monkeypatch):
    """300 million rows in 40 KB: read, their labels and hashes would be 12 GB of zeros."""
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r+") as file:
        for key in ("imgs", "labels", "row_sha256"):
            file[key].resize(300_000_000, axis=0)
    monkeypatch.setattr(hdf5, "_read_whole", lambda file, key: pytest.fail(f"{key} was read"))
    found = refusal(path)
    assert f"300000000 rows declared, 98400000000 bytes, in {path.stat().st_size}" in found


def test_a_chunk_that_is_larger_than_the_file_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch):
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r+") as file:
        labels = file["labels"][()]
        del file["labels"]
        file.create_dataset("labels", data=labels, maxshape=(None,), chunks=(1 << 20,), compression="gzip")
    monkeypatch.setattr(hdf5, "_read_whole", lambda file, key: pytest.fail(f"{key} was read"))
    assert "70 rows declared" in refusal(path)


def test_no_structure_is_without_checksum(tmp_path: Path):
    """With older structures, or texts of variable length, one flipped byte in 3,000 makes HDF5 loop forever."""
    path = pack(tmp_path / "x.hdf5")
    assert path.read_bytes()[8] >= 2, "version of the superblock"
    with raw(path, "r") as file:
        lengths = {key: h5py.check_string_dtype(file.attrs.get_id(key).dtype) for key in file.attrs}
    assert all(info is None or info.length is not None for info in lengths.values())


def test_a_flipped_byte_anywhere_is_refused_or_harmless(tmp_path: Path):
    path, pictures = pack(tmp_path / "x.hdf5"), pictures_of(70)
    content = path.read_bytes()
    refused = 0
    for offset in np.random.default_rng(0).integers(0, len(content), 300).tolist():
        path.write_bytes(content)
        flip(path, offset)
        try:
            with open_packed(path) as packed:
                assert packed.count == 70 and packed.class_names == CLASSES and packed.attributes == ATTRIBUTES
                assert packed.labels.tolist() == [0, 1] * 35
                assert np.array_equal(packed.read(), pictures)
        except UserError:
            refused += 1
    assert refused > 100


def remade(path: Path, key: str, content: np.ndarray | None) -> Path:
    pack(path)
    with raw(path, "r+") as file:
        del file[key]
        if content is not None:
            file[key] = content
    return path


WRONG = [
    ("imgs", None, "no dataset 'imgs'"),
    ("labels", None, "no dataset 'labels'"),
    ("row_sha256", None, "no dataset 'row_sha256'"),
    ("imgs", np.zeros((70, 3, 8, 12), np.float32), "found float32 (70, 3, 8, 12), allowed uint8 (N, 3, H, W)"),
    ("imgs", np.zeros((70, 8, 12, 3), np.uint8), "allowed uint8 (N, 3, H, W)"),
    ("imgs", np.zeros((70, 3, 96), np.uint8), "allowed uint8 (N, 3, H, W)"),
    ("imgs", np.zeros((0, 3, 8, 12), np.uint8), "allowed 1 or more rows"),
    ("labels", np.zeros(70, np.int32), "allowed int64 (N)"),
    ("labels", np.zeros(69, np.int64), "allowed 70 rows"),
    ("row_sha256", np.zeros((71, 32), np.uint8), "allowed 70 rows"),
    ("row_sha256", np.zeros((70, 16), np.uint8), "allowed uint8 (N, 32)"),
]


@pytest.mark.parametrize("key, content, message", WRONG)
def test_another_layout_is_refused_with_what_is_allowed(
    key: str, content: np.ndarray | None, message: str, tmp_path: Path
):
    assert message in refusal(remade(tmp_path / "x.hdf5", key, content))


def test_another_version_is_refused(tmp_path: Path):
    path = pack(tmp_path / "x.hdf5")
    with raw(path, "r+") as file:
        file.attrs["schema_version"] = 0
    assert "found schema version 0, allowed 1" in refusal(path)
    with raw(path, "r+") as file:
        file.attrs["schema_version"] = 2
    with refused("x.hdf5", "newer version of Carforge (found format 2, allowed up to 1)") as message:
        open_packed(path)
    assert "make dataset" not in message[0]
    with raw(path, "r+") as file:
        del file.attrs["schema_version"]
    assert "not packed by Carforge" in refusal(path)


def test_what_is_no_packed_set_is_refused(tmp_path: Path):
    assert "not there" in refusal(tmp_path / "no.hdf5")
    assert "not there" in refusal(tmp_path)
    for name, content in (("empty", b""), ("text", b"hello" * 1000), ("zip", b"PK\x03\x04" + bytes(5000))):
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as HDF5" in refusal(tmp_path / name)
