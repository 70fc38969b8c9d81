"""A folder of pictures (or cars drawn first) → a packed training set, and a manifest with a line for every file.

list (listing.py) → decode, letterbox bars off, crop, resize (prepare.py, in workers) → split by content hash (split.py)
→ pack. The result does not depend on the number of workers. CIFAR-10 (cifar10.py) comes decoded and split.
"""

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import PIL

from datasets.cifar10 import CLASS_NAMES, SIDE_PX, find_source, read_cifar10
from datasets.listing import Found, list_pictures
from datasets.prepare import Job, Prepared, prepare
from datasets.progress import say, track
from datasets.raw import draw_raw
from datasets.recipe import (
    Places,
    find_complete,
    make_recipe,
    recipe_with_place,
    remove_if_there,
)
from datasets.split import Kept, SplitWriter
from datasets.workers import Lost, count_cores, map_in_order
from harness.atomic import atomic_write, clean_leftovers
from harness.config import Data, source_folder
from harness.errors import UserError
from harness.lockfile import hold_lock

RESIZER = f"Lanczos over all source pixels (Pillow {PIL.__version__})"


def build_set(data: Data, *, rebuild: bool = False, verify: bool = False, workers: int | None = None) -> list[Path]:
    """Builds the set unless it is there, and returns its packed files: train, then valid where there is one.

    Args:
        rebuild: build it anew even if it is there; the old one stays until the new one is complete.
        verify: when it is there, read every picture and compare it with its hash.
        workers: processes that decode; None = all cores, 0 = this process.
    """
    workers = count_cores() if workers is None else workers
    complete = None if rebuild else find_complete(data, verify)
    if complete:
        say(f"{data.set} at {data.size_name}: complete")
        return complete
    places = Places.of(data)
    if data.source == "folder":
        source_folder(data)  # said and there, before anything is made
    elif data.source == "cifar10":
        find_source(data)
    try:
        for folder in (places.manifest.parent, places.train.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(places.lock, say):
            for folder in (places.manifest.parent, places.train.parent):
                clean_leftovers(folder)
            if data.source == "procedural":
                draw_raw(places.raw, data, rebuild, workers)
            return _build(data, places, workers)
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename or places.train
        text = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise UserError(f"{where}: cannot be written ({text}); nothing half-made is left") from error


def _build(data: Data, places: Places, workers: int) -> list[Path]:
    class_names, pictures = _open_source(data, places, workers)
    lines: list[dict[str, Any]] = []
    with ExitStack() as stack:
        packed = SplitWriter(data, class_names, {"recipe": make_recipe(data), "resizer": _resizer(data)}, stack)
        for found, prepared, split in pictures:
            lines.append(_manifest_line(found, prepared, class_names))
            if prepared.picture is not None:
                packed.add(Kept(lines[-1], prepared.picture, found.label, split))
        packed.decide()
        summary = _summarise(recipe_with_place(data), class_names, lines)
        _refuse_unusable(data, places, summary)
        manifest = "".join(json.dumps(line) + "\n" for line in lines).encode()
        packed.stamp({"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "valid_count": summary["valid"]})
        atomic_write(places.manifest, manifest)
        atomic_write(places.summary, json.dumps(summary, indent=2) + "\n")
        if not summary["valid"]:
            remove_if_there(places.valid)  # of an older build
        # At the end of this block the packed files get their names: the valid set's, then the train set's.
    _tell(data, places, summary)
    return [places.train, *([places.valid] if summary["valid"] else [])]


def _open_source(
    data: Data, places: Places, workers: int
) -> tuple[list[str], Iterable[tuple[Found, Prepared, str | None]]]:
    """(class names, every file with what became of it and its split, None = by its hash)."""
    if data.source == "cifar10":
        rows = read_cifar10(data)
        return CLASS_NAMES, track(rows, len(rows), f"packing {data.set}")
    folder = _folder(data, places)
    class_names, files = list_pictures(folder, data.set)
    if not files:
        raise UserError(f"data.src: found no file in {folder}, allowed a folder of pictures")
    prepared = _prepare_all(data, files, workers)
    return class_names, ((found, result, None) for found, result in zip(files, prepared, strict=True))


def _folder(data: Data, places: Places) -> Path:
    return places.raw if data.source == "procedural" else source_folder(data)


def _resizer(data: Data) -> str:
    return "none" if data.source == "cifar10" and data.img_size == (SIDE_PX, SIDE_PX) else RESIZER


def _manifest_line(found: Found, prepared: Prepared, class_names: list[str]) -> dict[str, Any]:
    width, height = prepared.size_px or (None, None)
    return {
        "file": found.name,
        "verdict": "drop" if prepared.picture is None else "keep",
        "reason": prepared.reason,
        "sha256": prepared.sha256,
        "class": class_names[found.label] if found.label >= 0 else None,
        "split": None,
        "row": None,
        "width": width,
        "height": height,
    }


def _summarise(recipe: dict[str, Any], class_names: list[str], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of everything; reasons without what is particular to one file."""
    splits = Counter(line["split"] for line in lines)
    reasons = Counter(line["reason"].partition(":")[0] for line in lines if line["reason"])
    kept = Counter(line["class"] for line in lines if line["split"])
    return {
        "recipe": recipe,
        "files": len(lines),
        "train": splits["train"],
        "valid": splits["valid"],
        "dropped": dict(sorted(reasons.items())),
        "classes": {name: kept[name] for name in class_names},
    }


def _refuse_unusable(data: Data, places: Places, summary: dict[str, Any]) -> None:
    if summary["train"]:
        return
    if summary["valid"]:
        raise UserError(
            f"data.valid_fraction: found {summary['recipe']['valid_fraction']}, with which all {summary['valid']} "
            "pictures are kept aside and none is left to train on; try --set data.valid_fraction=0"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items())
    raise UserError(
        f"data.src: none of the {summary['files']} files in {_folder(data, places)} can be used ({reasons})"
    )


def _tell(data: Data, places: Places, summary: dict[str, Any]) -> None:
    dropped = sum(summary["dropped"].values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items())
    say(
        f"{data.set} at {data.size_name}: {summary['train']} pictures to train on, {summary['valid']} kept aside, "
        f"{dropped} of {summary['files']} files dropped{' (' + reasons + ')' if reasons else ''}; {places.manifest}"
    )
    if data.valid_fraction and not summary["valid"]:
        say("no picture is kept aside: there is only one")
    for name in [name for name, count in summary["classes"].items() if count == 0]:
        say(f"class {name}: no picture of it can be used")


def _prepare_all(data: Data, files: list[Found], workers: int) -> Iterable[Prepared]:
    """One Prepared for every file, in order; those with a fault are not touched."""
    height, width = data.img_size
    good = [found for found in files if found.fault is None]
    jobs = [Job(found.path, height, width, data.fast_decode) for found in good]
    results = iter(track(map_in_order(prepare, jobs, workers), len(jobs), f"packing {data.set}"))
    for found in files:
        result = Prepared(None, found.fault) if found.fault else next(results)
        yield Prepared(None, result.reason) if isinstance(result, Lost) else result
    next(results, None)  # lets the progress bar and the workers end
