"""Results of worker processes come in order; a process that dies or hangs costs one item; our bugs are raised."""

import os
import time
from collections.abc import Container, Mapping
from functools import partial

import pytest

from datasets.scan import pool
from datasets.scan.pool import TaskFailed, map_in_order

NEVER: dict[int, float] = {}


def square(number: int, dies_at: Container[int] = (), sleeps_sec: Mapping[int, float] = NEVER) -> int:
    if number in dies_at:
        os._exit(9)
    time.sleep(sleeps_sec.get(number, 0))
    return number * number


def fail(number: int) -> int:
    raise ZeroDivisionError("our bug")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order(count):
    assert list(map_in_order(square, range(100), count)) == [n * n for n in range(100)]


@pytest.mark.parametrize("count", [1, 2])
def test_a_dead_process_fails_one_item(count):
    results = list(map_in_order(partial(square, dies_at=[13]), range(40), count))
    assert [n for n, result in enumerate(results) if isinstance(result, TaskFailed)] == [13]
    assert results[13].reason == "crash: the decoder ended with code 9"
    assert [r for n, r in enumerate(results) if n != 13] == [n * n for n in range(40) if n != 13]


def test_each_dead_process_fails_its_current_item_alone():
    """What a dying process had not sent is computed again, and no other item fails."""
    results = list(map_in_order(partial(square, dies_at=range(3, 60, 7)), range(60), 2))
    assert [n for n, result in enumerate(results) if isinstance(result, TaskFailed)] == list(range(3, 60, 7))
    assert [r for n, r in enumerate(results) if n % 7 != 3] == [n * n for n in range(60) if n % 7 != 3]


def test_results_of_slow_items_are_sent_one_by_one(monkeypatch):
    """So that progress is visible, and a killed build loses little."""
    monkeypatch.setattr(pool, "CHUNK_ITEMS", 4)
    answers: list[int] = []
    receive = pool._ProcessPool._receive

    def note_and_receive(pool, worker):
        found = receive(pool, worker)
        answers.extend([len(found)] if found else [])
        return found

    monkeypatch.setattr(pool._ProcessPool, "_receive", note_and_receive)
    slowly = partial(square, sleeps_sec=dict.fromkeys(range(3), 1.0))
    assert list(map_in_order(slowly, range(3), 1)) == [0, 1, 4] and answers == [1, 1, 1]
    answers.clear()
    assert list(map_in_order(square, range(8), 1)) == [n * n for n in range(8)] and answers == [4, 4]


def test_a_hanging_item_times_out():
    results = list(map_in_order(partial(square, sleeps_sec={5: 600}), range(12), 2, timeout_sec=4))
    assert [n for n, result in enumerate(results) if isinstance(result, TaskFailed)] == [5]
    assert results[5].reason.startswith("timeout:")


def test_our_own_bug_is_raised():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: our bug"):
        list(map_in_order(fail, range(3), 1))


def test_items_are_not_handed_out_far_ahead(monkeypatch):
    """While the first item is unfinished, the second process may not run through all the others."""
    monkeypatch.setattr(pool, "WINDOW_ITEMS", 8)
    handed: list[int] = []
    send = pool._Worker.send

    def note_and_send(worker, chunk) -> None:
        handed.extend(position for position, _ in chunk)
        send(worker, chunk)

    monkeypatch.setattr(pool._Worker, "send", note_and_send)
    results = map_in_order(partial(square, sleeps_sec={0: 1}), range(400), 2)
    assert next(results) == 0
    assert max(handed) < 2 * 8
    results.close()
