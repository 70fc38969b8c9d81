"""Calls above their limit of time or memory end and leave nothing behind."""

import itertools
import os
import signal
import threading
import time

import pytest

from harness.errors import Interrupted
from harness.runtime.bounded_call import BoundedCalls, TooCostly

MIB = 1 << 20


@pytest.fixture
def calls():
    made = BoundedCalls(cpu_sec=0.3, memory_bytes=256 * MIB)
    yield made
    made.stop()


def test_a_call_gives_what_the_function_gives_from_one_process_that_is_not_ours(calls):
    assert calls.call(divmod, 7, 2) == (3, 1)
    pids = {calls.call(os.getpid) for _ in range(3)}
    assert len(pids) == 1 and pids != {os.getpid()}


def test_what_does_not_end_is_ended_in_the_middle_of_C_code_and_the_next_call_works(calls):
    for _ in range(2):
        calls.call(int, "7")
        process = calls.process
        with pytest.raises(TooCostly, match=r"takes more than 0.3 s of CPU time or 256 MB"):
            calls.call(sum, itertools.repeat(1))
        assert process.exitcode == -signal.SIGPROF  # by its own timer
        assert calls.call(divmod, 7, 2) == (3, 1)


def test_what_takes_too_much_memory_is_ended(calls):
    with pytest.raises(TooCostly):
        calls.call(bytes, 300 * MIB)
    assert len(calls.call(bytes, 30 * MIB)) == 30 * MIB


def test_time_that_others_take_does_not_count(calls):
    calls.call(time.sleep, 0.5)


def test_an_error_of_the_function_is_ours(calls):
    with pytest.raises(RuntimeError, match="int:\n(?s:.*)ValueError: invalid literal"):
        calls.call(int, "x")
    assert calls.call(int, "7") == 7


def test_a_cancelled_call_ends_and_none_begins(calls):
    calls.call(int, "7")
    threading.Timer(0.2, calls.cancel).start()
    with pytest.raises(Interrupted):
        calls.call(time.sleep, 500)
    with pytest.raises(Interrupted):
        calls.call(int, "7")
    calls.cancelled = False
    assert calls.call(int, "7") == 7
