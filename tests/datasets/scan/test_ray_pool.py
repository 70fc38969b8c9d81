"""Mapping on Ray gives the same results as on this machine; a dead process costs one item."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from datasets.scan.pool import TaskFailed, map_in_order
from datasets.scan.ray_pool import map_on_ray
from harness.errors import UserError
from tests.datasets.stand_in import StandIn, build_set, make_config, noise_picture

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'ray>=2.50')")


def square(number: int) -> int:
    return number * number


def square_or_die(number: int) -> int:
    if number == 21:
        os._exit(7)
    return number * number


def fail(number: int) -> int:
    raise ZeroDivisionError("our bug")


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_it_is_one_clear_line():
    with pytest.raises(UserError, match="cluster extra: ray is not installed.*ray>=2.50"):
        next(map_on_ray(square, range(3)))


@pytest.fixture
def cluster(monkeypatch) -> Iterator[None]:
    """Ray on this machine, whose workers can import this file."""
    import ray  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    here = Path(__file__).parent
    paths = {"env_vars": {"PYTHONPATH": f"{here}:{here.parents[1]}"}}
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, runtime_env=paths)
    yield
    ray.shutdown()


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_results_come_in_order_and_a_death_loses_one_item():
    assert list(map_on_ray(square, iter(range(100)))) == [n * n for n in range(100)]
    results = list(map_on_ray(square_or_die, range(40)))
    assert [n for n, result in enumerate(results) if isinstance(result, TaskFailed)] == [21]
    assert list(map_on_ray(square, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(map_on_ray(fail, range(3)))


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_the_same_set_as_on_this_machine():
    Path("photos").mkdir()
    for number in range(30):
        Image.fromarray(noise_picture(number)).save(f"photos/{number:02d}.png")
    Path("photos/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    config, found = make_config(), set()
    for mapper in (map_in_order, map_on_ray):
        paths = build_set(config.data, config.clean, rescan=True, workers=1, classifier=StandIn(), mapper=mapper)
        found.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths))
    assert len(found) == 1
