"""Downloads a Kaggle data set with kagglehub, which needs no account for public ones."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from harness.errors import Interrupted, UserError, reason_of


def download_dataset(handle: str) -> Path:
    """The data set's folder in kagglehub's cache; downloaded if missing. UserError when that fails.

    `handle`: owner/name, or owner/name/versions/3.
    """
    by_hand = f"or download the zip of {handle} by hand and import it with SOURCE=archive SRC=path/to/it.zip"
    try:
        import kagglehub
    except ImportError as error:
        raise UserError(f"scrape extra: found no kagglehub, try pip install kagglehub, {by_hand}") from error
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            folder = Path(kagglehub.dataset_download(handle))
    except (KeyboardInterrupt, Interrupted):
        raise
    except Exception as error:  # from requests, kagglehub or the disk
        said = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(f"kaggle: cannot get {handle} ({said}); try again, {by_hand}") from error
    if not folder.is_dir():
        raise UserError(f"kaggle: {handle} came as {folder}, which is not a folder; try again, {by_hand}")
    return folder
