"""How a folder or an archive of pictures is laid out: which of its folders are classes, splits, wrappers or litter.

In: the names of its files, with `/`. Out: class and split of each. Whoever takes pictures from a folder or an archive
reads it with this: `make scrape` and `make dataset` see the same classes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from harness.config.class_choice import to_class_name
from harness.errors import UserError

LayoutName = Literal["auto", "classes", "flat", "split"]
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".hif")
# What systems, viewers and people leave beside pictures; hidden files and folders belong to it in any case.
LITTER = (
    *("@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *("__MACOSX", "Thumbs.db", "desktop.ini", "thumbs", "thumbnails", "rejected", "rejects", "trash", "deleted"),
)
SPLITS: dict[str, Literal["train", "valid"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "test", "testing", "eval"), "valid"),
}
NAMED = 5  # classes or litter in a message


@dataclass(frozen=True)
class Place:
    """Where a file belongs. `split`: valid stands for test too; None where the folders do not say it. `fault`: why it
    is left out."""

    class_name: str | None = None
    split: Literal["train", "valid"] | None = None
    problem: str | None = None


class FolderCounts:
    """How many files lie in which folder, of pictures by their suffix and of others; filled name by name.

    `ignore`: names of files and folders, with * and ?, that are left out; None = LITTER."""

    def __init__(self, ignore: Sequence[str] | None = None) -> None:
        self.ignore = tuple(pattern.lower() for pattern in (LITTER if ignore is None else ignore))
        self._pictures: Counter[tuple[str, ...]] = Counter()
        self._others: Counter[tuple[str, ...]] = Counter()
        self.litter: Counter[str] = Counter()

    def add(self, name: str) -> None:
        parts = name_parts(name)
        litter = self.litter_in(parts)
        if litter is not None:
            self.litter[litter] += 1
        elif parts:
            counts = self._pictures if name.lower().endswith(PICTURE_SUFFIXES) else self._others
            counts[parts[:-1]] += 1

    def litter_in(self, parts: Sequence[str]) -> str | None:
        """The first part of a name that is left out."""
        for part in parts:
            if part.startswith(".") or any(fnmatchcase(part.lower(), pattern) for pattern in self.ignore):
                return part
        return None

    @property
    def folders(self) -> Counter[tuple[str, ...]]:
        """Folder → its pictures; where nothing has a picture's suffix, its files."""
        return self._pictures or self._others


@dataclass(frozen=True)
class Layout:
    """How a folder is read.

    Attributes:
        counts: what it was made from.
        root: folders around everything, which mean nothing.
        splits: folders below the root that are splits; classes are below these.
        classes: folders that are classes; none = all is one class.
        splits_inside: folders in those of the classes are splits.
        loose: pictures beside the class folders.
    """

    counts: FolderCounts
    root: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    classes: frozenset[str] = frozenset()
    splits_inside: bool = False
    loose: int = 0

    def place(self, name: str) -> Place:
        parts = name_parts(name)
        litter = self.counts.litter_in(parts)
        if litter is not None:
            return Place(problem=f"ignored: {litter} is left out, as data.ignore says")
        folders = parts[:-1]
        if folders[: len(self.root)] != self.root:
            return Place()
        split, inner = None, folders[len(self.root) :]
        if self.splits:
            if not inner or inner[0] not in self.splits:
                return Place()
            split, inner = split_of(inner[0]), _without_repeat(inner)
        if not inner or inner[0] not in self.classes:
            return Place(split=split)
        return Place(to_class_name(inner[0]), split_of(inner[1]) if self.splits_inside and len(inner) > 1 else split)

    @property
    def one_class(self) -> str | None:
        """What all is called where it is one class, after the innermost folder around it; None = nothing says it."""
        return to_class_name(self.root[-1]) if self.root and not self.classes and not self.splits else None

    def describe(self, kind: LayoutName) -> str:
        """How it was read, in one line for people; "" where there is nothing to tell: files that are one class."""
        names = sorted({to_class_name(name) for name in self.classes})
        text = f"{len(names)} class{'es' * (len(names) != 1)} ({_listed(names)})" if names else "one class"
        text += f" below {'/'.join(self.root)}" if self.root and names else ""
        if self.splits or self.splits_inside:
            found = ", ".join(self.splits) or "train and test folders in each"
            held_out = "valid and test are held out"
            text += (
                f"; {found}: {held_out if kind == 'split' else 'pooled; data.layout=split holds valid and test out'}"
            )
        if self.loose and names:
            text += f"; {self.loose} pictures beside the class folders have no class"
        elif self.loose < sum(self.counts.folders.values()) and not (names or self.splits or self.root):
            text += "; sub-folders are no classes (data.layout=classes: they are)"
        if self.counts.litter:
            left = [f"{to_class_name(name)} ({count} files)" for name, count in self.counts.litter.most_common()]
            text += f"; left out: {_listed(left)} (data.ignore)"
        return "" if text == "one class" else text


