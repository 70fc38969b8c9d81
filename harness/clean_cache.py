"""`make clean-cache`: what data/ and runs/ take on the disk, and removing what Carforge can make again.

That is kept features and statistics, and pictures that Carforge drew. Training sets, checkpoints, designs and pictures
from elsewhere stay.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.cli import run_command
from harness.errors import UserError
from harness.storage.lock import lock_holder

DRAWN = ".recipe.json"  # in folders of pictures that Carforge drew
FOLDERS = ("data/raw/*", "data/hdf5/*", "data/sets/*", "data/cache", "runs/*")
CACHES = {"data/cache": "features of real pictures", "runs/*/standing": "batch-norm statistics of the studio"}
MB = 1 << 20


@dataclass(frozen=True)
class Usage:
    folder: Path
    size: int  # bytes
    content: str = ""  # what can be made again; empty for all else


def find_usage() -> list[Usage]:
    """Every folder that Carforge fills, with its size; caches inside a run have a row of their own."""
    caches = {path: content for pattern, content in CACHES.items() for path in _folders(pattern)}
    caches |= {path.parent: "pictures drawn by Carforge" for path in Path().glob(f"data/raw/*/{DRAWN}")}
    rows = [Usage(path, _size(path), content) for path, content in caches.items()]
    for path in (found for pattern in FOLDERS for found in _folders(pattern) if found not in caches):
        rows.append(Usage(path, _size(path) - sum(row.size for row in rows if path in row.folder.parents)))
    return sorted(rows, key=lambda row: str(row.folder))


def clean_cache() -> None:
    """Prints the sizes, asks, and removes what can be made again. UserError while a command is at work."""
    rows = find_usage()
    for row in rows:
        note = f"  (can be made again: {row.content})" if row.content else ""
        print(f"{row.size / MB:10,.1f} MB  {row.folder}{note}")
    removable = [row for row in rows if row.content]
    size = sum(row.size for row in removable)
    print(f"{sum(row.size for row in rows) / MB:10,.1f} MB  in all, {size / MB:,.1f} MB of it can be made again")
    if not removable:
        return
    _refuse_while_at_work()
    print("Remove that? Type yes: ", end="", flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        print("nothing removed")
        return
    for row in removable:
        shutil.rmtree(row.folder)
    print(f"removed {size / MB:,.1f} MB")


def _refuse_while_at_work() -> None:
    for path in (*Path("runs").glob("*/lock.json"), *Path("data/sets").glob("*/lock.json")):
        if holder := lock_holder(path):
            raise UserError(f"{path}: process {holder} is at work there; try again when it has finished")


def _folders(pattern: str) -> list[Path]:
    return [path for path in sorted(Path().glob(pattern)) if path.is_dir() and not path.is_symlink()]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    run_command(clean_cache)
