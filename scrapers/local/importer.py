"""What archives and folders have in common: whose class a file gets, what is no picture, what is told to the ledger."""

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import error as struct_error

from harness.errors import Interrupted, UserError
from harness.images.layout import FolderCounts, Layout, LayoutName, Place, read_layout
from harness.images.magic_bytes import PICTURE_TYPES, other_kind, picture_kind
from harness.messages import log
from harness.runtime.progress import Progress
from scrapers.crawl.ledger import picture_line, read_lines
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.records import DONE, REFUSED, FetchCounts, PictureItem
from scrapers.sites.car_specs import specs_from_name

MAX_PICTURE_BYTES = 32 << 20
ARCHIVE_BEGINS = (b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"Rar!", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
HEAD_BYTES = 512  # enough to tell a picture, or an archive inside the archive
# What reading raises: a file that has gone, and zipfile on bytes that are no sound zip.
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
READ_ERRORS += (struct_error, IndexError, OverflowError)


class CutShort(UserError):
    """An archive's end is missing or damaged; what stands before it was read."""


@dataclass(frozen=True)
class Member:
    """One file. `fault`: why it is not read. `read(n)`: its first n bytes, -1 for all."""

    name: str
    fault: str | None
    read: Callable[[int], bytes]


@dataclass(frozen=True)
class ImportOptions:
    """How the folders of a source are read: data.layout and data.ignore of configs/base.yaml. `always_make`: classes
    are the makes in the files' names."""

    layout: LayoutName = "auto"
    ignore: Sequence[str] | None = None
    always_make: bool = False


class Importer:
    """Hands the files of one archive or folder over, one by one.

    A file that is there as it was before is skipped. One that has other content under the same name gets an address of
    its own, `<name>@<begin of its hash>`: neither is lost.
    """

    def __init__(self, pictures: PictureSet, source: str, label: str, reading: ImportOptions | None = None) -> None:
        self.pictures, self.source, self.label, self.reading = pictures, source, label, reading or ImportOptions()
        self.layout = Layout(FolderCounts())
        self.known = _known_files(pictures.folder, f"{label}#")
        self.tally = FetchCounts()
        self.progress = Progress("pictures", None)

    def run(self, members: Callable[[], Iterator[Member]], limit: int | None) -> FetchCounts:
        """Every member in its order, which are gone through twice. `limit`: so many pictures at most."""
        seen: Counter[str] = Counter()
        with self.progress:
            self.layout = self._read_layout(members())
            for member in members():
                if limit is not None and self.tally.done + self.tally.skipped >= limit:
                    break
                seen[member.name] += 1
                if seen[member.name] > 1:
                    name = f"{member.name} ({seen[member.name]})"
                    self.refuse(name, "duplicate_name: the first of this name counts")
                else:
                    place = self.layout.place(member.name)
                    if fault := member.fault or place.fault:
                        self.refuse(member.name, fault)
                    else:
                        self._read(member, place)
        return self.tally

    def _read_layout(self, members: Iterator[Member]) -> Layout:
        counts = FolderCounts(self.reading.ignore)
        for name in self._readable_names(members):
            counts.add(name)
        layout = read_layout(counts, self.reading.layout)
        if (how := layout.describe(self.reading.layout)) and not self.reading.always_make:
            log(f"{self.label.partition(':')[2]}: {how}")
        return layout

    def _read(self, member: Member, place: Place) -> None:
        try:
            head = member.read(HEAD_BYTES)
            content = member.read(-1) if picture_kind(head) else b""
        except READ_ERRORS as error:
            unreadable = getattr(error, "strerror", None)  # a gzip's damage is an OSError without one
            reason = f"unreadable: {unreadable}" if unreadable else f"damaged: {printable(str(error))[:200]}"
            self.refuse(member.name, reason)
            return
        if len(content) > MAX_PICTURE_BYTES:
            self.refuse(member.name, f"too_large: {len(content)} bytes or more, allowed {MAX_PICTURE_BYTES}")
        elif content:
            self.take(member.name, content, place)
        else:
            self.refuse(member.name, why_no_picture(head))

    def take(self, name: str, content: bytes, place: Place) -> None:
        """A picture (by its first bytes)."""
        url, sha256 = self._url(name), hashlib.sha256(content).hexdigest()
        if self.known.get(url, sha256) != sha256 or self._is_refused(url):  # it was something else before
            url = f"{url}@{sha256[:8]}"
        if url in self.known:
            self._count("skipped")
            return
        specs = specs_from_name(name.rpartition("/")[2])
        make = specs["make"] if specs else None
        folder = place.class_name
        class_name = make if make and (self.reading.always_make or not folder) else folder
        wanted = PictureItem(url, self.source, class_name=class_name, specs=specs, split=place.split)
        self._count(self.pictures.add_local(content, wanted))

    def refuse(self, name: str, reason: str) -> None:
        """A line in the ledger for what is not taken, unless it says so already; it takes nothing from a picture that
        had this name before, and is there."""
        url = self._url(name)
        wanted = PictureItem(f"{url}@{REFUSED}" if url in self.known else url, self.source)
        if not self._is_refused(wanted.url):
            self.pictures.ledger.add(picture_line(wanted, REFUSED, reason=reason))
        self._count(REFUSED)

    def _is_refused(self, url: str) -> bool:
        found = self.pictures.ledger.status(url)
        return found is not None and found[0] == REFUSED

    def _url(self, name: str) -> str:
        return f"{self.label}#{printable(name)}"

    def _count(self, status: str) -> None:
        self.tally.count(status)
        self.tally.show_in(self.progress)
        self._go_on()

    def _go_on(self) -> None:
        if self.pictures.stopping:  # a signal came
            raise Interrupted(f"stopped: {self.tally}; the same command goes on from here")

    def _readable_names(self, members: Iterator[Member]) -> Iterator[str]:
        """An archive that is cut short is read as far as it goes."""
        with suppress(CutShort):
            for member in members:
                self._go_on()
                if member.fault is None:
                    yield member.name


def _known_files(folder: Path, begin: str) -> dict[str, str]:
    """Address → sha256 of what was imported before from a source of this name, and is still there."""
    lines = (line for line in read_lines(folder / "ledger.jsonl") if line and line["url"].startswith(begin))
    last = {line["url"]: line for line in lines}
    done = {url: line for url, line in last.items() if line["status"] == DONE}
    return {url: line["sha256"] for url, line in done.items() if _has_content(folder / str(line.get("file")))}


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def why_no_picture(content: bytes) -> str:
    if content.startswith(ARCHIVE_BEGINS) or content[257:262] == b"ustar":
        return "nested_archive: archives inside are not opened"
    return f"not_a_picture: {other_kind(content)}, allowed {', '.join(PICTURE_TYPES)}"


def printable(name: str) -> str:
    """A name as text that can be written anywhere, whatever bytes it has."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
