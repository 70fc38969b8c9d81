"""StudioGAN at work as a process group of its own: heard, asked to stop, and never left behind.

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
from harness.studiogan.log import OURS
from harness.studiogan.shim.process import PARENT_VARIABLE

LISTEN_SEC, REST_WAIT_SEC = 0.2, 2.0
RECORD = "process.json"
# Ours would reach into its interpreter; torchrun's would make it join a world.
NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class LogLine:
    """A line of stdout, and when it came (time.monotonic)."""

    line: str
    at_sec: float


class StudioganProcess(Child):
    """Runs until `end`, which must be called whatever happens. Everything it prints is appended to `raw_log`."""

    def __init__(self, command: list[str], folder: Path, raw_log: Path) -> None:
        self._raw = os.open(raw_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        environment = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
        given = {"PYTHONUTF8": "1", PARENT_VARIABLE: str(os.getpid())}
        try:
            super().__init__(
                command, cwd=folder, env={**environment, **given}, stdout=subprocess.PIPE,
                start_new_session=True, process_group=-1,  # a session is a group, too, and has no terminal to ask at
            )  # fmt: skip
        except OSError:
            os.close(self._raw)
            raise
        self.refusal = ""  # what the shim said on stderr of why it will not start
        self.cut_line = ""  # what stdout ended with, without an end of line
        self.spoke_at_sec = time.monotonic()
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
        while self._selector.get_map() and not self._leave:
            for name, part in self.parts(LISTEN_SEC):
                if part:
                    self.spoke_at_sec = time.monotonic()
                self._parts.put((name, part, self.spoke_at_sec))

    @property
    def silent_sec(self) -> float:
        return time.monotonic() - self.spoke_at_sec

    def read(self, timeout_sec: float) -> list[LogLine]:
        """New whole lines of stdout; waits no longer than this for something to come."""
        heard: list[LogLine] = []
        with suppress(queue.Empty):
            heard += self._take(*self._parts.get(timeout=timeout_sec))
            while True:
                heard += self._take(*self._parts.get_nowait())
        return heard

    def _take(self, name: str, part: bytes, at_sec: float) -> list[LogLine]:
        """`part` is empty at the stream's end."""
        _write_whole(self._raw, part)
        lines = self.cut(name, part)
        if name == "stderr":
            self.refusal = next((line.removeprefix(OURS) for line in lines if line.startswith(OURS)), self.refusal)
            return []
        if not part:
            self.cut_line = lines[0] if lines else ""
            return []
        return [LogLine(line, at_sec) for line in lines]

    def end(self) -> tuple[int, list[LogLine]]:
        """Kills what is left of the group. Exit code (negative: a signal's number) and the last lines of stdout."""
        try:
            code = self.kill()
            self._listener.join(REST_WAIT_SEC)  # longer, if somebody outside the group holds its pipe open
            self._leave = True
            self._listener.join()
            return code, self.read(0)
        finally:
            self.close()
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
