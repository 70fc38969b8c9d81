"""The LRU cache keeps the most recently used values within its limit."""

import threading

from harness.storage.lru import LruCache


def test_what_was_not_used_for_longest_goes_first():
    cache: LruCache[str, int] = LruCache(2)
    for number, key in enumerate("ab"):
        cache.keep(key, number)
    assert cache.get("a") == 0
    cache.keep("c", 2)
    assert [cache.get(key) for key in "abc"] == [0, None, 2]


def test_values_of_different_size_fit_together():
    cache: LruCache[int, str] = LruCache(10, len)
    cache.keep(1, "four")
    cache.keep(2, "six666")
    cache.keep(2, "is there already and would not fit")
    assert (cache.get(1), cache.get(2)) == ("four", "six666")
    cache.keep(3, "x")
    assert (cache.get(1), cache.get(2), cache.get(3)) == (None, "six666", "x")
    cache.keep(4, "larger than all")
    assert [cache.get(key) for key in (2, 3, 4)] == [None] * 3
    cache.keep(5, "0123456789")
    assert cache.get(5) == "0123456789", "what went is not counted any more"


def test_several_threads_may_use_it():
    cache: LruCache[int, int] = LruCache(50)

    def work(start: int) -> None:
        for k in range(2000):
            cache.keep((start + k) % 100, k)
            cache.get(k % 100)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 100, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(cache.get(key) is not None for key in range(100)) == 50