def read_layout(counts: FolderCounts, kind: LayoutName = "auto") -> Layout:
    """How a folder with these files is read.

    Args:
        kind: auto = wrappers and splits are recognised, the other folders are classes, unless more than half of the
            pictures lie beside them; classes = the outermost folders, whatever they are called; flat = one class;
            split = as auto. UserError where split finds no splits.
    """
    folders = counts.folders
    if kind == "flat":
        return Layout(counts, loose=folders[()])
    if kind == "classes":
        return Layout(counts, classes=_next_folders(folders, ()), loose=folders[()])
    root = _common_root(folders)
    below, loose = _next_folders(folders, root), folders[root]
    splits = () if loose else _as_splits(below)
    if splits:
        inner: Counter[tuple[str, ...]] = Counter()
        for folder, count in folders.items():
            inner[_without_repeat(folder[len(root) :])] += count
        return Layout(counts, root, splits, _next_folders(inner, ()), loose=inner[()])
    inside = bool(below) and all(
        len(folder) > len(root) + 1 and folder[len(root) + 1].lower() in SPLITS for folder in folders
    )
    if kind == "split" and not inside:
        found = _listed(sorted(below)) or "no folders"
        raise UserError(f"data.layout: found split, but {found}; allowed with folders train, valid, test, try auto")
    if 2 * loose > sum(folders.values()):
        return Layout(counts, root, loose=loose)
    return Layout(counts, root, classes=below, splits_inside=inside, loose=loose)


def name_parts(name: str) -> tuple[str, ...]:
    """Of `./a/b.jpg`: a, b.jpg."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


def split_of(folder: str) -> Literal["train", "valid"] | None:
    """By a word in its name: `test`, `cars_test`."""
    return next((SPLITS[word] for word in _words(folder) if word in SPLITS), None)


def _words(folder: str) -> list[str]:
    return re.split(r"[\s._-]+", folder.lower())


def _as_splits(folders: frozenset[str]) -> tuple[str, ...]:
    """The folders where all of them are splits: train and test, or cars_train and cars_test."""
    rest = {tuple(word for word in _words(name) if word not in SPLITS) for name in folders}
    alike = len(rest) == 1 and (rest == {()} or len(folders) > 1)
    found = alike and all(split_of(name) for name in folders)
    return tuple(sorted(folders, key=lambda name: (split_of(name), name))) if found else ()


def _common_root(folders: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that every picture lies in, down to the first that is a split."""
    root: tuple[str, ...] | None = None
    for folder in folders:
        root = folder if root is None else root
        shared = 0
        while shared < min(len(root), len(folder)) and root[shared] == folder[shared]:
            shared += 1
        root = root[:shared]
    root = root or ()
    cut = next((place for place, name in enumerate(root) if name.lower() in SPLITS), len(root))
    return root[:cut]


def _next_folders(folders: Counter[tuple[str, ...]], root: tuple[str, ...]) -> frozenset[str]:
    return frozenset(folder[len(root)] for folder, count in folders.items() if count and len(folder) > len(root))


def _without_repeat(folders: tuple[str, ...]) -> tuple[str, ...]:
    """What is below a split, which may stand twice: cars_train/cars_train/audi."""
    return folders[2:] if folders[1:2] == folders[:1] else folders[1:]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
