"""Hostile archives are refused, and nothing outside the set is written."""

import bz2
import gzip
import lzma
import random
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from scrapers.local import tar
from scrapers.local.archive import Limits, import_archive
from tests.scrapers.local.local_set import GOOD, a_picture, tar_of, tree_of, zip_of


def special(name: str, kind: int, target: bytes = b"") -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info, target


def tar_special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def with_good(pack: Callable[..., Path], *members: tuple[Any, bytes]) -> Callable[[Path], Path]:
    """Makes an archive of a good picture and these."""
    return lambda path: pack(path, (GOOD, a_picture(1)), *members)


def pictures_of(*names: str) -> list[tuple[str, bytes]]:
    return [(name, a_picture(2)) for name in names]


def encrypted_zip(path: Path) -> Path:
    """zipfile cannot encrypt; the flag alone is what tells."""
    zip_of(path, (GOOD, a_picture(1)), ("secret.jpg", a_picture(2)), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, flags_at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.rindex(signature) + flags_at] |= 1
    path.write_bytes(content)
    return path


def hostile_zip_paths(path: Path) -> Path:
    """Names that zipfile would not write."""
    names = (
        b"../up.jpg",
        b"a/../../up.jpg",
        b"/etc/abs.jpg",
        b"C:\\win.jpg",
        b"C:drive.jpg",
        b"..\\back.jpg",
        b"nul\0.jpg",
    )
    stand_ins = [f"{k:0{len(name)}d}" for k, name in enumerate(names)]
    content = with_good(zip_of, *pictures_of(*stand_ins))(path).read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        content = content.replace(stand_in.encode(), name)
    path.write_bytes(content)
    return path


def nested(path: Path) -> Path:
    inner = {kind: path.with_name(f"inner.{kind}") for kind in ("zip", "tar", "tar.gz")}
    zip_of(inner["zip"], ("0.jpg", a_picture(1)))
    tar_of(inner["tar"], ("0.jpg", a_picture(1)))
    tar_of(inner["tar.gz"], ("0.jpg", a_picture(1)), mode="w:gz")
    members = [(f"{place.name}.jpg", place.read_bytes()) for place in inner.values()]
    for place in inner.values():
        place.unlink()
    return with_good(zip_of, *members)(path)


