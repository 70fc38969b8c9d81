"""Robustness: duplicates, hostile files, killed builds. Part of `python -m datasets bench`."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets.bench import files
from datasets.bench.files import ROOT, WORKERS, NoFeatures, make_plan
from datasets.pack.build_set import build_set
from datasets.pack.recipe import SetPlan
from datasets.procedural.messy import MESSY_TABLE, read_messy, render_messy
from datasets.procedural.sets import render_set
from datasets.scan.pool import map_in_order
from datasets.scan.scan import ScanJob, Scanned, scan
from harness.messages import log

SIZE_PX = 64
RENDERS, MESSY_FILES, HOSTILE_FILES, KILL_FILES, KILLS = 1000, 960, 500, 400, 10
LOG = "CARFORGE_BENCH_LOG"


def _build(name: str, src: Path, *changes: str) -> list[dict[str, Any]]:
    """Scans every file again; returns the manifest's lines."""
    plan = make_plan(name, src, SIZE_PX, *changes)
    build_set(plan, rescan=True, workers=WORKERS, classifier=NoFeatures(64))
    return [json.loads(line) for line in plan.manifest.read_text().splitlines()]


# ---- duplicates -------------------------------------------------------------------------------------------------


def measure_duplicates(seed: int) -> Iterator[str]:
    messy, renders = Path("messy"), Path("renders")
    log(f"drawing {MESSY_FILES} messy files and {RENDERS} distinct cars")
    if not (messy / MESSY_TABLE).exists():
        render_messy(MESSY_FILES, seed, messy)
    for kind in ("ordinary", "concept"):
        if not (renders / kind / "factors.csv").exists():
            render_set(kind, RENDERS // 2, seed, (96, 128), renders / kind)
    table, lines = read_messy(messy / MESSY_TABLE), {line["file"]: line for line in _build("messy", messy)}
    planted = {file: original for file, (_, original, _) in table.items() if original}
    family = {file: planted.get(file, file) for file in table}
    found = {file: line["duplicate_of"] for file, line in lines.items() if line["duplicate_of"]}
    # The best copy stays, which need not be the original: all but one of a family should be found.
    sizes = Counter(family[file] for file in table if family[file] in planted.values())
    wanted = sum(size - 1 for size in sizes.values())
    right = sum(family[file] == family[best] for file, best in found.items())
    yield f"messy, {len(table)} files: {right} of {wanted} planted copies found, {len(found) - right} false"
    drawn = _build("renders", renders, "clean.views=null", "clean.min_ok_score=0")
    false = sum(line["duplicate_of"] is not None for line in drawn)
    yield f"{len(drawn)} distinct renders, half of them concept cars: {false} taken for copies"


# ---- hostile files ----------------------------------------------------------------------------------------------


def measure_hostile(seed: int) -> Iterator[str]:
    folder = Path("hostile")
    files.write_hostile(folder, seed, HOSTILE_FILES)
    noted = {f"files/{name}": sha256 for name, _, sha256 in files.hostile_files(seed, HOSTILE_FILES)}
    lines = _build("hostile", folder, "clean.apply=false")
    reasons = Counter((line["reason"] or "kept").partition(":")[0] for line in lines)
    silent = sum(line["verdict"] == "keep" and noted[line["file"]] is not None for line in lines)
    yield f"{len(lines)} of {HOSTILE_FILES} accounted for: {dict(reasons)}"
    yield f"decoded although the ledger's sha256 shows damage: {silent}"
    (folder / "ledger.jsonl").unlink()
    lines = _build("hostile", folder, "clean.apply=false")
    reasons = Counter((line["reason"] or "kept").partition(":")[0] for line in lines)
    kept = Counter(Path(line["file"]).suffix for line in lines if line["verdict"] == "keep" and noted[line["file"]])
    yield f"the same without a ledger: {len(lines)} accounted for: {dict(reasons)}"
    yield f"damaged ones that then pass: {dict(kept)} (PNG has checksums, JPEG and WEBP do not)"


# ---- kills ------------------------------------------------------------------------------------------------------


def scan_and_log(job: ScanJob) -> Scanned:
    """Scans a file and appends its path to the log."""
    with open(os.environ[LOG], "a") as read_log:
        read_log.write(f"{job.path}\n")
    return scan(job)


def build_logged(src: str, name: str) -> None:
    """A build to be killed."""

    def logged(_: Any, items: Any, workers: int) -> Any:
        return map_in_order(scan_and_log, items, workers)

    plan = make_plan(name, Path(src), SIZE_PX)
    build_set(plan, rebuild=True, workers=WORKERS, mapper=logged, classifier=NoFeatures(64))


def measure_kills(seed: int) -> Iterator[str]:
    photos = Path("killed-photos")
    files.write_photos(photos / "car", KILL_FILES, seed, (200, 320))
    _build("whole", photos)
    whole, killed = (make_plan(name, photos, SIZE_PX) for name in ("whole", "killed"))
    rng = np.random.default_rng(seed)
    points = sorted(rng.choice(np.arange(1, KILL_FILES), KILLS - 3, replace=False).tolist())
    read_log = Path("read.log").resolve()
    for folder in (killed.manifest.parent, killed.train.parent):
        shutil.rmtree(folder, ignore_errors=True)
    read_log.write_text("")
    for number, point in enumerate([*points, "partial", "partial", "manifest"]):
        _kill_at(killed, photos, point, read_log)
        log(f"kill {number + 1} at {point}: {len(read_log.read_text().splitlines())} files read so far")
    _start(photos, read_log).wait()
    reads = read_log.read_text().splitlines()
    pairs = ((killed.train, whole.train), (killed.valid, whole.valid))
    same = all(first.read_bytes() == second.read_bytes() for first, second in pairs)
    yield f"killed at {KILLS} points: HDF5 {'identical' if same else 'NOT identical'} to that of an uninterrupted build"
    again = len(reads) - len(set(reads))
    yield f"{len(set(reads))} files read, {again} reads again after {len(points)} kills while reading"


def _start(photos: Path, read_log: Path) -> subprocess.Popen:
    code = f"from datasets.bench.robustness import build_logged; build_logged({str(photos)!r}, 'killed')"
    env = {**os.environ, "PYTHONPATH": str(ROOT), LOG: str(read_log)}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)


def _kill_at(killed: SetPlan, photos: Path, point: int | str, read_log: Path) -> None:
    """SIGKILL after this number of files read in all, once packing has begun, or once the manifest is new."""
    began = time.time_ns()
    process = _start(photos, read_log)
    while process.poll() is None:
        if isinstance(point, int):
            there = len(read_log.read_text().splitlines()) >= point
        elif point == "partial":
            there = any(killed.train.parent.glob("*.partial"))
        else:
            there = killed.manifest.exists() and killed.manifest.stat().st_mtime_ns >= began
        if there:
            process.kill()
        time.sleep(0.002)
    process.wait()
