"""Reading a tar, packed or not, from front to back without trusting it: nothing is unpacked before its size is known.

tarfile alone would read a header's size at one go, and would unpack gigabytes to get past a member.
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
FREE_BYTES = 64 << 20  # so much may unpack from any few bytes: headers of empty members shrink well
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


class Bomb(Exception):
    """More comes out than can be meant."""


class _Bounded(io.RawIOBase):
    """A stream that goes forward in small steps and stops when it has unpacked too much from too little."""

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
            raise Bomb(f"a header or member of {size} bytes")
        parts = []
        while size > 0 and (part := self._step(min(STEP_BYTES, size))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _step(self, size: int) -> bytes:
        part = self.unpacked.read(size)
        if self.is_packed and self.tell() > max(FREE_BYTES, self.ratio * self.raw.tell()):
            raise Bomb(f"{self.raw.tell()} bytes unpack to more than {self.tell()}")
        return part


def bomb_error(path: Path, what: str) -> UserError:
    return UserError(f"SRC: {path} is a bomb ({what}), allowed a zip or tar of pictures, which hardly shrink")


def is_tar(path: Path) -> bool:
    """By its first bytes: a zip may stand at the end of a tar, and zipfile would take that for the whole."""
    with open(path, "rb") as stream:
        head = stream.read(tarfile.BLOCKSIZE)
    return head[257:262] == b"ustar" or any(head.startswith(magic) for magic, _ in PACKERS)


def read_tar(path: Path, ratio: int, member_bytes: int) -> Iterator[tuple[tarfile.TarInfo, Callable[[int], bytes]]]:
    """(header, reader of its first n bytes or, -1, all) of each member. The reader works until the next is asked for.

    UserError when it is no tar or a bomb; CutShort when it ends in the middle, after all that could be read.
    """
    count = 0
    with open(path, "rb") as raw:
        try:
            begin = raw.read(6)
            raw.seek(0)
            packer = next((packer for magic, packer in PACKERS if begin.startswith(magic)), None)
            stream = _Bounded(packer(raw) if packer else raw, raw, ratio, member_bytes + STEP_BYTES)
            with tarfile.open(fileobj=cast(Any, stream), mode="r:") as archive:
                for info in _headers(archive, stream):
                    yield info, _reader(stream, info)
                    count += 1
        except Bomb as bomb:
            raise bomb_error(path, str(bomb)) from bomb
        except TAR_ERRORS as error:
            if not count:
                raise UserError(
                    f"SRC: {path} is no zip and no tar ({error}), allowed a zip or tar of pictures"
                ) from error
            hint = "those are kept; download or copy it again for the rest"
            raise CutShort(f"SRC: {path} is damaged after {count} members ({error}); {hint}") from error


def _headers(archive: tarfile.TarFile, stream: _Bounded) -> Iterator[tarfile.TarInfo]:
    """Every header up to the end mark; tarfile itself takes any damage behind the first header for the end."""
    headers: Any = archive
    before = -1
    while (info := archive.next()) is not None:
        headers.members.clear()  # else a million headers stay in memory
        if info.size < 0 or archive.offset <= before:  # a negative size leads back, and so round and round
            raise tarfile.ReadError("a header with a size that cannot be")
        before = archive.offset
        yield info
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark where the next header should be")


def _reader(stream: _Bounded, info: tarfile.TarInfo) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        stream.seek(info.offset_data)
        wanted = info.size if count < 0 else min(count, info.size)
        content = stream.read(wanted)
        if len(content) < wanted:
            raise EOFError("the archive ends inside this member")
        return content

    return read
