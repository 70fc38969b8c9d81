"""Packed training sets: StudioGAN's HDF5 layout with a sha256 for every row and one for the whole set.

`custom_<size>_<split>.hdf5` is written atomically. Pictures are uint8 (H, W, 3) in memory and uint8 (3, H, W) in the
file, as StudioGAN 0.2.0 reads them (its src/data_utils/load_dataset.py).
"""

import hashlib
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from harness.config.class_choice import to_class_names
from harness.errors import UserError, reason_of, refuse_newer
from harness.storage.atomic import PARTIAL_SUFFIX, sync_and_rename

SCHEMA_VERSION = 1
LAYOUT = {
    "imgs": ("uint8", ("N", 3, "H", "W")),
    "labels": ("int64", ("N",)),
    "row_sha256": ("uint8", ("N", 32)),
}
OWN_ATTRIBUTES = ("schema_version", "class_names", "set_sha256")
BUFFER_ROWS, READ_ROWS = 64, 256
JSON_STARTS = ("{", "[")  # a text attribute that starts so is a dict or list
# HDF5 1.10 has checksums for its structures: in older formats one flipped byte can make the library loop forever. So it
# can in the heap of variable-length strings, hence attributes have a fixed length.
FILE_FORMAT = ("v110", "v110")
MAX_NAMED_ROWS = 10  # in a message
REBUILD = "build it again with `make dataset`"


