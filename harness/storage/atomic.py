"""Atomic writes: files and folders exist completely or not at all, whenever the process is killed.

Always temporary name → fsync → rename → fsync of the folder. Every operation is called as an attribute of `os`
(`os.write`, `os.replace` …), so that tests can fail or kill the process at each of them.
"""

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

WRITE_BYTES = 1 << 20  # per os.write, so that signals are handled soon
TEMP_PREFIX, PARTIAL_SUFFIX = ".tmp-", ".partial"


class _OsWriter(io.RawIOBase):
    """Unbuffered file over a descriptor, without fileno(), so that libraries cannot bypass os.write."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.position = descriptor, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def write(self, content) -> int:  # any bytes-like object, written completely
        view = memoryview(content).cast("B")
        done = 0
        while done < len(view):
            done += os.write(self.descriptor, view[done : done + WRITE_BYTES])
        self.position += done
        return done


def _temp_beside(path: Path) -> Path:
    return path.parent / f"{TEMP_PREFIX}{secrets.token_hex(4)}-{path.name[-40:]}"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` when the block succeeds; otherwise `path` is unchanged."""
    path = Path(path)
    temp = _temp_beside(path)
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            yield cast(BinaryIO, _OsWriter(descriptor))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temp, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temp)
        raise
    sync_folder(path.parent)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Writes `content` (text as UTF-8, see `text_to_bytes`) atomically."""
    with atomic_file(path) as stream:
        stream.write(text_to_bytes(content) if isinstance(content, str) else content)


def text_to_bytes(text: str) -> bytes:
    """UTF-8; undecodable bytes of a path are escaped."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `final` when the block succeeds, otherwise removed.

    `final` must not exist yet."""
    final = Path(final)
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    temp = _temp_beside(final)
    os.mkdir(temp)
    try:
        yield temp
        for folder, _, names in os.walk(temp, topdown=False):
            for name in names:
                _sync_file(Path(folder) / name)
            sync_folder(Path(folder))
        if os.path.lexists(final):  # rename would silently replace an empty folder
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        os.rename(temp, final)
    except BaseException:
        with suppress(OSError):
            _remove_tree(temp)
        raise
    sync_folder(final.parent)


def remove_folder(folder: Path) -> None:
    """Removes a folder; renames it first, so that it never exists partially under its name."""
    temp = _temp_beside(folder)
    os.rename(folder, temp)
    _remove_tree(temp)


def clean_leftovers(folder: Path) -> list[Path]:
    """Removes what a killed process left (`.tmp-*`, `*.partial`); only while no other process writes there."""
    patterns = (f"{TEMP_PREFIX}*", f"*{PARTIAL_SUFFIX}")
    leftovers = sorted(path for pattern in patterns for path in Path(folder).glob(pattern))
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            _remove_tree(path)
        else:
            os.unlink(path)
    return leftovers


def append_whole(descriptor: int, content: bytes) -> None:
    """Appends `content` to an open file; if that fails (full disk), the file is unchanged."""
    size = os.fstat(descriptor).st_size
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except BaseException:
        os.ftruncate(descriptor, size)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, on file systems that can sync folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_and_rename(temp: Path, final: Path) -> None:
    """Renames a finished file durably."""
    _sync_file(temp)
    os.replace(temp, final)
    sync_folder(final.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_tree(folder: Path) -> None:
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(parent, name))
        for name in folders:
            path = os.path.join(parent, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    os.rmdir(folder)
