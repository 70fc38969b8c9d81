"""Lists a folder of pictures: every file with its class, in the same order on every machine.

harness/images/layout.py decides which sub-folders are classes. In a scraper's folder, recognised by its ledger.jsonl,
the pictures are in files/, and the ledger has their classes (ledger.py). Hidden files, tables and texts are skipped.
Links are followed, but no folder is entered twice, so loops end.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from datasets.scan.ledger import LEDGER, read_ledger
from datasets.scan.store import ListedFile, ScanStore
from harness.errors import UserError
from harness.images.layout import FolderCounts, LayoutName, read_layout
from harness.messages import log

TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".txt", ".md", ".html")
FILES = "files"  # a scraper's pictures


def list_into(
    store: ScanStore,
    folder: Path,
    only_class: str,
    source: str,
    layout: LayoutName = "auto",
    ignore: Sequence[str] | None = None,
) -> list[str]:
    """Lists every file of a folder in the store; returns the class names.

    `only_class`: name of the class if there are no class folders. `source`: of files not in a ledger. `layout`,
    `ignore`: data.layout and data.ignore."""
    if (folder / LEDGER).is_file():
        store.list_files(walk_pictures(folder, FILES), source)
        store.join_ledger(read_ledger(folder / LEDGER), with_splits=layout == "split")
        if layout == "split" and not store.number("select count(*) from listed where split = 'valid'"):
            raise UserError(f"data.layout: found split, but no valid or test in {folder / LEDGER}, try auto")
        return store.assign_classes(only_class, "unknown", None)
    counts = FolderCounts(ignore)
    store.list_files(_counted(walk_pictures(folder), counts), source)
    found = read_layout(counts, layout)
    store.assign_places(found.place, with_splits=layout == "split")
    if source == "folder" and (how := found.describe(layout)):
        log(f"{folder}: {how}")
    return store.assign_classes(found.one_class or only_class, None, "no_class: lies beside the class folders")


def _counted(files: Iterable[ListedFile], counts: FolderCounts) -> Iterator[ListedFile]:
    """Passes the files on and counts those that can be used."""
    for file in files:
        if file.reason is None:
            counts.add(file.name)
        yield file


def walk_pictures(folder: Path, only: str | None = None) -> Iterator[ListedFile]:
    """Every file of a folder, or of its sub-folder `only`; files of one folder come in any order."""
    top = folder / only if only else folder
    try:
        os.scandir(top).close()
    except OSError as error:
        if only and isinstance(error, FileNotFoundError):
            return  # a scraper's folder before its first picture
        raise UserError(f"data.src: cannot read {folder} ({error.strerror}), allowed a folder of pictures") from error
    visited = {os.path.realpath(folder)} if only else set()
    yield from _walk(str(top), only or "", visited)


def _walk(folder: str, name: str, visited: set[str]) -> Iterator[ListedFile]:
    """Every file below a folder. Sub-folders are sorted, so which of two paths to a folder counts is fixed."""
    real = os.path.realpath(folder)
    if real in visited:
        yield ListedFile(folder, name, None, "link: leads to a folder that was read already")
        return
    visited.add(real)
    prefix, inner = f"{name}/" if name else "", []
    try:
        for entry, path in _entries(folder):
            if os.path.isdir(path):
                inner.append((entry, path))
            else:
                yield _file(path, prefix + entry)
    except OSError as error:
        yield ListedFile(folder, name, None, f"unreadable: {error.strerror}")
        return
    for entry, path in sorted(inner, key=lambda pair: os.fsencode(pair[0])):
        yield from _walk(path, prefix + entry, visited)


def _file(path: str, name: str) -> ListedFile:
    """Checks the type, because opening a pipe would block."""
    try:
        found = os.stat(path)
    except OSError as error:  # a broken or circular link, or a file just deleted
        return ListedFile(path, name, None, f"unreadable: {error.strerror}")
    reason = None if stat.S_ISREG(found.st_mode) else "not_a_file: a pipe, socket or device"
    return ListedFile(path, name, None, reason, found.st_size, found.st_mtime_ns)


def _entries(folder: str) -> Iterator[tuple[str, str]]:
    """(name, path) of visible entries, one by one: there may be a million."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.name.startswith(".") or entry.name.lower().endswith(TEXT_SUFFIXES)):
                yield entry.name, entry.path
