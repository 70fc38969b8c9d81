"""Pictures from a zip or tar, which may be hostile: nothing is ever written under a name that the archive gives.

Members are looked at one by one; what is a picture by its first bytes goes into the content-addressed store, every
other member gets its line in the ledger. Links, devices, encrypted members, unsafe names, bombs and archives inside are
refused.
"""

import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import UserError
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.records import FetchCounts
from scrapers.local import tar
from scrapers.local.importer import MAX_PICTURE_BYTES, READ_ERRORS, Importer, ImportOptions, Member, printable

GIB = 1 << 30
RATIO_FREE_BYTES = 1 << 16  # a small plain picture may shrink well
UTF8_FLAG = 0x800


@dataclass(frozen=True)
class Caps:
    """What an archive may be at most. Ratios are of unpacked to packed bytes; pictures hardly shrink.

    `ratio`: of one member over RATIO_FREE_BYTES; `total_ratio`: of the whole over tar.FREE_BYTES.
    """

    members: int = 500_000
    member_bytes: int = MAX_PICTURE_BYTES
    total_bytes: int = 1 << 38
    ratio: int = 200
    total_ratio: int = 20


def import_archive(
    path: Path, pictures: PictureSet, *, reading: ImportOptions | None = None, limit: int | None = None,
    caps: Caps | None = None,
) -> FetchCounts:  # fmt: skip
    """Every picture of a zip or tar (also .gz, .bz2, .xz) into the store. UserError when it is none, or is cut short.

    `limit`: so many pictures at most. Imported again, it is read again, and what is there stays as it is.
    """
    if not path.is_file():
        raise UserError(f"SRC: found no file {path}, allowed a zip or tar of pictures (SOURCE=folder for a folder)")
    members = _tar_members if tar.is_tar(path) or not zipfile.is_zipfile(path) else _zip_members
    importer = Importer(pictures, "archive", f"archive:{printable(path.name)}", reading)
    return importer.run(partial(members, path, caps or Caps()), limit)


def _zip_members(path: Path, caps: Caps) -> Iterator[Member]:
    """Files of a zip in its order; folders have no content and are passed over."""
    try:
        archive = zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise UserError(f"SRC: {path} is no sound zip ({error}), try to download or copy it again") from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        total_bytes = sum(info.file_size for info in infos)
        _check_caps(path, len(infos), total_bytes, caps)
        if total_bytes > max(tar.FREE_BYTES, caps.total_ratio * path.stat().st_size):
            raise tar.bomb_error(path, f"{path.stat().st_size} bytes unpack to {total_bytes}")
        for info in infos:
            yield Member(_zip_name(info), _zip_fault(info, caps), partial(_read_zip, archive, info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """As it was meant: a Mac writes UTF-8 without the flag that says so, which zipfile then takes for code page 437."""
    with suppress(UnicodeError):
        if not info.flag_bits & UTF8_FLAG:
            return info.orig_filename.encode("cp437").decode("utf-8")
    return info.orig_filename


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    """At most the size that the header says, and zipfile checks the CRC at the end."""
    with archive.open(info) as stream:
        return stream.read(count)


def _zip_fault(info: zipfile.ZipInfo, caps: Caps) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return "link: links are not followed"
    if kind and not stat.S_ISREG(kind):
        return "not_a_file: a pipe, socket or device"
    if info.flag_bits & 0x41:  # or strong encryption
        return "encrypted: members with a password are not read"
    return name_problem(info.orig_filename) or size_problem(info.file_size, info.compress_size, caps)


def _tar_members(path: Path, caps: Caps) -> Iterator[Member]:
    count = total = 0
    for info, read in tar.read_tar(path, caps.total_ratio, caps.member_bytes):
        if info.isdir():
            continue
        count, total = count + 1, total + info.size
        _check_caps(path, count, total, caps)
        fault: str | None = None
        if info.issym() or info.islnk():
            fault = "link: links are not followed"
        elif not info.isreg() or info.issparse():
            fault = "not_a_file: a pipe, socket, device or a file with holes"
        yield Member(info.name, fault or name_problem(info.name) or size_problem(info.size, None, caps), read)


def _check_caps(path: Path, count: int, total_bytes: int, caps: Caps) -> None:
    if count > caps.members:
        raise UserError(
            f"SRC: {path} has more than {caps.members} members, allowed so many; unpack it and name a folder"
        )
    if total_bytes > caps.total_bytes:
        raise UserError(f"SRC: {path} unpacks to over {caps.total_bytes / GIB:g} GiB, allowed so much")


def size_problem(size: int, packed: int | None, caps: Caps) -> str | None:
    if size > caps.member_bytes:
        return f"too_large: {size} bytes, allowed {caps.member_bytes}"
    if packed is not None and size > RATIO_FREE_BYTES and size > caps.ratio * max(packed, 1):
        return f"bomb: {packed} bytes unpack to {size}"
    return None


def name_problem(name: str) -> str | None:
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