def doubled_names(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return with_good(zip_of, (GOOD, a_picture(2)), (GOOD, a_picture(3)))(path)


def damaged_zip(path: Path) -> Path:
    zip_of(path, ("broken.jpg", a_picture(2)), (GOOD, a_picture(1)), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[120] ^= 0xFF  # in the first picture: its CRC no longer fits
    path.write_bytes(content)
    return path


def zip_bombs(path: Path) -> Path:
    png = a_picture(2, "PNG")
    big = png[:-12] + bytes(24 << 20) + png[-12:]  # a picture's beginning and end, and 24 MB of nothing between
    return with_good(zip_of, ("bomb.png", big), ("huge.jpg", a_picture(3) + bytes(33 << 20)))(path)


ZIP_KINDS = [
    special("link.jpg", stat.S_IFLNK, b"/etc/passwd"),
    special("pipe.jpg", stat.S_IFIFO),
    special("disk.jpg", stat.S_IFBLK),
    special("tty.jpg", stat.S_IFCHR),
    special("sock.jpg", stat.S_IFSOCK),
]
TAR_PATHS = pictures_of("../up.jpg", "a/../../up.jpg", "/etc/abs.jpg", "C:\\win.jpg", "..\\back.jpg")
TAR_KINDS = [
    tar_special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
    tar_special("hard.jpg", tarfile.LNKTYPE, GOOD),
    tar_special("hard_out.jpg", tarfile.LNKTYPE, "../../secret"),
    tar_special("pipe.jpg", tarfile.FIFOTYPE),
    tar_special("disk.jpg", tarfile.BLKTYPE),
    tar_special("tty.jpg", tarfile.CHRTYPE),
    tar_special("holes.jpg", tarfile.GNUTYPE_SPARSE),
]
ODD_NAMES = ("new\nline.jpg", "esc\x1b[31m.jpg", "umlaut_ü.jpg", "x" * 5000 + ".jpg", "half\udcff.jpg")
HOSTILE = {
    "zip_paths": (hostile_zip_paths, {"unsafe_path"}, 7),
    "zip_kinds": (with_good(zip_of, *ZIP_KINDS), {"link", "not_a_file"}, 5),
    "zip_encrypted": (encrypted_zip, {"encrypted"}, 1),
    "zip_bomb": (zip_bombs, {"bomb", "too_large"}, 2),
    "zip_nested": (nested, {"nested_archive"}, 3),
    "zip_doubled": (doubled_names, {"duplicate_name"}, 2),
    "zip_damaged": (damaged_zip, {"damaged"}, 1),
    "tar_paths": (with_good(tar_of, *TAR_PATHS), {"unsafe_path"}, 5),
    "tar_kinds": (with_good(tar_of, *TAR_KINDS), {"link", "not_a_file"}, 7),
    "tar_names": (with_good(tar_of, *((name, b"no picture") for name in ODD_NAMES)), {"not_a_picture"}, 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused_one_by_one_and_the_rest_is_taken(local, tmp_path, name):
    make, slugs, count = HOSTILE[name]
    path = make(tmp_path / "work" / "hostile.bin")
    before = tree_of(tmp_path)
    counts = local.take(import_archive, path)
    assert local.good == [GOOD] and (counts.done, counts.refused) == (1, count)
    assert set(local.refused.values()) == slugs and len(local.refused) == count
    after = tree_of(tmp_path)
    assert {place: after[place] for place in before} == before
    assert all(place.startswith("work/set") for place in after.keys() - before.keys())
    assert len(local.files) == 1 and not any(path.is_symlink() for path in tmp_path.rglob("*"))


# ---- archives that are refused as a whole ----


def zip_of_many(path: Path, count: int) -> Path:
    """So many empty members, without zipfile, which needs seconds to write them."""
    local_parts, central_parts, at = [], [], 0
    for k in range(count):
        name = b"%06d.jpg" % k
        local_parts.append(struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name)
        head = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, at)
        central_parts.append(head + name)
        at += len(local_parts[-1])
    central = b"".join(central_parts)
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at + len(central), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(b"".join(local_parts) + central + wide + locator + end)
    return path


def tar_of_many(path: Path, count: int) -> Path:
    path.write_bytes(gzip.compress(tarfile.TarInfo("x.txt").tobuf() * count + bytes(1024), 1))
    return path


@pytest.mark.parametrize(("make", "name"), [(zip_of_many, "many.zip"), (tar_of_many, "many.tar.gz")])
def test_100_000_members_are_too_many_where_fewer_are_allowed(local, tmp_path, make, name):
    path = make(tmp_path / name, 100_000)
    began = time.process_time()
    with pytest.raises(UserError, match="has more than 20000 members"):
        local.take(import_archive, path, limits=Limits(members=20_000))
    assert time.process_time() - began < 20 and local.lines == []


def test_members_that_add_up_to_too_much(local, tmp_path):
    members = [(f"{k}.jpg", a_picture(k, size=(300, 300))) for k in range(9)]
    for path in (zip_of(tmp_path / "a.zip", *members), tar_of(tmp_path / "a.tar", *members)):
        with pytest.raises(UserError, match="unpacks to more than"):
            local.take(import_archive, path, limits=Limits(total_bytes=5000))
    assert local.lines == []


def test_a_zip_whose_members_share_their_bytes(local, tmp_path):
    """The kind of bomb that needs no archive inside: a hundred headers that point at one member."""
    path = zip_of(tmp_path / "a.zip", ("0.jpg", a_picture(1) * 500), method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entries = b"".join(content[start:end].replace(b"0.jpg", b"%d.jpg" % k) for k in range(9))
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, len(entries), start, 0)
    path.write_bytes(content[:start] + entries + last)
    local.take(import_archive, path)
    assert set(local.refused.values()) <= {"damaged"} and len(local.files) <= 1


def small_bombs(path: Path, count: int) -> Path:
    """Pictures by their first bytes, each just under a MiB of zeros."""
    return zip_of(path, *((f"{k}.jpg", b"\xff\xd8\xff" + bytes([k]) + bytes(1020 << 10)) for k in range(count)))


def test_a_member_below_a_mib_may_be_a_bomb(local, tmp_path):
    counts = local.take(import_archive, small_bombs(tmp_path / "a.zip", 5))
    assert (counts.done, counts.refused) == (0, 5) and set(local.refused.values()) == {"bomb"}
    assert local.files == []


def test_members_that_are_fine_one_by_one_may_be_a_bomb_together(local, tmp_path, monkeypatch):
    """Below the size from which one is looked at: 200 of 60 KiB, which shrink to a hundredth."""
    monkeypatch.setattr(tar, "FREE_BYTES", 4 << 20)
    members = [(f"{k}.jpg", b"\xff\xd8\xff" + bytes([k]) + bytes(60 << 10)) for k in range(200)]
    with pytest.raises(UserError, match=r"is a decompression bomb \(\d+ bytes unpack to 12288800\)"):
        local.take(import_archive, zip_of(tmp_path / "a.zip", *members))
    assert local.lines == []
    assert local.take(import_archive, zip_of(tmp_path / "b.zip", *members[:60])).done == 60  # small: may shrink


def test_small_plain_pictures_and_an_archive_of_photos_are_no_bombs(local, tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "FREE_BYTES", 1 << 20)
    noise = [(f"{k}.jpg", b"\xff\xd8\xff" + random.Random(k).randbytes(100_000)) for k in range(20)]
    path = zip_of(tmp_path / "a.zip", *noise, ("plain.png", a_picture(1, "PNG", (400, 300))))
    assert local.take(import_archive, path).done == 21


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_tar_of_nothing_is_a_bomb(local, tmp_path, monkeypatch, packer):
    monkeypatch.setattr(tar, "FREE_BYTES", 4 << 20)
    path = tar_of(tmp_path / "bomb.tar", ("zeros.jpg", bytes(8 << 20)))
    path.write_bytes(packer(path.read_bytes(), *([1] if packer is not lzma.compress else [])))
    with pytest.raises(UserError, match="is a decompression bomb"):
        local.take(import_archive, path)
    assert local.lines == []


def test_a_header_of_a_gigabyte_costs_no_memory(local, tmp_path):
    """tarfile reads long names and pax headers at one go, however long they say they are."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    squeezer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [squeezer.compress(info.tobuf(tarfile.GNU_FORMAT))]
    parts += [squeezer.compress(bytes(1 << 20)) for _ in range(100)]
    path = tmp_path / "name.tar.gz"
    path.write_bytes(b"".join([*parts, squeezer.flush()]))
    tracemalloc.start()
    with pytest.raises(UserError, match="is a decompression bomb"):
        local.take(import_archive, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_size_that_leads_back_does_not_go_round_and_round(local, tmp_path):
    good = tar_of(tmp_path / "a.tar", (GOOD, a_picture(1))).read_bytes()
    header = bytearray(tarfile.TarInfo("back.jpg").tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # base 256, negative: two blocks back
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = 512 + -(-len(a_picture(1)) // 512) * 512
    (tmp_path / "a.tar").write_bytes(good[:blocks] + bytes(header) + bytes(1024))
    with pytest.raises(UserError, match="damaged after 1 members"):
        local.take(import_archive, tmp_path / "a.tar")
    assert local.good == [GOOD]
