"""Values in memory that were used last, as many as fit; several threads may use them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Keeps values until their sizes add up to more than `limit`; what was not used for longest goes first.

    `size`: of a value; one each where it is not given.
    """

    def __init__(self, limit: float, size: Callable[[Value], float] = lambda value: 1) -> None:
        self.limit, self.size = limit, size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._total = 0.0

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def keep(self, key: Key, value: Value) -> None:
        """One that is there already stays: equal keys have equal values."""
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self.size(value)
            while self._total > self.limit:
                self._total -= self.size(self._values.popitem(last=False)[1])