class PackedWriter:
    """Writes one packed set: `with PackedWriter(...) as writer: writer.append(picture, label)`.

    `attributes`: text, numbers, and lists or dicts (stored as JSON). The file gets its name at the end of the block;
    before that, and after an error or a kill, there is at most `<path>.partial`.
    """

    def __init__(self, path: Path, height: int, width: int, class_names: list[str], attributes: dict[str, Any]) -> None:
        self.path, self.shape = Path(path), (3, height, width)
        self.partial = self.path.with_name(self.path.name + PARTIAL_SUFFIX)
        self.class_names, self.attributes = list(class_names), dict(attributes)
        self.count = 0
        self.buffer: list[tuple[np.ndarray, int, np.ndarray]] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = h5py.File(self.partial, "w", libver=FILE_FORMAT)
        except OSError as error:
            text = f"{self.path}: cannot be written ({reason_of(error)}); is another build running?"
            raise UserError(text) from error
        # Rows are read one at a time: one picture per chunk. Compressed chunks would be read 89x slower.
        self.imgs = self._growing("imgs", "uint8", self.shape, rows_per_chunk=1)
        self.labels = self._growing("labels", "int64", (), rows_per_chunk=1024)
        self.hashes = self._growing("row_sha256", "uint8", (32,), rows_per_chunk=256)

    def _growing(self, key: str, dtype: str, row: tuple[int, ...], rows_per_chunk: int) -> h5py.Dataset:
        chunks = (rows_per_chunk, *row)
        return self.file.create_dataset(key, (0, *row), dtype, maxshape=(None, *row), chunks=chunks)

    def append(self, picture: np.ndarray, label: int) -> None:
        """Adds uint8 (H, W, 3) RGB with the index of its class."""
        _, height, width = self.shape
        assert picture.dtype == np.uint8, picture.dtype
        assert picture.shape == (height, width, 3), picture.shape
        assert 0 <= label < len(self.class_names), label
        planes = picture.transpose(2, 0, 1).copy()
        self.buffer.append((planes, label, np.frombuffer(hashlib.sha256(planes.data).digest(), np.uint8)))
        if len(self.buffer) == BUFFER_ROWS:
            self._flush()

    def _flush(self) -> None:
        begin, self.count = self.count, self.count + len(self.buffer)
        if begin < self.count:
            for k, dataset in enumerate((self.imgs, self.labels, self.hashes)):
                dataset.resize(self.count, axis=0)
                dataset[begin:] = np.stack([row[k] for row in self.buffer])
        self.buffer = []

    def _write_attribute(self, key: str, value: Any) -> None:
        if isinstance(value, str):
            text = value.encode()
            self.file.attrs.create(key, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        else:
            self.file.attrs[key] = value

    def _finish(self) -> None:
        self._flush()
        if self.count == 0:
            raise UserError(f"{self.path}: found no picture to pack, allowed 1 or more; see the manifest")
        for key, value in self.attributes.items():
            nested = isinstance(value, dict | list)
            assert key not in OWN_ATTRIBUTES and (nested or str(value)[:1] not in JSON_STARTS), key
            self._write_attribute(key, json.dumps(value, sort_keys=True) if nested else value)
        self._write_attribute("schema_version", SCHEMA_VERSION)
        self._write_attribute("class_names", json.dumps(self.class_names))
        labels, hashes = _read_whole(self.file, "labels"), _read_whole(self.file, "row_sha256")
        attributes = _read_attributes(self.file)
        whole = set_sha256(self.shape, self.class_names, attributes, labels, hashes)
        self._write_attribute("set_sha256", whole)
        self.file.close()
        sync_and_rename(self.partial, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with suppress(OSError, RuntimeError):  # a full disk fails here a second time
                self.file.close()
            with suppress(OSError):
                os.unlink(self.partial)


class PackedSet:
    """A packed set, open for reading. Every read is compared with its sha256."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file = path, file
        _check_layout(path, file)
        self.imgs: Any = file["imgs"]
        self.count, _, self.height, self.width = self.imgs.shape
        written = json.loads(_read_attribute(file, "class_names"))
        self.class_names = to_class_names(written)
        self.attributes = _read_attributes(file)
        self.labels = _read_whole(file, "labels")
        self.row_sha256 = _read_whole(file, "row_sha256")
        self.sha256 = set_sha256((3, self.height, self.width), written, self.attributes, self.labels, self.row_sha256)
        if self.sha256 != _read_attribute(file, "set_sha256"):
            raise UserError(f"{path}: damaged (labels, hashes or attributes do not fit set_sha256); {REBUILD}")
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(outside):
            raise UserError(f"{path}: rows {_row_names(outside)}: label without a class name; {REBUILD}")

    def read(self, rows: np.ndarray | None = None) -> np.ndarray:
        """These rows in this order (None = all): uint8 (B, H, W, 3). A UserError names damaged rows."""
        rows = np.arange(self.count) if rows is None else np.asarray(rows)
        pictures, damaged = np.empty((len(rows), self.height, self.width, 3), np.uint8), []
        for begin in range(0, len(rows), READ_ROWS):
            block = rows[begin : begin + READ_ROWS]
            planes, bad = self._read_planes(block)
            for channel in range(3):  # three times as fast as one transposed copy
                pictures[begin : begin + READ_ROWS, :, :, channel] = planes[:, channel]
            damaged += bad
        self._refuse(damaged)
        return pictures

    def check(self) -> None:
        """Reads and verifies every row. A UserError names damaged rows."""
        blocks = np.array_split(np.arange(self.count), math.ceil(self.count / READ_ROWS))
        self._refuse([row for block in blocks for row in self._read_planes(block)[1]])

    def _read_planes(self, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """uint8 (B, 3, H, W) of the rows, and those that are damaged."""
        planes, damaged = np.zeros((len(rows), 3, self.height, self.width), np.uint8), []
        for k, row in enumerate(rows.tolist()):
            assert 0 <= row < self.count, row
            try:
                planes[k] = self.imgs[row]
            except (OSError, RuntimeError):  # the chunk cannot be found or read
                damaged.append(row)
                continue
            if hashlib.sha256(planes[k].data).digest() != self.row_sha256[row].tobytes():
                damaged.append(row)
        return planes, damaged

    def _refuse(self, damaged: list[int]) -> None:
        if damaged:
            rows = _row_names(sorted(set(damaged)))
            raise UserError(f"{self.path}: rows {rows}: damaged (sha256 differs); {REBUILD}")

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spread_rows(total: int, count: int) -> np.ndarray:
    """Up to `count` of 0 ... total - 1, evenly spread, both ends included."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


def open_packed(path: Path) -> PackedSet:
    """Opens a packed set and checks everything but the pictures' bytes. UserError if it cannot be used."""
    path = Path(path)
    if not path.is_file():
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        note = " (its building was interrupted)" if partial.exists() else ""
        raise UserError(f"{path}: not there{note}; {REBUILD}")
    file = None
    try:
        file = h5py.File(path, "r")
        return PackedSet(path, file)
    except Exception as error:  # a damaged HDF5 makes h5py raise nearly anything
        if file is not None:
            file.close()
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as HDF5 ({reason_of(error)}); {REBUILD}") from error


def set_sha256(
    shape: tuple[int, int, int],
    class_names: list[str],
    attributes: dict[str, Any],
    labels: np.ndarray,
    row_sha256: np.ndarray,
) -> str:
    """Hash of everything in a set, hex; it covers the pictures by their row hashes."""
    head = {"schema": SCHEMA_VERSION, "shape": shape, "class_names": class_names, "attributes": attributes}
    whole = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    whole.update(np.ascontiguousarray(labels, dtype="<i8").data)
    whole.update(np.ascontiguousarray(row_sha256).data)
    return whole.hexdigest()


def _read_attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes given to the writer, with lists and dicts parsed from JSON."""
    found: dict[str, Any] = {}
    for key in file.attrs:
        if key not in OWN_ATTRIBUTES:
            value = _read_attribute(file, key)
            found[key] = json.loads(value) if isinstance(value, str) and value[:1] in JSON_STARTS else value
    return found


def _read_attribute(file: h5py.File, key: str) -> Any:
    """An attribute as a Python str or number."""
    value: Any = file.attrs[key]
    value = value.item() if hasattr(value, "item") else value
    return value.decode() if isinstance(value, bytes) else value


def _read_whole(file: Any, key: str) -> np.ndarray:
    return file[key][()]


def _check_layout(path: Path, file: h5py.File) -> None:
    version = file.attrs.get("schema_version")
    if version is None:
        raise UserError(f"{path}: no schema_version, so it was not packed by Carforge; {REBUILD}")
    refuse_newer(path, version if version is None else int(version), SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: found schema version {version}, allowed {SCHEMA_VERSION}; {REBUILD}")
    count, declared_bytes = None, 0
    for key, (dtype, shape) in LAYOUT.items():
        dataset = file.get(key)
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f"{path}: found no dataset {key!r}, allowed {', '.join(LAYOUT)}; {REBUILD}")
        found = f"{path}: {key}: found {dataset.dtype} {dataset.shape}"
        fits = len(dataset.shape) == len(shape) and all(
            side == wanted or isinstance(wanted, str) for side, wanted in zip(dataset.shape, shape, strict=True)
        )
        if dataset.dtype != dtype or not fits:
            raise UserError(f"{found}, allowed {dtype} ({', '.join(map(str, shape))}); {REBUILD}")
        count = dataset.shape[0] if count is None else count
        if dataset.shape[0] != count or count == 0:
            raise UserError(f"{found}, allowed {count or '1 or more'} rows; {REBUILD}")
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
        declared_bytes += max(dataset.nbytes, chunk_bytes)  # HDF5 reads whole chunks
    # Nothing is compressed, so all bytes must be in the file; HDF5 would fill in missing rows silently.
    if declared_bytes > (file_bytes := path.stat().st_size):
        raise UserError(f"{path}: damaged ({count} rows declared, {declared_bytes} bytes, in {file_bytes}); {REBUILD}")


def _row_names(rows: Any) -> str:
    names = ", ".join(str(row) for row in rows[:MAX_NAMED_ROWS])
    return names if len(rows) <= MAX_NAMED_ROWS else f"{names} and {len(rows) - MAX_NAMED_ROWS} more"
