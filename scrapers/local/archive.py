"""Pictures from an untrusted zip or tar: no name from the archive is ever used as a path.

Members that are pictures by their first bytes go into the content-addressed store, every other one gets a line in the
ledger. Links, devices, encrypted members, unsafe names, bombs and nested archives are refused.
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
RATIO_FREE_BYTES = 1 << 16  # a small plain picture may compress well
UTF8_FLAG = 0x800


@dataclass(frozen=True)
class Limits:
    """Limits of an archive. Ratios are uncompressed / compressed bytes, `ratio` of a member over RATIO_FREE_BYTES and
    `total_ratio` of the whole over tar.FREE_BYTES; pictures hardly compress.
    """

    members: int = 500_000
    member_bytes: int = MAX_PICTURE_BYTES
    total_bytes: int = 1 << 38
    ratio: int = 200
    total_ratio: int = 20


def import_archive(
    path: Path, pictures: PictureSet, *, options: ImportOptions | None = None, limit: int | None = None,
    limits: Limits | None = None,
) -> FetchCounts:  # fmt: skip
    """Adds every picture of a zip or tar (also .gz, .bz2, .xz) to the store, at most `limit`; existing ones are kept.
    UserError for any other file, and at the end of a truncated one."""
    if not path.is_file():
        raise UserError(f"SRC: found no file {path}, allowed a zip or tar of pictures (SOURCE=folder for a folder)")
    members = _tar_members if tar.is_tar(path) or not zipfile.is_zipfile(path) else _zip_members
    importer = Importer(pictures, "archive", f"archive:{printable(path.name)}", options)
    return importer.run(partial(members, path, limits or Limits()), limit)


def _zip_members(path: Path, limits: Limits) -> Iterator[Member]:
    """The files of a zip in its order, without folders."""
    try:
        archive = zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise UserError(f"SRC: {path} is a damaged zip ({error}), try to download or copy it again") from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        total_bytes = sum(info.file_size for info in infos)
        _check_limits(path, len(infos), total_bytes, limits)
        if total_bytes > max(tar.FREE_BYTES, limits.total_ratio * path.stat().st_size):
            raise tar.bomb_error(path, f"{path.stat().st_size} bytes unpack to {total_bytes}")
        for info in infos:
            yield Member(_zip_name(info), _zip_problem(info, limits), partial(_read_zip, archive, info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name, decoded as UTF-8 if it is: macOS omits the UTF-8 flag, and zipfile then assumes code page 437."""
    with suppress(UnicodeError):
        if not info.flag_bits & UTF8_FLAG:
            return info.orig_filename.encode("cp437").decode("utf-8")
    return info.orig_filename


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    """zipfile reads no more than the header's size, and checks the CRC at the end."""
    with archive.open(info) as stream:
        return stream.read(count)


def _zip_problem(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(kind):
        return "link: links are not followed"
    if kind and not stat.S_ISREG(kind):
        return "not_a_file: a pipe, socket or device"
    if info.flag_bits & 0x41:  # or strong encryption
        return "encrypted: members with a password are not read"
    return name_problem(info.orig_filename) or size_problem(info.file_size, info.compress_size, limits)


def _tar_members(path: Path, limits: Limits) -> Iterator[Member]:
    count = total = 0
    for info, read in tar.read_tar(path, limits.total_ratio, limits.member_bytes):
        if info.isdir():
            continue
        count, total = count + 1, total + info.size
        _check_limits(path, count, total, limits)
        problem = name_problem(info.name) or size_problem(info.size, None, limits)
        if info.issym() or info.islnk():
            problem = "link: links are not followed"
        elif not info.isreg() or info.issparse():
            problem = "not_a_file: a pipe, socket, device or sparse file"
        yield Member(info.name, problem, read)


def _check_limits(path: Path, count: int, total_bytes: int, limits: Limits) -> None:
    if count > limits.members:
        raise UserError(f"SRC: {path} has more than {limits.members} members, try to unpack it and import the folder")
    if total_bytes > limits.total_bytes:
        raise UserError(f"SRC: {path} unpacks to more than the allowed {limits.total_bytes / GIB:g} GiB")


def size_problem(size: int, packed: int | None, limits: Limits) -> str | None:
    if size > limits.member_bytes:
        return f"too_large: {size} bytes, allowed {limits.member_bytes}"
    if packed is not None and size > RATIO_FREE_BYTES and size > limits.ratio * max(packed, 1):
        return f"bomb: {packed} bytes unpack to {size}"
    return None


def name_problem(name: str) -> str | None:
    """Why a member with this name is refused, or None. No name is used as a path, but such an archive is suspicious."""
    if not name or "\0" in name:
        return "unsafe_path: an empty name or one with a zero byte"
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        return "unsafe_path: a drive or backslashes"
    if name.startswith("/"):
        return "unsafe_path: an absolute path"
    if ".." in name.split("/"):
        return "unsafe_path: leads out of the archive"
    return None
