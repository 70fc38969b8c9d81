"""A data set of Kaggle's through kagglehub, which needs no account for public ones; then it is a folder like others."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from harness.errors import Interrupted, UserError, reason_of


def download_dataset(handle: str) -> Path:
    """The folder that kagglehub keeps the data set in (its own cache); downloaded unless it is there.

    `handle`: owner/name, or owner/name/versions/3. UserError, one line, when it cannot be had.
    """
    by_hand = f"or download the zip of {handle} by hand and import it with SOURCE=archive SRC=path/to/it.zip"
    try:
        import kagglehub
    except ImportError as error:
        raise UserError(f"scrape extra: found no kagglehub, try pip install kagglehub, {by_hand}") from error
    try:
        with redirect_stdout(sys.stderr):  # our own stdout is for results
            folder = Path(kagglehub.dataset_download(handle))
    except (KeyboardInterrupt, Interrupted):
        raise
    except Exception as error:  # requests', kagglehub's and the disk's, of which the last word is what helps
        said = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(f"kaggle: cannot get {handle} ({said}); try again, {by_hand}") from error
    if not folder.is_dir():
        raise UserError(f"kaggle: {handle} came as {folder}, which is no folder; try again, {by_hand}")
    return folder
