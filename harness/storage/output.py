"""Files that go where a person says (OUT=): what is not ours is never replaced unasked.

In: a path, and how a file that this command wrote is known. Out: UserError before anything is written.
"""

from collections.abc import Callable
from pathlib import Path

from harness.errors import UserError


def check_output(path: Path, is_ours: Callable[[Path], bool], force: bool = False, source: Path | None = None) -> None:
    """UserError where writing `path` would replace a file of somebody else's, or the one that is read.

    Args:
        is_ours: whether an existing file carries the mark of what is about to be written.
        force: replace whatever is there, except the source.
        source: the file that the result is made from.
    """
    if not path.exists():
        return
    if source is not None and source.exists() and path.samefile(source):
        raise UserError(f"OUT: found {path}, which is the source itself, allowed another file")
    if not force and not is_ours(path):
        raise UserError(
            f"OUT: found {path}, a file that this command did not write, allowed a new name, or --force (make: "
            "FORCE=1) to replace it"
        )
