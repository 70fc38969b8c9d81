"""The common part of archive and folder imports: classes, refused files, ledger lines."""

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
ARCHIVE_MAGIC = (b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"Rar!", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
HEAD_BYTES = 512  # enough to recognise a picture or a nested archive
# Raised for a file that was removed, and by zipfile for a damaged zip.
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
READ_ERRORS += (struct_error, IndexError, OverflowError)


class CutShort(UserError):
    """An archive's end is missing or damaged; what comes before it was read."""


@dataclass(frozen=True)
class Member:
    """One file. `problem`: why it is not read. `read(n)`: its first n bytes, -1 for all."""

    name: str
    problem: str | None
    read: Callable[[int], bytes]


@dataclass(frozen=True)
class ImportOptions:
    """data.layout and data.ignore of configs/base.yaml. `class_from_make`: classes are the makes in file names."""

    layout: LayoutName = "auto"
    ignore: Sequence[str] | None = None
    class_from_make: bool = False


class Importer:
    """Adds the files of one archive or folder to a picture set.

    An unchanged file is skipped. A file with new content under a known name gets a URL of its own,
    `<name>@<start of its hash>`, so neither is lost.
    """

    def __init__(self, pictures: PictureSet, source: str, label: str, options: ImportOptions | None = None) -> None:
        self.pictures, self.source, self.label, self.options = pictures, source, label, options or ImportOptions()
        self.layout = Layout(FolderCounts())
        self.known = _known_files(pictures.folder, f"{label}#")
        self.counts = FetchCounts()
        self.progress = Progress("pictures", None)

    def run(self, members: Callable[[], Iterator[Member]], limit: int | None) -> FetchCounts:
        """Adds members in their order, at most `limit` pictures. Iterates twice: the first pass reads the layout."""
        seen: Counter[str] = Counter()
        with self.progress:
            self.layout = self._read_layout(members())
            for member in members():
                if limit is not None and self.counts.done + self.counts.skipped >= limit:
                    break
                seen[member.name] += 1
                if seen[member.name] > 1:
                    name = f"{member.name} ({seen[member.name]})"
                    self.refuse(name, "duplicate_name: only the first of this name is used")
                else:
                    place = self.layout.place(member.name)
                    if problem := member.problem or place.problem:
                        self.refuse(member.name, problem)
                    else:
                        self._read(member, place)
        return self.counts

    def _read_layout(self, members: Iterator[Member]) -> Layout:
        counts = FolderCounts(self.options.ignore)
        for name in self._readable_names(members):
            counts.add(name)
        layout = read_layout(counts, self.options.layout)
        if (how := layout.describe(self.options.layout)) and not self.options.class_from_make:
            log(f"{self.label.partition(':')[2]}: {how}")
        return layout

    def _read(self, member: Member, place: Place) -> None:
        try:
            head = member.read(HEAD_BYTES)
            content = member.read(-1) if picture_kind(head) else b""
        except READ_ERRORS as error:
            unreadable = getattr(error, "strerror", None)  # None for a damaged gzip
            reason = f"unreadable: {unreadable}" if unreadable else f"damaged: {printable(str(error))[:200]}"
            self.refuse(member.name, reason)
            return
        if len(content) > MAX_PICTURE_BYTES:
            self.refuse(member.name, f"too_large: {len(content)} bytes or more, allowed {MAX_PICTURE_BYTES}")
        elif content:
            self.add(member.name, content, place)
        else:
            self.refuse(member.name, not_a_picture(head))

    def add(self, name: str, content: bytes, place: Place) -> None:
        """Adds a picture unless it is known."""
        url, sha256 = self._url(name), hashlib.sha256(content).hexdigest()
        if self.known.get(url, sha256) != sha256 or self._is_refused(url):  # had other content before
            url = f"{url}@{sha256[:8]}"
        if url in self.known:
            self._count("skipped")
            return
        specs = specs_from_name(name.rpartition("/")[2])
        make = specs["make"] if specs else None
        folder = place.class_name
        class_name = make if make and (self.options.class_from_make or not folder) else folder
        item = PictureItem(url, self.source, class_name=class_name, specs=specs, split=place.split)
        self._count(self.pictures.add_local(content, item))

    def refuse(self, name: str, reason: str) -> None:
        """Adds a ledger line for a refused file, unless there is one. A picture stored under this name is kept."""
        url = self._url(name)
        item = PictureItem(f"{url}@{REFUSED}" if url in self.known else url, self.source)
        if not self._is_refused(item.url):
            self.pictures.ledger.add(picture_line(item, REFUSED, reason=reason))
        self._count(REFUSED)

    def _is_refused(self, url: str) -> bool:
        found = self.pictures.ledger.status(url)
        return found is not None and found[0] == REFUSED

    def _url(self, name: str) -> str:
        return f"{self.label}#{printable(name)}"

    def _count(self, status: str) -> None:
        self.counts.count(status)
        self.counts.show_in(self.progress)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self.pictures.stopping:  # a signal came
            raise Interrupted(f"stopped: {self.counts}; the same command resumes from here")

    def _readable_names(self, members: Iterator[Member]) -> Iterator[str]:
        """A truncated archive is read as far as it goes."""
        with suppress(CutShort):
            for member in members:
                self._raise_if_stopped()
                if member.problem is None:
                    yield member.name


def _known_files(folder: Path, begin: str) -> dict[str, str]:
    """URL → sha256 of the stored pictures that were imported from a source of this name."""
    lines = (line for line in read_lines(folder / "ledger.jsonl") if line and line["url"].startswith(begin))
    last = {line["url"]: line for line in lines}
    done = {url: line for url, line in last.items() if line["status"] == DONE}
    paths = {url: folder / str(line.get("file")) for url, line in done.items()}
    return {url: done[url]["sha256"] for url, path in paths.items() if path.is_file() and path.stat().st_size > 0}


def not_a_picture(head: bytes) -> str:
    if head.startswith(ARCHIVE_MAGIC) or head[257:262] == b"ustar":
        return "nested_archive: archives inside are not opened"
    return f"not_a_picture: {other_kind(head)}, allowed {', '.join(PICTURE_TYPES)}"


def printable(name: str) -> str:
    """A name with unprintable characters and undecodable bytes escaped."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
