"""What lies in a folder of pictures: every file with its class, in one order on every machine.

Sub-folders are classes, in the order of their names; a folder without sub-folders is one class. Hidden files, and the
tables and texts that lie beside pictures, are not looked at. Links are followed, but no folder is entered twice, so a
loop ends.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".txt", ".md", ".html")


@dataclass(frozen=True)
class Found:
    """One file. `name`: its path below the folder, with `/`. `label`: index of its class, -1 for none.

    `fault`: why it cannot be used."""

    path: str
    name: str
    label: int
    fault: str | None = None


def list_pictures(folder: Path, only_class: str) -> tuple[list[str], list[Found]]:
    """(class names, files) of a folder; `only_class` names the class of a folder without sub-folders."""
    try:
        entries = _sorted_entries(str(folder))
    except OSError as error:
        raise UserError(f"data.src: cannot read {folder} ({error.strerror}), allowed a folder of pictures") from error
    visited = {os.path.realpath(folder)}
    classes: list[str] = []
    files: list[Found] = []
    for entry in entries:
        if _is_folder(entry.path):
            inside = list(_walk(entry.path, entry.name, len(classes), visited))
            if any(found.fault is None for found in inside):
                classes.append(entry.name)
                files += inside
            else:  # no class without a picture; what is wrong there is still told
                files += [Found(found.path, found.name, -1, found.fault) for found in inside]
        else:
            files.append(_file(entry.path, entry.name, -1))
    if not classes:
        return [only_class], [Found(found.path, found.name, 0, found.fault) for found in files]
    lost = "no_class: lies beside the class folders"
    return classes, [found if found.label >= 0 else _lacking(found, lost) for found in files]


def _lacking(found: Found, fault: str) -> Found:
    return Found(found.path, found.name, -1, found.fault or fault)


def _walk(folder: str, name: str, label: int, visited: set[str]) -> Iterator[Found]:
    """Every file below a folder, depth first, in the order of names."""
    real = os.path.realpath(folder)
    if real in visited:
        yield Found(folder, name, label, "link: leads to a folder that was read already")
        return
    visited.add(real)
    try:
        entries = _sorted_entries(folder)
    except OSError as error:
        yield Found(folder, name, label, f"unreadable: {error.strerror}")
        return
    for entry in entries:
        below = f"{name}/{entry.name}"
        if _is_folder(entry.path):
            yield from _walk(entry.path, below, label, visited)
        else:
            yield _file(entry.path, below, label)


def _file(path: str, name: str, label: int) -> Found:
    """Checked before it is opened: opening a pipe would wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # a link to nowhere, a link to itself, a file that has just gone
        return Found(path, name, label, f"unreadable: {error.strerror}")
    return Found(path, name, label, None if stat.S_ISREG(mode) else "not_a_file: a pipe, socket or device")


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def _sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    """By the bytes of the name: the same order whatever the locale or the file system."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not _is_ignored(entry.name)]
    return sorted(visible, key=lambda entry: os.fsencode(entry.name))


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower().endswith(TEXT_SUFFIXES)
