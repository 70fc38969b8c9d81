"""How far a crawl is: a bar on a terminal, plain lines elsewhere; always on stderr."""

import sys
import time
from types import TracebackType
from typing import Any

from scrapers.crawl.records import Tally

LINE_EVERY_SEC = 10.0


def say(text: str) -> None:
    """One line on stderr; names that are no valid text are shown with their odd bytes escaped."""
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


class Progress:
    """`with Progress(total) as progress:` and `progress.show(tally)` whenever an address is settled."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.began = self.shown = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("pictures"), BarColumn(), TextColumn("{task.fields[text]}"))
            self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.bar.add_task("", total=self.total, text="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=tally.total, text=self.text(tally, now))
        elif now - self.shown >= LINE_EVERY_SEC:
            say(f"pictures: {self.text(tally, now)}")
            self.shown = now

    def text(self, tally: Tally, now: float) -> str:
        """`120 of 400: 100 good, …, 3.1/s, 90 s left`. The rate and the time left are of what had to be asked for."""
        asked = tally.total - tally.skipped - tally.left
        rate = asked / max(now - self.began, 1e-9)
        text = f"{tally.total} of {self.total}" if self.total else f"{tally.total}"
        text += f": {tally}, {rate:.1f}/s"
        if self.total and rate:
            text += f", {max(self.total - tally.total, 0) / rate:.0f} s left"
        return text
