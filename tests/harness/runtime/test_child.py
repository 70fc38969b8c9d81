"""Child processes: their output is read completely, and none is left behind."""

import os
import signal
import sys
import time

import pytest

from harness.runtime.child import LAST_LINES, Child, LineSplitter, group_members, tree_usage


def python(code: str, **options) -> Child:
    return Child([sys.executable, "-S", "-c", f"import os, signal, sys, time\n{code}"], **options)


def wait_for_line(child: Child, line: str) -> None:
    deadline = time.monotonic() + 30
    while line not in child.lines:
        assert time.monotonic() < deadline and child.running, (line, child.lines)
        child.read_output(0.05)


def test_each_line_is_heard_and_the_last_are_kept():
    lines_read: list[str] = []
    code = "for n in range(40): print(n, file=sys.stderr)\nsys.stderr.write('half'); sys.exit(3)"
    child = python(code, on_line=lines_read.append)
    while child.running:  # it waits in the pipe
        time.sleep(0.01)
    assert child.wait() == 3
    assert lines_read == [*(str(n) for n in range(40)), "half"] and list(child.lines) == lines_read[-LAST_LINES:]


@pytest.mark.parametrize(
    "said, text",
    [
        (["early", "error: a: found 1", "  allowed 2"], "a: found 1\n  allowed 2"),
        (["one", "two", "three", "four"], "two\nthree\nfour"),
        ([], ""),
    ],
)
def test_why_a_command_of_ours_ended(said, text):
    child = python(f"print({chr(10).join(said)!r}, file=sys.stderr); sys.exit(2)")
    assert child.wait() == 2 and child.error_text(otherwise=3) == text


def test_one_that_is_asked_to_stop_ends_as_it_likes_whatever_it_says():
    """More than a pipe holds."""
    end = "def end(*_): os.write(2, b'y' * 300_000); sys.exit(75)\nsignal.signal(15, end)"
    child = python(f"{end}\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)")
    wait_for_line(child, "ready")
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)  # Ctrl-C does not reach it
    assert child.stop() == 75 and child.lines[-1].endswith("yyy")
    child.request_stop()  # it is gone: its number may be another's


def test_a_killed_one_takes_its_group_with_it():
    deaf = "import subprocess; signal.signal(15, signal.SIG_IGN); subprocess.Popen(['sleep', '60'])"
    child = python(f"{deaf}\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)")
    wait_for_line(child, "ready")
    child.request_stop()
    assert child.running and len(group_members(child.pid)) == 2
    used = tree_usage(child.pid)
    assert used is not None and used.peak_rss_mb > 5
    assert child.kill() == -signal.SIGKILL and not group_members(child.pid) and tree_usage(child.pid) is None
    child.close()


def test_carriage_returns_and_empty_lines():
    assert LineSplitter().feed(b"a\r\n\r\n  \n b\rc\n") == ["a", " b", "c"]
    assert LineSplitter().feed(b"\xff\xfe\n") == ["��"]
