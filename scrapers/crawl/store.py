"""`files/<aa>/<sha256>.<ext>` and `pages/<aa>/<sha256 of the URL>.json`: file names are hashes only."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.storage.atomic import TEMP_PREFIX, atomic_write, sync_folder
from harness.storage.json_files import read_json_or_none
from scrapers.crawl.ledger import short_hash

FILE_NAME = re.compile(r"([0-9a-f]{64})\.(jpg|png|webp|avif|heic)")


class PictureFiles:
    """Pictures by content: the same picture from two addresses is one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files = self.folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)

    def save(self, content: bytes, kind: str) -> tuple[str, str]:
        """Writes the picture unless it exists; returns its sha256 and its path inside the folder."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.files / sha256[:2] / f"{sha256}.{kind}"
        if not (path.exists() and path.read_bytes() == content):  # a damaged copy is replaced
            _make_folder(path.parent)
            atomic_write(path, content)
        return sha256, path.relative_to(self.folder).as_posix()

    def scan(self) -> set[int]:
        """The short hashes of all pictures; removes temporary files of a killed process."""
        found = set()
        for path in _entries(self.files):
            name = path.name
            if name.startswith(TEMP_PREFIX):
                os.unlink(path.path)
            elif (match := FILE_NAME.fullmatch(name)) and path.stat().st_size:
                found.add(short_hash(match[1]))
        return found


@dataclass
class CachedPage:
    """A page, or why there is none (`status` gone or refused, with the reason)."""

    url: str
    status: str
    reason: str | None
    http: int | None
    final_url: str
    content_type: str
    text: str
    etag: str | None
    last_modified: str | None
    fetched_at: float  # seconds since 1970


class PageCache:
    """Pages by URL."""

    def __init__(self, folder: Path) -> None:
        self.pages = Path(folder) / "pages"
        self.pages.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        for path in _entries(self.pages):
            if path.name.startswith(TEMP_PREFIX):
                os.unlink(path.path)

    def read(self, url: str) -> CachedPage | None:
        """The cached page; None if missing or damaged."""
        try:
            page = CachedPage(**(read_json_or_none(self._path(url)) or {}))
        except TypeError:
            return None
        valid = isinstance(page.text, str) and isinstance(page.fetched_at, int | float) and page.url == url
        return page if valid else None

    def write(self, page: CachedPage) -> None:
        path = self._path(page.url)
        _make_folder(path.parent)
        atomic_write(path, json.dumps(asdict(page)))

    def _path(self, url: str) -> Path:
        name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        return self.pages / name[:2] / f"{name}.json"


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files in the sub-folders of a folder."""
    with os.scandir(folder) as inner:
        names = [entry.path for entry in inner if entry.is_dir(follow_symlinks=False)]
    for name in names:
        with os.scandir(name) as entries:
            yield from entries
