"""A set's folder under data/raw/, locked by one process: pictures, ledger and signals."""

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

    The first of STOP_SIGNALS sets `stopping`, and the running call raises Interrupted (exit 75) soon; the second sets
    `at_once` and raises Interrupted immediately.
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
        self.ledger = Ledger(self.folder / "ledger.jsonl", self.files.scan())
        stack.callback(self.ledger.close)
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(captured_signals(STOP_SIGNALS, self._on_signal))

    def add_local(self, content: bytes, item: PictureItem) -> str:
        """Adds a picture from an archive or a folder to the store and the ledger; returns done or refused."""
        self._raise_if_stopped()
        known = self.ledger.status(item.url)
        if known and known[0] != FAILED:
            return known[0]
        kind, reason = picture_kind(content), None
        if len(content) > self.politeness.max_bytes:
            reason = f"too_large: {len(content)} bytes, allowed {self.politeness.max_bytes}"
        elif kind is None:
            reason = f"format: found {other_kind(content)}, allowed {', '.join(PICTURE_TYPES)}"
        if kind is None or reason:
            self.ledger.add(picture_line(item, REFUSED, reason=reason))
            return REFUSED
        self._save(content, kind, item)
        return DONE

    def _save(self, content: bytes, kind: str, item: PictureItem, **fields: Any) -> None:
        """Writes the file before its line: the ledger lists only existing files."""
        sha256, name = self.files.save(content, kind)
        fields |= {"sha256": sha256, "bytes": len(content), "content_type": PICTURE_TYPES[kind], "file": name}
        self.ledger.add(picture_line(item, DONE, **fields))

    def _raise_if_stopped(self) -> None:
        if self.stopping:
            raise Interrupted("stopped; the same command resumes from here")

    def _on_signal(self, number: int) -> None:
        """The first signal stops after requests in flight, the second at once."""
        if self.stopping:
            self.at_once = True
            raise Interrupted("stopped at once; the same command resumes from here")
        self.stopping = True
        with suppress(OSError):  # print is not reentrant
            os.write(2, f"\n{signal.Signals(number).name}: finishing what is in flight\n".encode())
