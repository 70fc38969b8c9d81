"""StudioGAN as a process group of its own: read, stopped, and never left running.

In: a command and its working folder. Out: the lines of its stdout, the last lines of both streams, its exit code.
"""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.runtime.child import Child, group_members, wait_for_group
from harness.storage.atomic import atomic_write
from harness.storage.json_files import read_json_or_none
from harness.studiogan.log import SHIM_PREFIX
from harness.studiogan.shim.process import PARENT_VARIABLE

LISTEN_SEC, REST_WAIT_SEC = 0.2, 2.0
RECORD = "process.json"
# Ours would affect its interpreter; torchrun's would make it join a process group.
NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class LogLine:
    """A line of stdout, and its time (time.monotonic)."""

    line: str
    at_sec: float


class StudioganProcess(Child):
    """Runs until `end`, which must always be called. All output is appended to `raw_log`."""

    def __init__(self, command: list[str], folder: Path, raw_log: Path) -> None:
        self._raw = os.open(raw_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        environment = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
        given = {"PYTHONUTF8": "1", PARENT_VARIABLE: str(os.getpid())}
        try:
            super().__init__(
                command, cwd=folder, env={**environment, **given}, stdout=subprocess.PIPE,
                start_new_session=True, process_group=-1,  # a session is a group too, without a terminal to prompt on
            )  # fmt: skip
        except OSError:
            os.close(self._raw)
            raise
        self.refusal = ""  # why the shim refused to start, from stderr
        self.partial_line = ""  # the end of stdout, if it lacks a newline
        self.last_output_sec = time.monotonic()
        self._parts: queue.SimpleQueue[tuple[str, bytes, float]] = queue.SimpleQueue()
        self._stopping = False
        # Reads while we work on a checkpoint: times are right, and StudioGAN never blocks on its output.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            atomic_write(folder / RECORD, json.dumps({"pid": self.pid}))
        except BaseException:
            self.end()
            raise

    def _listen(self) -> None:
        while self._selector.get_map() and not self._stopping:
            for name, part in self.read_chunks(LISTEN_SEC):
                if part:
                    self.last_output_sec = time.monotonic()
                self._parts.put((name, part, self.last_output_sec))

    @property
    def silent_sec(self) -> float:
        return time.monotonic() - self.last_output_sec

    def read(self, timeout_sec: float) -> list[LogLine]:
        """New whole lines of stdout; waits at most `timeout_sec` for output."""
        lines: list[LogLine] = []
        with suppress(queue.Empty):
            lines += self._split_lines(*self._parts.get(timeout=timeout_sec))
            while True:
                lines += self._split_lines(*self._parts.get_nowait())
        return lines

    def _split_lines(self, name: str, part: bytes, at_sec: float) -> list[LogLine]:
        """`part` is empty at the end of the stream."""
        _write_whole(self._raw, part)
        lines = self.to_lines(name, part)
        if name == "stderr":
            self.refusal = next(
                (line.removeprefix(SHIM_PREFIX) for line in lines if line.startswith(SHIM_PREFIX)), self.refusal
            )
            return []
        if not part:
            self.partial_line = lines[0] if lines else ""
            return []
        return [LogLine(line, at_sec) for line in lines]

    def end(self) -> tuple[int, list[LogLine]]:
        """Kills the rest of the group. Exit code (negative: a signal's number) and the last lines of stdout."""
        try:
            code = self.kill()
            self._listener.join(REST_WAIT_SEC)  # a process outside the group may hold the pipe open
            self._stopping = True
            self._listener.join()
            return code, self.read(0)
        finally:
            self.close()
            os.close(self._raw)


def kill_leftover_group(folder: Path) -> int:
    """Kills what an earlier start left running in its working folder. Returns the number of processes."""
    pid = (read_json_or_none(folder / RECORD) or {}).get("pid")
    if not isinstance(pid, int):
        return 0
    # The group id may have been reused; only our processes have this working folder.
    ours = [member for member in group_members(pid) if _works_in(member, folder)]
    for member in ours:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    if ours:
        wait_for_group(pid)
    return len(ours)


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", folder)
    except OSError:
        return False


def _write_whole(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
