"""A set's folder under data/raw/, in the hands of one process: its pictures, their ledger, and when to stop."""

import os
import signal
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from harness.cli import STOP_SIGNALS, captured_signals
from harness.errors import Interrupted
from harness.images.magic_bytes import PICTURE_TYPES, other_kind, picture_kind
from harness.messages import log
from harness.storage.lock import hold_lock
from scrapers.crawl.ledger import Ledger, picture_line
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import DONE, FAILED, REFUSED, PictureItem
from scrapers.crawl.store import PictureFiles


class PictureSet:
    """`with PictureSet(folder, politeness) as pictures:` holds the folder's lock.

    One of STOP_SIGNALS: `stopping` turns true, and whoever is at work raises Interrupted (exit 75) soon; at the second
    one, `at_once` does, and Interrupted is raised there and then.
    """

    def __init__(self, folder: Path, politeness: Politeness) -> None:
        self.folder, self.politeness = Path(folder), politeness
        self.stopping, self.at_once = False, False
        self.closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self.closing = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self.closing.close()

    def _open(self, stack: ExitStack) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(hold_lock(self.folder / "lock.json", log))
        self.files = PictureFiles(self.folder)
        self.ledger = Ledger(self.folder / "ledger.jsonl", self.files.scan(), log)
        stack.callback(self.ledger.close)
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(captured_signals(STOP_SIGNALS, self._on_signal))

    def add_local(self, content: bytes, wanted: PictureItem) -> str:
        """A picture from an archive or a folder into the store and the ledger; → done | refused."""
        self._go_on()
        known = self.ledger.status(wanted.url)
        if known and known[0] != FAILED:
            return known[0]
        kind, reason = picture_kind(content), None
        if len(content) > self.politeness.max_bytes:
            reason = f"too_large: {len(content)} bytes, allowed {self.politeness.max_bytes}"
        elif kind is None:
            reason = f"format: found {other_kind(content)}, allowed {', '.join(PICTURE_TYPES)}"
        if kind is None or reason:
            self.ledger.add(picture_line(wanted, REFUSED, reason=reason))
            return REFUSED
        self._keep(content, kind, wanted)
        return DONE

    def _keep(self, content: bytes, kind: str, wanted: PictureItem, **found: Any) -> None:
        """The file first, then its line: a line without its file would be a lie."""
        sha256, name = self.files.keep(content, kind)
        what = {"sha256": sha256, "bytes": len(content), "content_type": PICTURE_TYPES[kind], "file": name}
        self.ledger.add(picture_line(wanted, DONE, **what, **found))

    def _go_on(self) -> None:
        if self.stopping:
            raise Interrupted("stopped; the same command goes on from here")

    def _on_signal(self, number: int) -> None:
        """A signal: the first one winds down, the second one does not wait for that."""
        if self.stopping:
            self.at_once = True
            raise Interrupted("stopped at once; the same command goes on from here")
        self.stopping = True
        with suppress(OSError):  # not print: it cannot be entered again while it is at work
            os.write(2, f"\n{signal.Signals(number).name}: finishing what is in flight\n".encode())
