"""The map step on a Ray cluster: the same function over the same items, results in the same order.

Every node must see the source folder under the same path, and this repository: Ray takes it along from where the
command is started. `ray start` or RAY_ADDRESS decide which cluster that is; without one Ray starts on this machine.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from datasets.scan.pool import TaskFailed, keep_memory
from harness.errors import UserError

ITEMS_PER_TASK = 16  # a task costs about a millisecond
TASKS_PER_CORE = 3  # under way at once: results are held only within this window
ROOT = Path(__file__).resolve().parents[2]
TRIES = 2  # of a task whose process died; then its items are taken one by one


def map_on_ray(function: Callable[[Any], Any], items: Iterable[Any], workers: int = 0) -> Generator[Any, None, None]:
    """function(item) or Lost for every item, in order. `workers` is for `map_in_order`; the cluster's cores count."""
    ray = _start()
    remote = ray.remote(max_retries=TRIES - 1)(_apply)
    window = max(2, int(ray.cluster_resources().get("CPU", 1))) * TASKS_PER_CORE
    source, under_way = iter(items), deque()
    while True:
        while len(under_way) < window and (some := list(islice(source, ITEMS_PER_TASK))):
            under_way.append((some, remote.remote(function, some)))
        if not under_way:
            return
        some, task = under_way.popleft()
        yield from _results(ray, remote, function, some, task)


def _apply(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    keep_memory()
    return [function(item) for item in items]


def _results(ray: Any, remote: Any, function: Callable[[Any], Any], items: list[Any], task: Any) -> list[Any]:
    """Of one task; where its process died, each item alone, so that one bad file is lost and not sixteen."""
    try:
        return ray.get(task)
    except ray.exceptions.WorkerCrashedError:
        if len(items) == 1:
            return [TaskFailed("crash: the decoder's process ended")]
    alone = [([item], remote.remote(function, [item])) for item in items]
    return [result for one, again in alone for result in _results(ray, remote, function, one, again)]


def _start() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        hint = "try `pip install 'ray>=2.50'`, or leave --on out: this machine's cores are used anyway"
        raise UserError(f"cluster extra: ray is not installed ({error}); {hint}") from error
    if not ray.is_initialized():
        paths = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=paths)
    return ray
