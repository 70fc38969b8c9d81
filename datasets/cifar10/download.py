"""One file from the network: goes on where it was cut off, is checked against its hash, appears whole or not at all."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.runtime.progress import track
from harness.storage.atomic import PARTIAL_SUFFIX, sync_and_rename

CHUNK_BYTES = 1 << 20
ATTEMPTS, PAUSE_SEC, SILENCE_SEC = 3, 2.0, 30.0


class _Cut(Exception):
    """The network failed; what came until then is kept."""


def download(url: str, target: Path, size_bytes: int, md5: str, hint: str) -> Path:
    """`target`, fetched unless it is there. UserError with `hint` when it cannot be had.

    `<target>.partial` holds what has come; the next call goes on from there.
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
                    f"the same command goes on from there; or {hint}"
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
    """Adds to the partial file what it lacks."""
    begin = partial.stat().st_size if partial.exists() else 0
    if begin == size_bytes:
        return
    if begin > size_bytes:
        os.unlink(partial)
        begin = 0
    with _open(url, begin) as response:
        # A server that knows no ranges sends the whole file (200) instead of the rest (206).
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
        have = begin if goes_on else 0
        chunks = _chunks(response)
        total = -(-(size_bytes - have) // CHUNK_BYTES)
        with open(partial, "ab" if goes_on else "wb") as stream:
            for chunk in track(chunks, total, f"downloading {partial.stem} (MiB)"):
                have += len(chunk)
                if have > size_bytes:
                    os.unlink(partial)
                    raise UserError(f"{partial.stem}: {url} sends more than the {size_bytes} bytes it has; {hint}")
                stream.write(chunk)
    if have < size_bytes:
        raise _Cut("the connection ended")


def _open(url: str, begin: int) -> Any:
    headers = {"User-Agent": "carforge", **({"Range": f"bytes={begin}-"} if begin else {})}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_SEC)
    except urllib.error.HTTPError as error:
        raise _Cut(f"the server says {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _Cut(str(getattr(error, "reason", "") or error or type(error).__name__)) from error


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise _Cut(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk
