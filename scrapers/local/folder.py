"""Pictures from a folder on this machine, class folders respected. Links that lead out of it are not followed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UserError
from harness.images.magic_bytes import picture_kind
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import Tally
from scrapers.local.importer import HEAD_BYTES, MAX_PICTURE_BYTES, Importer, printable, why_no_picture


def import_folder(
    folder: Path, fetcher: Fetcher, *, source: str = "folder", always_make: bool = False, limit: int | None = None,
    label: str | None = None, max_bytes: int = MAX_PICTURE_BYTES,
) -> Tally:  # fmt: skip
    """Every picture below a folder into the store, in the order of names. `label`: what its files are called after.

    Imported again, it is read again, and what is there stays as it is.
    """
    if not folder.is_dir():
        raise UserError(
            f"SRC: found no folder {folder}, allowed a folder of pictures (SOURCE=archive for a zip or tar)"
        )
    label = label or folder.resolve().name
    with Importer(fetcher, source, f"folder:{printable(label)}", always_make) as importer:
        importer.set_root(name for name, fault in _files(folder) if fault is None)
        for name, fault in _files(folder):
            if limit is not None and importer.taken >= limit:
                break
            if fault:
                importer.refuse(name, fault)
            else:
                _take(importer, folder, name, max_bytes)
    return importer.tally


def _files(folder: Path) -> Iterator[tuple[str, str | None]]:
    """(path below the folder with `/`, why it is not read or None) of everything but folders and hidden files."""
    top = os.path.realpath(folder)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as found:
                entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not below:
                raise UserError(
                    f"SRC: cannot read {folder} ({error.strerror}), allowed a folder of pictures"
                ) from error
            yield below, f"unreadable: {error.strerror}"
            continue
        inside = []
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inside.append(name)
            else:
                yield name, _fault(entry, top)
        waiting += reversed(inside)


def _fault(entry: os.DirEntry[str], top: str) -> str | None:
    try:
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if os.path.commonpath([top, target]) != top:
                return "link: leads out of the folder"
            if os.path.isdir(target):
                return "link: to a folder, which is read where it is"
        mode = os.stat(entry.path).st_mode
    except OSError as error:  # a link to nowhere or to itself, a file that has just gone
        return f"unreadable: {error.strerror}"
    return None if stat.S_ISREG(mode) else "not_a_file: a pipe, socket or device"


def _take(importer: Importer, folder: Path, name: str, max_bytes: int) -> None:
    try:
        # Not blocking: a pipe that took the file's place would wait for ever.
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            size = os.fstat(descriptor).st_size
            head = stream.read(HEAD_BYTES)
            content = head + stream.read(max(max_bytes, HEAD_BYTES) + 1 - len(head)) if picture_kind(head) else b""
    except OSError as error:
        importer.refuse(name, f"unreadable: {error.strerror}")
        return
    if not picture_kind(head):
        importer.refuse(name, why_no_picture(head))
    elif len(content) > max_bytes:
        importer.refuse(name, f"too_large: {size} bytes, allowed {max_bytes}")
    else:
        importer.take(name, content)
