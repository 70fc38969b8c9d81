"""Reads an untrusted tar, compressed or not, front to back, with limits on every read.

tarfile alone would read any size that a header declares, and would decompress gigabytes to skip a member.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from harness.errors import UserError
from scrapers.local.importer import CutShort

STEP_BYTES = 1 << 20
FREE_BYTES = 64 << 20  # below this no ratio is checked: headers of empty members compress well
PACKERS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
)
TAR_ERRORS = (
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    OverflowError,
    RecursionError,
)


class BombError(Exception):
    """A member or the whole decompresses to more than allowed."""


class _BoundedStream(io.RawIOBase):
    """A forward-only stream that raises BombError when a read or the compression ratio is too large."""

    def __init__(self, unpacked: BinaryIO, raw: BinaryIO, ratio: int, read_bytes: int) -> None:
        self.unpacked, self.raw, self.ratio, self.read_bytes = unpacked, raw, ratio, read_bytes
        self.is_packed = unpacked is not raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.unpacked.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        if self.is_packed:
            while self.tell() < offset:
                if not self._step(min(STEP_BYTES, offset - self.tell())):
                    break
        return self.unpacked.seek(offset)

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.read_bytes:
            raise BombError(f"a header or member of {size} bytes")
        parts = []
        while size > 0 and (part := self._step(min(STEP_BYTES, size))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _step(self, size: int) -> bytes:
        part = self.unpacked.read(size)
        if self.is_packed and self.tell() > max(FREE_BYTES, self.ratio * self.raw.tell()):
            raise BombError(f"{self.raw.tell()} bytes unpack to more than {self.tell()}")
        return part


def bomb_error(path: Path, what: str) -> UserError:
    return UserError(
        f"SRC: {path} is a decompression bomb ({what}), allowed a zip or tar of pictures, which hardly compress"
    )


def is_tar(path: Path) -> bool:
    """By its first bytes: zipfile would also accept a tar that ends with a zip."""
    with open(path, "rb") as stream:
        head = stream.read(tarfile.BLOCKSIZE)
    return head[257:262] == b"ustar" or any(head.startswith(magic) for magic, _ in PACKERS)


def read_tar(path: Path, ratio: int, member_bytes: int) -> Iterator[tuple[tarfile.TarInfo, Callable[[int], bytes]]]:
    """Yields (header, read) of each member; `read(n)` returns its first n bytes, -1 for all, until the next is yielded.

    UserError when it is not a tar, or a bomb; CutShort when it is truncated, after all readable members.
    """
    count = 0
    with open(path, "rb") as raw:
        try:
            begin = raw.read(6)
            raw.seek(0)
            packer = next((packer for magic, packer in PACKERS if begin.startswith(magic)), None)
            stream = _BoundedStream(packer(raw) if packer else raw, raw, ratio, member_bytes + STEP_BYTES)
            with tarfile.open(fileobj=cast(Any, stream), mode="r:") as archive:
                for info in _headers(archive, stream):
                    yield info, _reader(stream, info)
                    count += 1
        except BombError as bomb:
            raise bomb_error(path, str(bomb)) from bomb
        except TAR_ERRORS as error:
            if not count:
                raise UserError(
                    f"SRC: {path} is neither zip nor tar ({error}), allowed a zip or tar of pictures"
                ) from error
            hint = "those are kept; for the rest download or copy it again"
            raise CutShort(f"SRC: {path} is damaged after {count} members ({error}); {hint}") from error


def _headers(archive: tarfile.TarFile, stream: _BoundedStream) -> Iterator[tarfile.TarInfo]:
    """Every header up to the end marker; tarfile itself treats damage after the first header as the end."""
    headers: Any = archive
    before = -1
    while (info := archive.next()) is not None:
        headers.members.clear()  # frees memory: there may be a million
        if info.size < 0 or archive.offset <= before:  # a negative size leads back, into an endless loop
            raise tarfile.ReadError("a header with an impossible size")
        before = archive.offset
        yield info
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end marker in place of the next header")


def _reader(stream: _BoundedStream, info: tarfile.TarInfo) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        stream.seek(info.offset_data)
        wanted = info.size if count < 0 else min(count, info.size)
        content = stream.read(wanted)
        if len(content) < wanted:
            raise EOFError("the archive ends inside this member")
        return content

    return read
