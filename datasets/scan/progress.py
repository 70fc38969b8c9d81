"""How far a long stage is: a bar on a terminal, plain lines elsewhere; always on stderr."""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY_SEC = 10


def say(text: str) -> None:
    """One line on stderr; file names that are no valid text are shown with their odd bytes escaped."""
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yields the items; meanwhile shows their number, the rate and the time left."""
    if sys.stderr.isatty():
        yield from _bar(items, total, label)
        return
    began = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= LINE_EVERY_SEC and count < total:
            rate = count / (now - began)
            say(f"{label}: {count} of {total}, {rate:.0f}/s, {(total - count) / rate:.0f} s left")
            shown = now


@contextmanager
def watch_files(folder: Path, total: int, label: str) -> Iterator[None]:
    """Shows, while the block runs, how many of `total` files have appeared in `folder` and below."""
    over = threading.Event()

    def watch() -> None:
        for _ in track(_appearing(folder, total, over), total, label):
            pass

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _appearing(folder: Path, total: int, over: threading.Event) -> Iterator[None]:
    seen = 0
    while not over.wait(0.5):
        now = min(total, sum(len(files) for _, _, files in os.walk(folder)))
        yield from [None] * (now - seen)
        seen = max(seen, now)


def _bar(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task) -> Text:
            return Text(f"{task.speed or 0:.0f}/s")

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total)
