"""`python -m datasets bench`: benchmarks of this stage, with baselines from the same run.

speed: CPU time per additional picture, beside Pillow alone and, if installed, StudioGAN's `make_hdf5`; the start is
measured separately. memory: peak of all processes at two numbers of pictures. duplicates: planted copies found, and
false ones among distinct renders. hostile: 500 damaged files. kills: killed builds end with the same set.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from datasets.bench import robustness, studiogan
from datasets.bench.bare_pillow import SIZE_PX, decode_and_shrink
from datasets.bench.files import ROOT, WORKERS, NoFeatures, make_plan, write_photos
from datasets.pack.build_set import build_set
from harness.cli import AS_PATH
from harness.errors import UserError
from harness.messages import log
from harness.runtime.child import Usage, tree_usage

PARTS = ("speed", "memory", "duplicates", "hostile", "kills")
ROUNDS = 5
FEW = 8  # the smaller set has one photo in FEW; what both sets cost alike is the start
SAMPLE_SEC = 0.05
INPUTS_PX = (64, 224)


def bench_command(
    only: Annotated[str | None, typer.Option(help=f"One of {', '.join(PARTS)}; default: all.")] = None,
    count: Annotated[int, typer.Option(min=16, help="Photos for speed; memory uses 3 and 12 times as many.")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    folder: Annotated[
        Path | None, typer.Option(help="Work folder, which is kept; default: a temporary one.", **AS_PATH)
    ] = None,
) -> None:
    """Measure this stage: CPU time, memory, duplicates, hostile files, kills."""
    if only is not None and only not in PARTS:
        raise UserError(f"--only: found {only!r}, allowed {', '.join(PARTS)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with _workplace(folder):
        for part in PARTS if only is None else (only,):
            for line in {
                "speed": lambda: measure_speed(count, seed),
                "memory": lambda: measure_memory(3 * count, 12 * count, seed),
                "duplicates": lambda: robustness.measure_duplicates(seed),
                "hostile": lambda: robustness.measure_hostile(seed),
                "kills": lambda: robustness.measure_kills(seed),
            }[part]():
                print(f"{part}: {line}", flush=True)


@contextmanager
def _workplace(folder: Path | None) -> Iterator[None]:
    """Works below one folder, which is deleted at the end unless it was given."""
    before = Path.cwd()
    place = Path(tempfile.mkdtemp(prefix="carforge-bench-")) if folder is None else folder.resolve()
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


# ---- speed ------------------------------------------------------------------------------------------------------


def measure_speed(count: int, seed: int) -> Iterator[str]:
    photos, few = Path(f"photos-{count}"), Path(f"photos-{count // FEW}-of-{count}")
    log(f"making {count} photos")
    write_photos(photos, count, seed)
    _link_first(photos, few, count // FEW)
    ways: dict[str, Callable[[Path], Any]] = {
        "bare": partial(_each, decode_and_shrink),
        "bare, cropped": partial(_each, partial(decode_and_shrink, crop=True)),
        "not cleaned": partial(_build_anew, None),
        **{f"cleaned, input of {px} px": partial(_build_anew, px) for px in INPUTS_PX},
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}  # ms per picture
    start: dict[str, list[float]] = {name: [] for name in ways}  # s, for an empty set
    for number in range(ROUNDS):
        for name, way in ways.items():
            log(f"round {number + 1} of {ROUNDS}: {name}")
            part_sec, whole_sec = _cpu_sec_of(partial(way, few)), _cpu_sec_of(partial(way, photos))
            slope_sec = (whole_sec - part_sec) / (count - count // FEW)
            spent[name].append(slope_sec * 1e3)
            start[name].append(whole_sec - count * slope_sec)
    kilobytes = sum(path.stat().st_size for path in photos.iterdir()) / count / 1e3
    yield f"{count} JPEGs, 300-1000 px wide, {kilobytes:.0f} kB, to {SIZE_PX} px, {WORKERS} processes; CPU time of all"
    for name, found in spent.items():
        ratios = [
            statistics.median(bare / ours for bare, ours in zip(spent[base], found, strict=True))
            for base in ("bare", "bare, cropped")
        ]
        line = f"{name:20} {statistics.median(found):6.2f} ms a picture, {ratios[0]:.2f} x the speed of bare decoding"
        line += f" + Lanczos, {ratios[1]:.2f} x that of the cropped middle"
        yield f"{line}; {statistics.median(start[name]):.2f} s to start"
    ours_ms = statistics.median(spent[f"cleaned, input of {INPUTS_PX[0]} px"])
    yield from studiogan.measure(photos, SIZE_PX, ours_ms, make_plan("speed", photos, SIZE_PX).train)


def _each(function: Callable[[str], None], photos: Path) -> None:
    """With as many processes as the stage uses, in the standard library's pool."""
    paths = sorted(str(path) for path in photos.iterdir())
    with get_context("spawn").Pool(WORKERS) as pool:
        pool.map(function, paths, chunksize=8)
        pool.close()
        pool.join()


def _build_anew(input_px: int | None, photos: Path) -> None:
    """The whole stage with worker processes, from the listing to the packed set, without the report."""
    changes, classifier = (["clean.apply=false"], None) if input_px is None else ([], NoFeatures(input_px))
    build_set(make_plan("speed", photos, SIZE_PX, *changes), rescan=True, workers=WORKERS, classifier=classifier)


def _link_first(photos: Path, part: Path, count: int) -> None:
    """Hard links to the first photos of another folder."""
    part.mkdir(exist_ok=True)
    for path in sorted(photos.iterdir())[:count]:
        if not (part / path.name).exists():
            os.link(path, part / path.name)


def _cpu_sec_of(way: Callable[[], Any]) -> float:
    began = _cpu_sec()
    way()
    return _cpu_sec() - began


def _cpu_sec() -> float:
    """CPU time of this process and of its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# ---- memory -----------------------------------------------------------------------------------------------------


def measure_memory(few: int, many: int, seed: int) -> Iterator[str]:
    """Of `python -m datasets folder` with features and report, on small photos."""
    photos = Path(f"small-{many}")
    log(f"making {many} small photos")
    write_photos(photos, many, seed, (200, 320))
    part = Path(f"small-{few}")
    _link_first(photos, part, few)
    peaks = []
    for folder, count in ((part, few), (photos, many)):
        log(f"building a set of {count}")
        peaks.append(_peak_mib(["folder", str(folder), "--name", f"memory-{count}", "--size", str(SIZE_PX)]))
        yield f"{count} pictures, {WORKERS} workers: peak {peaks[-1]:.0f} MiB resident in all processes together"
    yield f"{many} against {few}: {100 * (peaks[1] / peaks[0] - 1):+.1f} %"


def _peak_mib(arguments: list[str]) -> float:
    """Peak of the resident memory of a build and all its processes; shared pages count in each."""
    command = [sys.executable, "-m", "datasets", *arguments, "--workers", str(WORKERS), "--rescan"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, (tree_usage(process.pid) or Usage()).peak_rss_mb)
        time.sleep(SAMPLE_SEC)
    if process.returncode:
        raise RuntimeError(f"{command}: ended with {process.returncode}")
    return peak
