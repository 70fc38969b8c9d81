"""Pictures from a folder on this machine, with class folders. Links that lead out of it are not followed."""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness.errors import UserError
from harness.files import open_file
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.records import FetchCounts
from scrapers.local import importer
from scrapers.local.importer import Importer, ImportOptions, Member, printable


def import_folder(
    folder: Path, pictures: PictureSet, *, source: str = "folder", options: ImportOptions | None = None,
    limit: int | None = None, label: str | None = None,
) -> FetchCounts:  # fmt: skip
    """Adds every picture below a folder to the store, in the order of names, at most `limit`; existing ones are kept.
    `label`: the folder's name in the ledger."""
    if not folder.is_dir():
        raise UserError(
            f"SRC: found no folder {folder}, allowed a folder of pictures (SOURCE=archive for a zip or tar)"
        )
    name = f"folder:{printable(label or folder.resolve().name)}"
    return Importer(pictures, source, name, options).run(partial(_members, folder), limit)


def _members(folder: Path) -> Iterator[Member]:
    """All files below the folder but hidden ones, named by their path with `/`."""
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
            yield Member(below, f"unreadable: {error.strerror}", partial(_read, folder / below))
            continue
        inside = []
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inside.append(name)
            else:
                yield Member(name, _file_problem(entry, top), partial(_read, folder / name))
        waiting += reversed(inside)


def _file_problem(entry: os.DirEntry[str], top: str) -> str | None:
    try:
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if os.path.commonpath([top, target]) != top:
                return "link: leads out of the folder"
            if os.path.isdir(target):
                return "link: to a folder inside, which is read in its own place"
        mode = os.stat(entry.path).st_mode
    except OSError as error:  # a broken link, or a file that was just removed
        return f"unreadable: {error.strerror}"
    return None if stat.S_ISREG(mode) else "not_a_file: a pipe, socket or device"


def _read(path: Path, count: int) -> bytes:
    with open_file(path) as stream:
        return stream.read(count if count >= 0 else importer.MAX_PICTURE_BYTES + 1)
