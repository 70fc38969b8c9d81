"""Protects existing files from OUT=: only files of the same command are replaced without --force."""

from collections.abc import Callable
from pathlib import Path

from harness.errors import UserError


def check_output(path: Path, is_ours: Callable[[Path], bool], force: bool = False, source: Path | None = None) -> None:
    """UserError if writing `path` would replace a foreign file or the source.

    Args:
        is_ours: whether this command wrote an existing file.
        force: replace any file except the source.
        source: the input file.
    """
    if not path.exists():
        return
    if source is not None and source.exists() and path.samefile(source):
        raise UserError(f"OUT: found {path}, which is the source, allowed another file")
    if not force and not is_ours(path):
        raise UserError(
            f"OUT: found {path}, a file that this command did not write, allowed a new name, or --force (make: "
            "FORCE=1) to replace it"
        )
