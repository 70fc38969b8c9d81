"""A load test of the studio: many tabs drag a slider at once. Is every request answered or superseded, how fast, and
does memory stay flat?

In: the address of a local studio. Out: counts, times and memory. `python -m blend drag` starts a studio for it.
"""

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from harness.errors import UserError
from harness.runtime.child import POLL_SEC, Child, tree_usage

IN_FLIGHT = 2  # requests of a tab at once: the second supersedes the first while it waits
MEASURE_EVERY = 25  # requests, after which a drag ends: a tab asks for measures and the sweep
WARM_SHARE = 0.25  # of the time; growth of memory is counted from there


@dataclass
class LoadCounts:
    """Of all tabs together. `errors`: responses that were neither a picture nor superseded."""

    drawn: int = 0
    superseded: int = 0
    errors: list[str] = field(default_factory=list)
    times_sec: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, result: dict[str, Any] | None, problem: str, sec: float) -> None:
        with self.lock:
            if result is None:
                self.errors.append(problem)
            elif result.get("superseded"):
                self.superseded += 1
            else:
                self.drawn += 1
                self.times_sec.append(sec)


def drag(address: str, tabs: int, requests: int, stop: threading.Event | None = None) -> LoadCounts:
    """Each of `tabs` tabs sends `requests` requests, or until `stop` is set."""
    counts, stop = LoadCounts(), stop or threading.Event()
    with ThreadPoolExecutor(tabs * IN_FLIGHT) as pool:
        clients = [
            pool.submit(_client, address, tab, number, requests // IN_FLIGHT, counts, stop)
            for tab, number in product(range(tabs), range(IN_FLIGHT))
        ]
    for client in clients:
        client.result()
    return counts


def _client(address: str, tab: int, seed: int, requests: int, counts: LoadCounts, stop: threading.Event) -> None:
    connection, rng = _connect(address, timeout_sec=120), random.Random(1000 * tab + seed)
    for number in range(requests):
        if stop.is_set():
            break
        query = f"o=seed-{tab}&c=seed-{tab + 100}&i={rng.random():.2f}&tab=t{tab}"
        kinds = ["draw", "measure", "sweep"] if number % MEASURE_EVERY == MEASURE_EVERY - 1 else ["draw"]
        for kind in kinds:
            began, result, problem = time.perf_counter(), None, ""
            try:
                connection.request("GET", f"/{kind}?{query}")
                response = connection.getresponse()
                found = json.loads(response.read())
                result = found if response.status == 200 and "not_inverted" not in found else None
                problem = f"{response.status} {found.get('error', found)}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
                connection.close()
            counts.add(result, problem, time.perf_counter() - began)
    connection.close()


def _connect(address: str, timeout_sec: float) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_sec)


def drag_command(run: str, tabs: int, seconds: float) -> dict[str, Any]:
    """Starts a studio of this run, drags, and stops it. UserError when the studio does not open."""
    if not run or not (Path("runs") / run).is_dir():
        raise UserError(f"RUN: found {run!r}, allowed the name of a folder in runs/, try RUN=demo")
    command = [sys.executable, "-m", "blend", "studio", "--run", run]
    server = Child(command, stdout=subprocess.PIPE, stderr=None, process_group=-1)  # in our group: it ends with us
    try:
        while server.running and not server.lines:
            server.read_output(POLL_SEC)
        if not server.lines:
            raise UserError(f"studio: did not open for run {run}; `make studio RUN={run}` says why")
        address = server.lines[0]
        connection = _connect(address, timeout_sec=1800)
        connection.request("GET", "/jobs/prepare")  # ends when all is prepared
        connection.getresponse().read()
        connection.close()
        memory_mb = [_memory_mb(server.pid)]
        counts = _drag_for(seconds, address, tabs, lambda: memory_mb.append(_memory_mb(server.pid)))
    finally:
        server.stop()
    times_ms = np.array(counts.times_sec or [np.nan]) * 1000
    warm_mb = memory_mb[1 + int(WARM_SHARE * (len(memory_mb) - 1))]
    return {
        "tabs": tabs,
        "seconds": seconds,
        "drawn": counts.drawn,
        "superseded": counts.superseded,
        "errors": counts.errors[:5],
        "ms_median": round(float(np.median(times_ms))),
        "ms_p95": round(float(np.quantile(times_ms, 0.95))),
        "memory_mb": {"before": round(memory_mb[0]), "warm": round(warm_mb), "after": round(memory_mb[-1])},
    }


def _drag_for(seconds: float, address: str, tabs: int, sample: Callable[[], None]) -> LoadCounts:
    """Drags for this time; `sample` is called every second and at the end."""
    stop, end_sec = threading.Event(), time.monotonic() + seconds
    with ThreadPoolExecutor(1) as pool:
        dragging = pool.submit(drag, address, tabs, sys.maxsize, stop)
        try:
            while not dragging.done():
                sample()
                if time.monotonic() >= end_sec:
                    stop.set()
                wait([dragging], timeout=1.0)
        finally:
            stop.set()
    sample()
    return dragging.result()


def _memory_mb(pid: int) -> float:
    """Resident memory; nan where there is no /proc."""
    usage = tree_usage(pid)
    return float("nan") if usage is None else usage.peak_rss_mb
