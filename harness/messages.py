"""One line for the person, on stderr. Needs the standard library alone: `make doctor` speaks where packages lack."""

import os
import sys


def say(text: str) -> None:
    """One line on stderr; names that are no valid text are shown with their odd bytes escaped."""
    rank = os.environ.get("RANK", "0")  # of several processes under torchrun
    text = text if rank == "0" else f"[rank {rank}] {text}"
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")  # whole: processes mix theirs
    sys.stderr.flush()
