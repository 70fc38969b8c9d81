"""Many tabs that drag a slider at once: is every request answered or superseded, how fast, and does memory stay flat?

In: the address of a studio, which is this machine's. Out: counts, times and memory. `python -m blend drag` starts a
studio for it.
"""

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from harness.errors import UserError
from harness.runtime.child import POLL_SEC, Child, tree_usage

IN_FLIGHT = 2  # requests of a tab at once: the second supersedes the first while it waits
MEASURE_EVERY = 25  # requests: where a drag ends, a tab asks for measures and the sweep
WARM_SHARE = 0.25  # of the time; what is taken by then is no growth


@dataclass
class Count:
    """Of all tabs together. `faults`: what was neither a picture nor superseded."""

    drawn: int = 0
    superseded: int = 0
    faults: list[str] = field(default_factory=list)
    times_sec: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, said: dict[str, Any] | None, fault: str, sec: float) -> None:
        with self.lock:
            if said is None:
                self.faults.append(fault)
            elif said.get("superseded"):
                self.superseded += 1
            else:
                self.drawn += 1
                self.times_sec.append(sec)


def drag(address: str, tabs: int, requests: int, stop: threading.Event | None = None) -> Count:
    """Each of `tabs` tabs asks `requests` times, or until `stop` is set."""
    count, halt = Count(), stop or threading.Event()
    with ThreadPoolExecutor(tabs * IN_FLIGHT) as hands:
        asking = [
            hands.submit(_hand, address, tab, hand, requests // IN_FLIGHT, count, halt)
            for tab, hand in product(range(tabs), range(IN_FLIGHT))
        ]
    for hand in asking:
        hand.result()
    return count


def _hand(address: str, tab: int, hand: int, requests: int, count: Count, stop: threading.Event) -> None:
    parts, chance = urlsplit(address), random.Random(1000 * tab + hand)
    line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    for number in range(requests):
        if stop.is_set():
            break
        query = f"o=seed-{tab}&c=seed-{tab + 100}&i={chance.random():.2f}&tab=t{tab}"
        kinds = ["draw", "measure", "sweep"] if number % MEASURE_EVERY == MEASURE_EVERY - 1 else ["draw"]
        for kind in kinds:
            began, said, fault = time.perf_counter(), None, ""
            try:
                line.request("GET", f"/{kind}?{query}")
                answer = line.getresponse()
                found = json.loads(answer.read())
                said = found if answer.status == 200 and "needs" not in found else None
                fault = f"{answer.status} {found.get('error', found)}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                fault = f"{type(error).__name__}: {error}"
                line.close()
            count.add(said, fault, time.perf_counter() - began)
    line.close()


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
        _wait_until_prepared(address)
        began_mb = _memory_mb(server.pid)
        stop, watch = threading.Event(), threading.Event()
        samples: list[float] = []
        clock = threading.Thread(target=_watch, args=(server.pid, seconds, stop, watch, samples))
        clock.start()
        count = drag(address, tabs, sys.maxsize, stop)
        watch.set()
        clock.join()
    finally:
        server.stop()
    warm = samples[int(WARM_SHARE * len(samples))] if samples else began_mb
    times = np.array(count.times_sec or [np.nan]) * 1000
    return {
        "tabs": tabs,
        "seconds": seconds,
        "drawn": count.drawn,
        "superseded": count.superseded,
        "faults": count.faults[:5],
        "ms_median": round(float(np.median(times))),
        "ms_p95": round(float(np.quantile(times, 0.95))),
        "memory_mb": {"before": round(began_mb), "warm": round(warm), "after": round(samples[-1] if samples else 0)},
    }


def _wait_until_prepared(address: str) -> None:
    parts = urlsplit(address)
    line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1800)
    line.request("GET", "/jobs/prepare")
    line.getresponse().read()
    line.close()


def _watch(pid: int, seconds: float, stop: threading.Event, over: threading.Event, samples: list[float]) -> None:
    end = time.monotonic() + seconds
    while not over.is_set():
        samples.append(_memory_mb(pid))
        if time.monotonic() >= end:
            stop.set()
        over.wait(1.0)
    samples.append(_memory_mb(pid))


def _memory_mb(pid: int) -> float:
    """Resident memory; nan where the system does not say."""
    usage = tree_usage(pid)
    return float("nan") if usage is None else usage.peak_rss_mb
