"""Speed of the Fréchet distance's trace term, compared with scipy's matrix root.

`python -m harness.benchmarks.frechet_speed` prints CPU seconds, the speed-up over scipy, and the difference of the
results on random features.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import typer

from harness.metrics.frechet import Statistics, statistics_of, trace_of_root, with_root


def random_features(count: int, dim: int, seed: int) -> np.ndarray:
    """float32 (count, dim), non-negative and correlated with a wide range of variances, like a network's."""
    mixing = np.random.default_rng(0).standard_normal((dim, dim)) * (1 + np.arange(dim))[:, None] ** -0.7
    rng = np.random.default_rng(seed)
    return np.maximum(rng.standard_normal((count, dim)) @ mixing + 0.2 * rng.standard_normal((count, dim)), 0).astype(
        "f4"
    )


def sqrtm_trace(a: Statistics, b: Statistics) -> float:
    return float(np.trace(np.real(scipy.linalg.sqrtm(a.cov @ b.cov))))


def timed_sec(compute: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    value = compute()
    return time.process_time() - start, value


def main(count: int = 6000, dim: int = 2048) -> None:
    a, b = (statistics_of(random_features(count, dim, seed)) for seed in (1, 2))
    rooted = with_root(a)
    ways = {
        "scipy.linalg.sqrtm(C_a C_b)": lambda: sqrtm_trace(a, b),
        "root by eigh, then eigvalsh": lambda: trace_of_root(a, b),
        "eigvalsh with the root kept": lambda: trace_of_root(rooted, b),
    }
    whole = float(np.trace(a.cov + b.cov))
    print(f"{count} + {count} pictures, {dim} dimensions, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    print(f"{'trace term':30} {'cpu-s':>7} {'gain':>6} {'difference / tr(C_a + C_b)':>28}")
    measured = {name: timed_sec(compute) for name, compute in ways.items()}
    scipys_sec, scipys = next(iter(measured.values()))
    for name, (seconds, value) in measured.items():
        print(f"{name:30} {seconds:7.2f} {scipys_sec / seconds:5.1f}x {2 * abs(value - scipys) / whole:28.1e}")


if __name__ == "__main__":
    typer.run(main)
