"""Pictures from a zip or tar, which may be hostile: nothing is ever written under a name that the archive gives.

Members are looked at one by one; what is a picture by its first bytes goes into the content-addressed store, every
other member gets its line in the ledger. Links, devices, encrypted members, unsafe names, bombs and archives inside are
refused.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.images.magic_bytes import picture_kind
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import Tally
from scrapers.local.importer import HEAD_BYTES, MAX_PICTURE_BYTES, Importer, printable, why_no_picture
from scrapers.local.tar import CutShort, is_tar, read_tar

MIB, GIB = 1 << 20, 1 << 30
# What zipfile raises on bytes that are no sound zip.
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
ZIP_FAULTS += (struct.error, IndexError, OverflowError)


@dataclass(frozen=True)
class Caps:
    """What an archive may be at most. `ratio`: unpacked to packed, for what is over a MiB; pictures hardly shrink."""

    members: int = 500_000
    member_bytes: int = MAX_PICTURE_BYTES
    total_bytes: int = 1 << 38
    ratio: int = 200


@dataclass(frozen=True)
class Member:
    """One entry. `fault`: why it is not read. `read(n)`: its first n bytes, -1 for all."""

    name: str
    size: int
    fault: str | None
    read: Callable[[int], bytes]


def import_archive(
    path: Path, fetcher: Fetcher, *, source: str = "archive", always_make: bool = False, limit: int | None = None,
    caps: Caps | None = None,
) -> Tally:  # fmt: skip
    """Every picture of a zip or tar (also .gz, .bz2, .xz) into the store. UserError when it is none, or is cut short.

    `limit`: so many pictures at most. Imported again, it is read again, and what is there stays as it is.
    """
    caps = caps or Caps()
    if not path.is_file():
        raise UserError(f"SRC: found no file {path}, allowed a zip or tar of pictures (SOURCE=folder for a folder)")
    members = _tar_members if is_tar(path) or not zipfile.is_zipfile(path) else _zip_members
    with Importer(fetcher, source, f"archive:{printable(path.name)}", always_make) as importer:
        importer.set_root(_names(members(path, caps)))
        seen: dict[str, int] = {}
        for member in members(path, caps):
            if limit is not None and importer.taken >= limit:
                break
            seen[member.name] = seen.get(member.name, 0) + 1
            if seen[member.name] > 1:
                importer.refuse(f"{member.name} ({seen[member.name]})", "duplicate_name: the first of this name counts")
            else:
                _take(importer, member)
    return importer.tally


def _names(members: Iterator[Member]) -> Iterator[str]:
    """Of what can be read; an archive that is cut short is read as far as it goes."""
    with suppress(CutShort):
        yield from (member.name for member in members if member.fault is None)


def _take(importer: Importer, member: Member) -> None:
    if member.fault:
        importer.refuse(member.name, member.fault)
        return
    try:
        head = member.read(HEAD_BYTES)
        content = member.read(-1) if picture_kind(head) else b""
    except ZIP_FAULTS as error:
        importer.refuse(member.name, f"damaged: {printable(str(error))[:200]}")
        return
    if content:
        importer.take(member.name, content)
    else:
        importer.refuse(member.name, why_no_picture(head))


def _zip_members(path: Path, caps: Caps) -> Iterator[Member]:
    """Files of a zip in its order; folders have no content and are passed over."""
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_FAULTS as error:
        raise UserError(f"SRC: {path} is no sound zip ({error}), try to download or copy it again") from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _check_caps(path, len(infos), sum(info.file_size for info in infos), caps)
        for info in infos:
            yield Member(info.orig_filename, info.file_size, _zip_fault(info, caps), _zip_reader(archive, info))


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:  # zipfile gives at most the size that the header says, and checks the CRC at the end
        with archive.open(info) as stream:
            return stream.read(count)

    return read


def _zip_fault(info: zipfile.ZipInfo, caps: Caps) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return "link: links are not followed"
    if kind and not stat.S_ISREG(kind):
        return "not_a_file: a pipe, socket or device"
    if info.flag_bits & 0x41:  # or strong encryption
        return "encrypted: members with a password are not read"
    return name_fault(info.orig_filename) or size_fault(info.file_size, info.compress_size, caps)


def _tar_members(path: Path, caps: Caps) -> Iterator[Member]:
    count = total = 0
    for info, read in read_tar(path, caps.ratio, caps.member_bytes):
        if info.isdir():
            continue
        count, total = count + 1, total + info.size
        _check_caps(path, count, total, caps)
        fault: str | None = None
        if info.issym() or info.islnk():
            fault = "link: links are not followed"
        elif not info.isreg() or info.issparse():
            fault = "not_a_file: a pipe, socket, device or a file with holes"
        yield Member(info.name, info.size, fault or name_fault(info.name) or size_fault(info.size, None, caps), read)


def _check_caps(path: Path, count: int, total_bytes: int, caps: Caps) -> None:
    if count > caps.members:
        raise UserError(
            f"SRC: {path} has more than {caps.members} members, allowed so many; unpack it and name a folder"
        )
    if total_bytes > caps.total_bytes:
        raise UserError(f"SRC: {path} unpacks to over {caps.total_bytes / GIB:g} GiB, allowed so much")


def size_fault(size: int, packed: int | None, caps: Caps) -> str | None:
    if size > caps.member_bytes:
        return f"too_large: {size} bytes, allowed {caps.member_bytes}"
    if packed is not None and size > MIB and size > caps.ratio * max(packed, 1):
        return f"bomb: {packed} bytes unpack to {size}"
    return None


def name_fault(name: str) -> str | None:
    """Why a name is not to be trusted. Nothing is written under it; but who makes such names is up to something."""
    if not name or "\0" in name:
        return "unsafe_path: an empty name or one with a zero byte"
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        return "unsafe_path: a drive or backslashes"
    if name.startswith("/"):
        return "unsafe_path: an absolute path"
    if ".." in name.split("/"):
        return "unsafe_path: leads out of the archive"
    return None
