"""`ledger.jsonl`: one line per outcome of a URL, append-only; the last line of a URL counts.

A line is written after its picture, in one write: a killed process loses at most the lines of requests in flight, a
power cut those since the last fsync.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.messages import log
from harness.storage.atomic import append_whole
from harness.storage.json_files import line_to_json, read_json_lines, utc_now
from scrapers.crawl.records import DONE, FAILED, GONE, REFUSED, PictureItem

STATUSES = (DONE, FAILED, GONE, REFUSED)
SYNC_LINES, SYNC_SEC = 64, 5.0
MAX_COUNTED_ATTEMPTS = 10_000


def url_key(url: str) -> bytes:
    """12 bytes of the URL's hash, without its fragment, which no server sees."""
    if url.startswith(("http:", "https:")):
        url = url.partition("#")[0]
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def picture_line(item: PictureItem, status: str, **fields: Any) -> dict[str, Any]:
    """A ledger line; `fields`: what is known of the response."""
    line: dict[str, Any] = {
        "url": item.url,
        "status": status,
        "reason": None,
        "http": None,
        "sha256": None,
        "bytes": None,
        "content_type": None,
        "when": utc_now(),
        "file": None,
        "source": item.source,
        "page": item.page,
        "class": item.class_name,
        "specs": item.specs,
        "license": item.license,
        "author": item.author,
        "title": item.title,
        "split": item.split,
        "etag": None,
        "last_modified": None,
        "attempts": 1,
    }
    assert not fields.keys() - line.keys(), fields.keys() - line.keys()
    return line | fields


class Ledger:
    """The ledger of a folder, for the process that holds its lock."""

    def __init__(self, path: Path, files: set[int]) -> None:
        """`files`: the short hashes of the pictures on disk; missing ones are fetched again."""
        self.path = Path(path)
        self.settled: dict[bytes, int] = {}  # url_key → 4 · attempts + status: small integers cost no memory
        self.lock = threading.Lock()
        self.unsynced, self.synced_at = 0, time.monotonic()
        self._mend_end()
        self._read(files)
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def status(self, url: str) -> tuple[str, int] | None:
        """The status of a URL and its attempts in all runs; None if unknown."""
        code = self.settled.get(url_key(url))
        return None if code is None else (STATUSES[code & 3], code >> 2)

    def add(self, line: dict[str, Any]) -> None:
        content = (json.dumps(line, allow_nan=False) + "\n").encode("ascii")
        with self.lock:
            append_whole(self.descriptor, content)  # half a line would damage the next one
            self._remember(line)
            self.unsynced += 1
            if self.unsynced >= SYNC_LINES or time.monotonic() - self.synced_at > SYNC_SEC:
                self._sync()

    def close(self) -> None:
        with self.lock:
            self._sync()
            os.close(self.descriptor)
            self.descriptor = -1  # an abandoned loop may still add: must not hit another file

    def _sync(self) -> None:
        if self.unsynced:
            os.fsync(self.descriptor)
        self.unsynced, self.synced_at = 0, time.monotonic()

    def _remember(self, line: dict[str, Any]) -> None:
        attempts = min(line["attempts"], MAX_COUNTED_ATTEMPTS)
        self.settled[url_key(line["url"])] = 4 * attempts + STATUSES.index(line["status"])

    def _mend_end(self) -> None:
        """Removes a line that a killed process left half written; completes one that only lacks its line end."""
        if not self.path.exists():
            return
        with open(self.path, "rb+") as stream:
            end = last = stream.seek(0, os.SEEK_END)
            tail = b""
            while last > 0 and b"\n" not in tail:
                step = min(1 << 16, last)
                last = stream.seek(last - step)
                tail = stream.read(step) + tail
            torn = tail.rpartition(b"\n")[2]
            if not torn:
                return
            stream.seek(end)
            stream.write(b"\n") if valid_line(line_to_json(torn)) else stream.truncate(end - len(torn))

    def _read(self, files: set[int]) -> None:
        bad = missing = 0
        for line in read_lines(self.path):
            if line is None:
                bad += 1
            elif line["status"] == DONE and short_hash(line["sha256"]) not in files:
                missing += 1
                self.settled.pop(url_key(line["url"]), None)
            else:
                self._remember(line)
        if bad:
            log(f"{self.path}: {bad} lines are damaged and ignored; their URLs are fetched again")
        if missing:
            log(f"{self.path}: {missing} pictures are no longer in files/; they are fetched again")


def short_hash(sha256: str) -> int:
    """The first 64 bits: enough to tell pictures apart."""
    return int(sha256[:16], 16)


def read_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Every line of a ledger; None for a damaged one."""
    return map(valid_line, read_json_lines(path))


def valid_line(line: dict[str, Any] | None) -> dict[str, Any] | None:
    """The line if it is valid, else None."""
    if line is None or not isinstance(line.get("url"), str) or line.get("status") not in STATUSES:
        return None
    attempts = line.setdefault("attempts", 1)
    if type(attempts) is not int or attempts < 0:
        return None
    if line["status"] == DONE:
        sha256 = line.get("sha256")
        if not isinstance(sha256, str) or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            return None
    return line
