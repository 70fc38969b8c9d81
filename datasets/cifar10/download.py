"""Downloads one file: resumes after interruptions, checks the hash, and renames it when complete."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UserError
from harness.runtime.progress import track
from harness.storage.atomic import PARTIAL_SUFFIX, sync_and_rename

CHUNK_BYTES = 1 << 20
ATTEMPTS, PAUSE_SEC, SILENCE_SEC = 3, 2.0, 30.0


class _Cut(Exception):
    """The network failed; the part received is kept."""


def download(url: str, target: Path, size_bytes: int, md5: str, hint: str) -> Path:
    """Downloads `target` unless it exists; returns it. UserError, with `hint`, when that fails.

    The part received stays in `<target>.partial`, and the next call resumes there.
    """
    if target.exists():
        return target
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{target.name}: found the address {url}, allowed https:// or http://, {hint}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    for attempt in range(ATTEMPTS):
        try:
            _fetch_rest(url, partial, size_bytes, hint)
            break
        except _Cut as cut:
            if attempt == ATTEMPTS - 1:
                have = partial.stat().st_size if partial.exists() else 0
                raise UserError(
                    f"{target.name}: cannot be downloaded from {url} ({cut}); {have} of {size_bytes} bytes are kept, "
                    f"the same command resumes from there; or {hint}"
                ) from cut
            time.sleep(PAUSE_SEC)
    if file_md5(partial) != md5:
        os.unlink(partial)
        raise UserError(f"{target.name}: {url} sent another file (its md5 is not {md5}); try again, or {hint}")
    sync_and_rename(partial, target)
    return target


def file_md5(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch_rest(url: str, partial: Path, size_bytes: int, hint: str) -> None:
    """Appends the missing part to the partial file."""
    begin = partial.stat().st_size if partial.exists() else 0
    if begin == size_bytes:
        return
    if begin > size_bytes:
        os.unlink(partial)
        begin = 0
    total = -(-(size_bytes - begin) // CHUNK_BYTES)
    with open(partial, "ab") as stream:
        for place, chunk in track(_chunks(url, begin), total, f"downloading {partial.stem} (MiB)"):
            if place == 0:  # a server without ranges sends the whole file
                stream.truncate(0)
            if place + len(chunk) > size_bytes:
                os.unlink(partial)
                raise UserError(f"{partial.stem}: {url} sends more than the expected {size_bytes} bytes; {hint}")
            stream.write(chunk)
    if partial.stat().st_size < size_bytes:
        raise _Cut("the connection ended")


def _chunks(url: str, begin: int) -> Iterator[tuple[int, bytes]]:
    """(offset, content) from `begin`, or from 0 if the server sends the whole file."""
    headers = {"User-Agent": "carforge", **({"Range": f"bytes={begin}-"} if begin else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_SEC) as response:
            resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
            place = begin if resumed else 0
            while chunk := response.read(CHUNK_BYTES):
                yield place, chunk
                place += len(chunk)
    except urllib.error.HTTPError as error:
        raise _Cut(f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _Cut(str(getattr(error, "reason", "") or error or type(error).__name__)) from error
