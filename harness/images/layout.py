"""The layout of a folder or an archive of pictures: which sub-folders are classes, splits, wrappers or litter.

Takes file names with `/` and gives each file a class and a split; `make scrape` and `make dataset` both use it.
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
# Left beside pictures by systems, viewers and people. Hidden files and folders are always litter.
LITTER = (
    *("@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *("__MACOSX", "Thumbs.db", "desktop.ini", "thumbs", "thumbnails", "rejected", "rejects", "trash", "deleted"),
)
SPLITS: dict[str, Literal["train", "valid"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "test", "testing", "eval"), "valid"),
}
MAX_NAMED = 5  # classes or litter names in a message


@dataclass(frozen=True)
class Place:
    """Class and split of a file. `split`: test counts as valid; None if the folders do not tell. `problem`: why it is
    left out."""

    class_name: str | None = None
    split: Literal["train", "valid"] | None = None
    problem: str | None = None


class FolderCounts:
    """Counts of files by folder, separately for picture suffixes and others.

    `ignore`: patterns of file and folder names that are left out; None = LITTER."""

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
        """The first part of a path that is ignored."""
        for part in parts:
            if part.startswith(".") or any(fnmatchcase(part.lower(), pattern) for pattern in self.ignore):
                return part
        return None

    @property
    def folders(self) -> Counter[tuple[str, ...]]:
        """Folder → number of pictures, or of all files if none has a picture's suffix."""
        return self._pictures or self._others


@dataclass(frozen=True)
class Layout:
    """How the folders are interpreted.

    Attributes:
        counts: the counts it was derived from.
        root: wrapper folders around everything.
        splits: split folders below the root, which contain the classes.
        classes: class folders; none = one class.
        splits_inside: class folders contain split folders.
        loose: number of pictures beside the class folders.
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
            return Place(problem=f"ignored: {litter} matches data.ignore")
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
        """The name of a single class, from the innermost wrapper folder; None if there is none."""
        return to_class_name(self.root[-1]) if self.root and not self.classes and not self.splits else None

    def describe(self, kind: LayoutName) -> str:
        """The interpretation in one line; "" for plain files of one class."""
        names = sorted({to_class_name(name) for name in self.classes})
        text = f"{len(names)} class{'es' * (len(names) != 1)} ({_listed(names)})" if names else "one class"
        text += f" below {'/'.join(self.root)}" if self.root and names else ""
        if self.splits or self.splits_inside:
            found = ", ".join(self.splits) or "train and test folders in each"
            how = "valid and test are held out" if kind == "split" else "pooled; held out with data.layout=split"
            text += f"; {found}: {how}"
        if self.loose and names:
            text += f"; {self.loose} pictures beside the class folders have no class"
        elif self.loose < sum(self.counts.folders.values()) and not (names or self.splits or self.root):
            text += "; sub-folders are not classes (data.layout=classes: they are)"
        if self.counts.litter:
            left = [f"{to_class_name(name)} ({count} files)" for name, count in self.counts.litter.most_common()]
            text += f"; left out: {_listed(left)} (data.ignore)"
        return "" if text == "one class" else text


def read_layout(counts: FolderCounts, kind: LayoutName = "auto") -> Layout:
    """The layout of these files.

    Args:
        kind: auto = recognises wrappers and splits, other folders are classes unless more than half of the pictures
            are beside them; classes = the outermost folders, whatever their names; flat = one class; split = as auto,
            with a UserError if there are no splits.
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
    """`./a/b.jpg` → (a, b.jpg)."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


def split_of(folder: str) -> Literal["train", "valid"] | None:
    """The split named by a word of the folder's name: `test`, `cars_test`."""
    return next((SPLITS[word] for word in _words(folder) if word in SPLITS), None)


def _words(folder: str) -> list[str]:
    return re.split(r"[\s._-]+", folder.lower())


def _as_splits(folders: frozenset[str]) -> tuple[str, ...]:
    """The folders if all of them are splits (train and test, or cars_train and cars_test), else ()."""
    rest = {tuple(word for word in _words(name) if word not in SPLITS) for name in folders}
    alike = len(rest) == 1 and (rest == {()} or len(folders) > 1)
    found = alike and all(split_of(name) for name in folders)
    return tuple(sorted(folders, key=lambda name: (split_of(name), name))) if found else ()


def _common_root(folders: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that contain every picture, down to the first split."""
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
    """The path below a split, which may be repeated: cars_train/cars_train/audi."""
    return folders[2:] if folders[1:2] == folders[:1] else folders[1:]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
