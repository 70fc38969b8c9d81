"""A lock file for one process at a time in a folder; it names its holder and is stale when that has ended."""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.storage.json_files import read_json_or_none

UNREADABLE_WAIT_SEC = 1.0  # a lock file is empty only between its creation and its first write


@contextmanager
def hold_lock(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock file `path` for the block; takes over a stale one. UserError if another process has it."""
    mine = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_start": process_start(os.getpid()),
        "token": secrets.token_hex(8),
    }
    with folder_lock(path.parent):  # O_EXCL still guards the creation where flock does not work
        if path.exists():
            _refuse_or_remove(path, log)
        try:
            _create(path, json.dumps(mine))
        except FileExistsError as error:
            raise UserError(f"{path.parent}: another process has just started here; wait until it ends") from error
    try:
        yield
    finally:
        found = _read(path)
        if found is not None and found.get("token") == mine["token"] and os.getpid() == mine["pid"]:
            with suppress(FileNotFoundError):
                os.unlink(path)


def lock_holder(path: Path) -> int | None:
    """The pid of this host's process that holds this lock file, or None."""
    found = _read(path)
    if found is None or found.get("host") != socket.gethostname():
        return None
    return found["pid"] if _is_alive(found["pid"], found.get("process_start")) else None


def process_start(pid: int) -> str | None:
    """Distinguishes a process from a later one with the same pid; None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":  # ended, but not waited for
        return f"{boot}:ended"
    return f"{boot}:{fields[19]}"  # starttime, field 22 of proc(5); the first two went with the name


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """A short flock between threads and processes of this host, so that reading and replacing files is atomic.
    Network file systems may not support it: then the last writer wins."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, content.encode())
        os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any] | None:
    """The holder; None if the file is gone, empty or not a lock."""
    found = read_json_or_none(path)
    pid = found.get("pid") if found else None
    return found if type(pid) is int and pid > 0 else None  # kill() of 0 or less signals whole groups


def _refuse_or_remove(path: Path, log: Callable[[str], None]) -> None:
    deadline = time.monotonic() + UNREADABLE_WAIT_SEC
    holder = _read(path)
    while holder is None and path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        holder = _read(path)
    if holder is not None:
        pid, host = holder["pid"], holder.get("host")
        if host != socket.gethostname():
            raise UserError(
                f"{path.parent}: found a lock of process {pid} on host {host}, which cannot be checked "
                f"from here; if nothing runs there any more, delete {path}"
            )
        if _is_alive(pid, holder.get("process_start")):
            raise UserError(
                f"{path.parent}: process {pid} on host {host} is working here; wait for it, or stop it with "
                f"`kill {pid}`"
            )
        log(f"took over the lock of process {pid}, which has ended")
    else:
        log("took over an incomplete lock file")
    with suppress(FileNotFoundError):
        os.unlink(path)


def _is_alive(pid: int, start: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's process: alive
    now = process_start(pid)
    return start is None or now is None or start == now
