"""Parents: pictures of a folder, of one file, or of a packed set's evaluation rows, fitted like training pictures.

In: untrusted files, packed sets. Out: uint8 (N, H, W, 3) with names and hashes.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.class_choice import Label
from harness.config.experiment import Data
from harness.errors import UserError
from harness.images.decode import FORMATS, Fit, PictureError, decode, fit_image, read_file
from harness.images.layout import FolderCounts
from harness.messages import log
from harness.storage.hdf5 import open_packed, spread_rows
from harness.storage.splits import PackedRows, open_evaluation_rows

TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".txt", ".md", ".html")  # allowed beside pictures, as in data.src
TRAINING_ROW = re.compile(r"train-[0-9]{5,9}")
EXACT_PIXELS = 12_000_000  # larger JPEGs are decoded at a smaller scale, in a tenth of time and memory
MIN_SIDE_PX = 8


@dataclass(frozen=True)
class Parents:
    """Pictures to invert.

    Attributes:
        names: of the files below their folder, or `valid-00012` (`train-00012`) for row 12 of a packed set.
        sha256s: of the files, or of the packed rows; hex.
        pictures: uint8 (N, H, W, 3).
        label: the class of all of them, or a mix; None = predicted by the encoder.
        note: as in `PackedRows`.
    """

    names: list[str]
    sha256s: list[str]
    pictures: np.ndarray
    label: Label | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.names)


def load_folder(folder: Path | str, height: int, width: int, fit: Fit, count: int | None = None) -> Parents:
    """All pictures below a folder in order of their names, or one file; `count`: so many, evenly spread.

    Decoded and fitted as for a training set with `data.fit`. Unusable files are logged with the reason; UserError when
    none is left.
    """
    folder = Path(folder)
    paths = [folder] if folder.is_file() else _picture_files(folder)
    top = folder.parent if folder.is_file() else folder
    if count is not None:
        paths = [paths[row] for row in spread_rows(len(paths), count)]
    names, sha256s, pictures = [], [], []
    reasons: list[str] = []
    for path in paths:
        name = path.relative_to(top).as_posix()
        try:
            picture, sha256 = read_parent(path, height, width, fit)
        except PictureError as error:
            reasons.append(f"{_printable(name)}: {error.reason}")
            continue
        names.append(_printable(name))
        sha256s.append(sha256)
        pictures.append(picture)
    if not pictures:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        allowed = f"allowed {', '.join(FORMATS)} of at least {MIN_SIDE_PX}x{MIN_SIDE_PX} pixels"
        raise UserError(f"{_printable(str(top))}: found no usable picture: {reasons[0]}{more}; {allowed}")
    for reason in reasons:
        log(f"left out: {reason}")
    return Parents(names, sha256s, np.stack(pictures))


def check_size(rows: PackedRows, height: int, width: int) -> None:
    """UserError when its pictures do not have the size of the generator's."""
    packed = rows.packed
    if (packed.height, packed.width) != (height, width):
        raise UserError(
            f"{packed.path}: found {packed.height}x{packed.width} pictures, allowed {height}x{width} as the generator "
            "draws; try `make dataset` with the same CONFIG"
        )


def load_held_out(data: Data, count: int) -> Parents:
    """Up to `count` evaluation pictures of a set, evenly spread."""
    with open_evaluation_rows(data) as packed:
        check_size(packed, *data.img_size)
        numbers = spread_rows(packed.count, count)
        names = [f"{packed.split}-{row:05d}" for row in packed.rows[numbers]]
        hashes = [packed.row_sha256(number) for number in numbers]
        return Parents(names, hashes, packed.read(numbers), note=packed.note)


def _picture_files(folder: Path) -> list[Path]:
    """Sorted by the bytes of their names: the same order on every machine."""
    hint = "allowed a folder of pictures, or one picture"
    if not folder.is_dir():
        raise UserError(f"{_printable(str(folder))}: found no such folder, {hint}")
    below = [path.relative_to(folder) for path in folder.rglob("*")]
    visible = [path for path in below if FolderCounts().litter_in(path.parts) is None]
    # Only regular files: opening a pipe would block. A dangling link is reported as unreadable.
    files = [path for path in visible if (folder / path).is_file() or (folder / path).is_symlink()]
    files = [path for path in files if not (folder / path).is_dir() and path.suffix.lower() not in TEXT_SUFFIXES]
    if not files:
        raise UserError(f"{_printable(str(folder))}: found no picture in it, {hint}")
    return [folder / path for path in sorted(files, key=os.fsencode)]


def read_parent(path: Path, height: int, width: int, fit: Fit) -> tuple[np.ndarray, str]:
    """(uint8 (height, width, 3) as for a training set, sha256 of the file). PictureError when it is unusable."""
    content = read_file(path)
    picture, note = fit_content(content, height, width, fit)
    if note:
        log(f"{_printable(path.name)}: {note}")
    return picture, hashlib.sha256(content).hexdigest()


def fit_content(content: bytes, height: int, width: int, fit: Fit) -> tuple[np.ndarray, str]:
    """(uint8 (height, width, 3) of an untrusted file, as for a training set; a note if the file is cut short).
    PictureError when it is unusable."""
    found = decode(content, (height, width), fast_over_px=EXACT_PIXELS)
    if min(found.image.size) < MIN_SIDE_PX:
        shown = f"{found.size_px[0]}x{found.size_px[1]} pixels"
        raise PictureError("too_small", f"{shown}, allowed {MIN_SIDE_PX} or more on each side")
    return fit_image(found.image, height, width, fit), found.note


def _printable(name: str) -> str:
    """A file name with bytes that are not valid text escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_pictures(path: Path, rows: Iterable[int]) -> dict[int, np.ndarray]:
    """Row → uint8 (H, W, 3) of a packed set; empty when the set is unusable."""
    try:
        with open_packed(path) as packed:
            inside = sorted({row for row in rows if 0 <= row < packed.count})
            return dict(zip(inside, packed.read(np.asarray(inside, dtype=np.int64)), strict=True)) if inside else {}
    except UserError:
        return {}
