"""StudioGAN at work as a process group of its own: heard, asked to stop, and never left behind.

In: a command and its working folder. Out: the lines of its stdout, the last lines of both streams, its exit code.
"""

import json
import os
import queue
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.storage.atomic import atomic_write
from harness.storage.json_files import read_json_or_none
from harness.studiogan.log import OURS, LineCutter
from harness.studiogan.shim.process import PARENT_VARIABLE

TAIL_LINES = 15
READ_BYTES = 1 << 16
GROUP_WAIT_SEC, REST_WAIT_SEC = 10.0, 2.0
RECORD = "process.json"
# Ours would reach into its interpreter; torchrun's would make it join a world.
NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class Heard:
    """A line of stdout, and when it came (time.monotonic)."""

    line: str
    at_sec: float


class StudioganProcess:
    """Runs until `end`, which must be called whatever happens. Everything it prints is appended to `raw_log`."""

    def __init__(self, command: list[str], folder: Path, raw_log: Path) -> None:
        self._raw = os.open(raw_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        environment = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
        given = {"PYTHONUTF8": "1", PARENT_VARIABLE: str(os.getpid())}
        try:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**environment, **given}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError:
            os.close(self._raw)
            raise
        self.pid = self._process.pid
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.refusal = ""  # what the shim said on stderr of why it will not start
        self.cut_line = ""  # what stdout ended with, without an end of line
        self.spoke_at_sec = time.monotonic()
        self._cutters = {"stdout": LineCutter(), "stderr": LineCutter()}
        self._parts: queue.SimpleQueue[tuple[str, bytes, float]] = queue.SimpleQueue()
        self._leave = False
        # It listens while we are busy with a checkpoint: the times are right, and StudioGAN never waits for us.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            atomic_write(folder / RECORD, json.dumps({"pid": self.pid}))
        except BaseException:
            self.end()
            raise

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name in self._cutters:
                selector.register(getattr(self._process, name), selectors.EVENT_READ, name)
            while selector.get_map() and not self._leave:
                for key, _ in selector.select(0.2):
                    stream: Any = key.fileobj
                    part = os.read(stream.fileno(), READ_BYTES)
                    if part:
                        self.spoke_at_sec = time.monotonic()
                    else:
                        selector.unregister(stream)
                    self._parts.put((key.data, part, self.spoke_at_sec))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def silent_sec(self) -> float:
        return time.monotonic() - self.spoke_at_sec

    def read(self, timeout_sec: float) -> list[Heard]:
        """New whole lines of stdout; waits no longer than this for something to come."""
        heard: list[Heard] = []
        with suppress(queue.Empty):
            heard += self._take(*self._parts.get(timeout=timeout_sec))
            while True:
                heard += self._take(*self._parts.get_nowait())
        return heard

    def _take(self, name: str, part: bytes, at_sec: float) -> list[Heard]:
        """`part` is empty at the stream's end."""
        _write_whole(self._raw, part)
        cutter = self._cutters[name]
        lines = cutter.feed(part) if part else [rest] if (rest := cutter.finish()) else []
        self.tail.extend(lines)
        if name == "stderr":
            self.refusal = next((line.removeprefix(OURS) for line in lines if line.startswith(OURS)), self.refusal)
            return []
        if not part:
            self.cut_line = lines[0] if lines else ""
            return []
        return [Heard(line, at_sec) for line in lines]

    def ask_to_stop(self) -> None:
        """It finishes its step, saves and leaves; its own processes hear of it from it."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> tuple[int, list[Heard]]:
        """Kills what is left of the group. Exit code (negative: a signal's number) and the last lines of stdout."""
        try:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            code = self._process.wait()
            _wait_for_group(self.pid)
            self._listener.join(REST_WAIT_SEC)  # longer, if somebody outside the group holds its pipe open
            self._leave = True
            self._listener.join()
            return code, self.read(0)
        finally:
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            os.close(self._raw)


def end_left_behind(folder: Path) -> int:
    """Kills what an earlier start left at work in its working folder; how many processes that were."""
    pid = (read_json_or_none(folder / RECORD) or {}).get("pid")
    if not isinstance(pid, int):
        return 0
    # The group's number may be another's by now; nobody else's group works in this folder.
    ours = [member for member in group_members(pid) if _works_in(member, folder)]
    for member in ours:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    if ours:
        _wait_for_group(pid)
    return len(ours)


def group_members(group: int) -> list[int]:
    """Living processes of a group; none on a system without /proc."""
    found = []
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in "ZX":  # state and pgrp of proc(5)
                    found.append(int(name))
    return found


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", folder)
    except OSError:
        return False


def _wait_for_group(group: int) -> None:
    deadline = time.monotonic() + GROUP_WAIT_SEC
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def _write_whole(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
