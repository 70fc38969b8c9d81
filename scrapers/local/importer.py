"""What archives and folders have in common: whose class a file gets, what is no picture, what is told to the ledger."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import Interrupted
from harness.images.magic_bytes import other_kind
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.ledger import picture_line, read_lines
from scrapers.crawl.progress import Progress
from scrapers.crawl.records import DONE, REFUSED, Tally, Wanted
from scrapers.sites.car_specs import specs_from_name

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
MAX_PICTURE_BYTES = 32 << 20
ARCHIVE_BEGINS = (b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"Rar!", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
HEAD_BYTES = 512  # enough to tell a picture, or an archive inside the archive


class Importer:
    """Hands the files of one archive or folder over, one by one. `always_make`: classes are the makes in the names.

    A file that is there as it was before is skipped. One that has other content under the same name gets an address of
    its own, `<name>@<begin of its hash>`: neither is lost.
    """

    def __init__(self, fetcher: Fetcher, source: str, label: str, always_make: bool = False) -> None:
        self.fetcher, self.source, self.label, self.always_make = fetcher, source, label, always_make
        self.root: tuple[str, ...] = ()
        self.known = _known_files(fetcher.folder, f"{label}#")
        self.tally = Tally()
        self.progress = Progress(None)

    def __enter__(self) -> "Importer":
        self.progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.__exit__(*error)

    @property
    def taken(self) -> int:
        return self.tally.done + self.tally.skipped

    def set_root(self, names: Iterable[str]) -> None:
        """Told all names, the importer knows which folders stand around everything and so are no classes."""
        self.root = common_root(names)

    def take(self, name: str, content: bytes) -> None:
        """A picture (by its first bytes)."""
        url, sha256 = self._url(name), hashlib.sha256(content).hexdigest()
        if self.known.get(url, sha256) != sha256 or self._is_refused(url):  # it was something else before
            url = f"{url}@{sha256[:8]}"
        if url in self.known:
            self._count("skipped")
            return
        specs = specs_from_name(name.rpartition("/")[2])
        make = specs["make"] if specs else None
        folder = class_folder(name, self.root)
        class_name = make if make and (self.always_make or not folder) else folder
        self._count(self.fetcher.add_local(content, Wanted(url, self.source, class_name=class_name, specs=specs)))

    def refuse(self, name: str, reason: str) -> None:
        """A line in the ledger for what is not taken, unless it says so already; it takes nothing from a picture that
        had this name before, and is there."""
        url = self._url(name)
        wanted = Wanted(f"{url}@{REFUSED}" if url in self.known else url, self.source)
        if not self._is_refused(wanted.url):
            self.fetcher.ledger.add(picture_line(wanted, REFUSED, reason=reason))
        self._count(REFUSED)

    def _is_refused(self, url: str) -> bool:
        found = self.fetcher.ledger.status(url)
        return found is not None and found[0] == REFUSED

    def _url(self, name: str) -> str:
        return f"{self.label}#{printable(name)}"

    def _count(self, status: str) -> None:
        self.tally.count(status)
        self.progress.show(self.tally)
        if self.fetcher.stopping:  # a signal came
            raise Interrupted(f"stopped: {self.tally}; the same command goes on from here")


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
    return f"not_a_picture: {other_kind(content)}, not jpeg, png or webp"


def common_root(names: Iterable[str]) -> tuple[str, ...]:
    """The folders that every picture lies in: `data/imgs` of data/imgs/audi/1.jpg and data/imgs/bmw/1.jpg."""
    root: tuple[str, ...] | None = None
    for name in names:
        folders = _folders(name)
        if not name.lower().endswith(PICTURE_SUFFIXES) or _is_hidden(name):
            continue
        if root is None:
            root = folders
        shared = 0
        while shared < min(len(root), len(folders)) and root[shared] == folders[shared]:
            shared += 1
        root = root[:shared]
    return root or ()


def class_folder(name: str, root: tuple[str, ...]) -> str | None:
    """The first folder below the root."""
    folders = _folders(name)
    return folders[len(root)] if folders[: len(root)] == root and len(folders) > len(root) else None


def printable(name: str) -> str:
    """A name as text that can be written anywhere, whatever bytes it has."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _folders(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/")[:-1] if part not in ("", "."))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
