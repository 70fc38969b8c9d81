"""`map_in_order` on a Ray cluster.

Every node needs the source folder under the same path; Ray ships this repository from where the command starts.
`ray start` or RAY_ADDRESS select the cluster; otherwise Ray starts on this machine.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from datasets.scan.pool import TaskFailed, keep_memory
from harness.errors import UserError

ITEMS_PER_TASK = 16  # a task costs about a millisecond
TASKS_PER_CORE = 3  # in flight at once; bounds the results held in memory
ROOT = Path(__file__).resolve().parents[2]
TRIES = 2  # of a task whose process died; then its items run one by one


def map_on_ray(function: Callable[[Any], Any], items: Iterable[Any], workers: int = 0) -> Generator[Any, None, None]:
    """function(item) or TaskFailed for every item, in order. `workers` is ignored; all cores of the cluster work."""
    ray = _start()
    remote = ray.remote(max_retries=TRIES - 1)(_apply)
    window = max(2, int(ray.cluster_resources().get("CPU", 1))) * TASKS_PER_CORE
    source, under_way = iter(items), deque()
    while True:
        while len(under_way) < window and (chunk := list(islice(source, ITEMS_PER_TASK))):
            under_way.append((chunk, remote.remote(function, chunk)))
        if not under_way:
            return
        yield from _results(ray, remote, function, *under_way.popleft())


def _apply(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    keep_memory()
    return [function(item) for item in items]


def _results(ray: Any, remote: Any, function: Callable[[Any], Any], items: list[Any], task: Any) -> list[Any]:
    """Results of one task; if its process died, of each item alone, so that only the bad file is lost."""
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
        hint = "try `pip install 'ray>=2.50'`, or omit --on to use this machine's cores"
        raise UserError(f"cluster extra: ray is not installed ({error}); {hint}") from error
    if not ray.is_initialized():
        environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=environment)
    return ray
