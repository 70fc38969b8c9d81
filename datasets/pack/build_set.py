"""Pictures (a folder's, a scraper's, or cars drawn first) → a packed training set, and a manifest of every file.

list (scan/listing.py) → scan in workers (scan/scan.py, scan/run.py) into the scan store → decide (clean/decide.py)
→ split (clean/split.py) → pack. The result depends neither on the number of workers nor on how often the build was
killed. CIFAR-10 (cifar10/cifar10.py) comes decoded and split.
"""

import errno
import json
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import PIL

from datasets.cifar10.cifar10 import CLASS_NAMES, SIDE_PX, find_source, read_cifar10
from datasets.clean.decide import decide
from datasets.clean.manual_labels import Decision, read_decisions
from datasets.clean.rules import UNDECODED
from datasets.clean.split import assign_splits
from datasets.pack.draw_procedural import draw_raw
from datasets.pack.manifest import Counts, write_manifest
from datasets.pack.recipe import (
    Places,
    cleaning,
    decisions_path,
    find_complete,
    is_cleanable,
    make_recipe,
    pictures_folder,
    recipe_with_place,
    remove_if_there,
)
from datasets.scan.listing import list_into
from datasets.scan.pool import count_cores, map_in_order
from datasets.scan.run import Mapper, survey
from datasets.scan.scan import SCAN_VERSION
from datasets.scan.store_writer import StoreWriter, remove_store
from harness.cli import say
from harness.config.experiment import Data, source_folder
from harness.config.schema import Clean
from harness.errors import UserError
from harness.runtime.progress import track
from harness.storage.atomic import atomic_write, clean_leftovers
from harness.storage.hdf5 import PackedWriter
from harness.storage.lock import hold_lock

RESIZER = f"Lanczos over all source pixels (Pillow {PIL.__version__})"


def build_set(
    data: Data,
    clean: Clean | None = None,
    *,
    rebuild: bool = False,
    rescan: bool = False,
    verify: bool = False,
    workers: int | None = None,
    mapper: Mapper = map_in_order,
    sorter: Any | None = None,
) -> list[Path]:
    """Builds the set unless it is there, and returns its packed files: train, then valid where there is one.

    Args:
        clean: which pictures are left out; None = none that can be decoded.
        rebuild: decide and pack anew even if it is there, from what the scan store knows; the old one stays until the
            new one is complete.
        rescan: the same, and forget the scan store: every file is read again.
        verify: when it is there, read every picture and compare it with its hash.
        workers: processes that decode; None = all cores, 0 = this process.
        mapper: `map_in_order`, or the same on a cluster.
        sorter: a `datasets.clean.view_classifier.Sorter`; None = the one that `clean.features` names.
    """
    workers = count_cores() if workers is None else workers
    complete = None if rebuild or rescan else find_complete(data, clean, verify)
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
            if rescan:
                remove_store(places.scan)
            if data.source == "procedural":
                anew = rescan or (rebuild and not is_cleanable(data))
                draw_raw(places.raw, data, anew, workers, replace=rebuild or rescan)
            clean = cleaning(data, clean)
            if clean is not None and sorter is None:
                sorter = _load_sorter(clean.features)
            return _build(data, clean, sorter, places, workers, mapper)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
            raise  # our bugs
        text = f"{places.scan}: cannot be used ({error}); make room where the disk is full, or read every file again"
        raise UserError(f"{text} with --rescan (make: RESCAN=1)") from error
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename or places.train
        text = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise UserError(f"{where}: cannot be written ({text}); nothing half-made is left") from error


def _build(
    data: Data, clean: Clean | None, sorter: Any | None, places: Places, workers: int, mapper: Mapper
) -> list[Path]:
    settings = {"scan_version": SCAN_VERSION, "pillow": PIL.__version__, "source": data.source}
    settings |= {"img_size": list(data.img_size), "fast_decode": data.fast_decode, "fit": data.fit}
    decisions = {} if clean is None else _read_decisions(data, clean)
    with StoreWriter.open(places.scan, settings) as store:
        class_names = _fill(store, data, sorter, places, workers, mapper)
        told = decide(store, clean, sorter, decisions)
        assign_splits(store, data.valid_fraction)
        _refuse_unusable(store, data)
        with ExitStack() as stack:
            summary = _pack(store, data, clean, class_names, told, places, stack)
            # At the end of this block the packed files get their names: the valid set's, then the train set's.
    if not is_cleanable(data):  # drawn or published: it can be had again, and there is nothing to decide
        remove_store(places.scan)
    _tell(data, places, summary)
    return [places.train, *([places.valid] if summary["valid"] else [])]


def _read_decisions(data: Data, clean: Clean) -> dict[str, Decision]:
    path = decisions_path(data, clean)
    if clean.decisions is not None and not path.exists():  # the clinic may be about to begin it
        say(f"clean.decisions: {path} is not there, so no decision is replayed")
    return read_decisions(path)


def _load_sorter(name: str) -> Any:
    from datasets.clean.view_classifier import load_sorter  # imports torch: sets that are not cleaned are built without

    return load_sorter(name)


def _fill(store: StoreWriter, data: Data, sorter: Any, places: Places, workers: int, mapper: Mapper) -> list[str]:
    """Every file into the store; returns the class names."""
    if data.source == "cifar10":
        store.take_ready(read_cifar10(data), data.source)
        return CLASS_NAMES
    folder = pictures_folder(data)
    class_names = list_into(store, folder, data.set, data.source)
    if not store.count():
        raise UserError(f"data.src: found no file in {folder}, allowed a folder of pictures")
    store.forget_gone()
    scanned, known = survey(store, data, sorter, workers, mapper)
    if known and is_cleanable(data):
        say(f"{data.set}: {scanned} files read, {known} known from before")
    return class_names


def _pack(
    store: StoreWriter,
    data: Data,
    clean: Clean | None,
    class_names: list[str],
    told: dict[str, Any] | None,
    places: Places,
    stack: ExitStack,
) -> dict[str, Any]:
    """Packed files (they get their names when `stack` ends), manifest and summary. Returns the summary."""
    recipe = make_recipe(data, clean) | ({"sorter": {key: told[key] for key in ("name", "sha256")}} if told else {})
    attributes = {"recipe": recipe, "resizer": _resizer(data)}
    writers = {
        split: stack.enter_context(
            PackedWriter(data.hdf5_path(split), *data.img_size, class_names, {**attributes, "split": split})
        )
        for split in store.splits()
    }
    labels = {name: number for number, name in enumerate(class_names)}
    for split, class_name, picture, mirrored in track(store.kept(), store.kept_count(), f"packing {data.set}"):
        writers[split].append(picture[:, ::-1] if mirrored else picture, labels[class_name])
    manifest_sha256, counts = write_manifest(store, places.manifest)
    summary = _summarise(recipe_with_place(data, clean), class_names, counts, told)
    for writer in writers.values():
        views = dict(sorted(counts.views.items()))
        writer.attributes |= {"manifest_sha256": manifest_sha256, "valid_count": summary["valid"], "views": views}
    atomic_write(places.summary, json.dumps(summary, indent=2) + "\n")
    if not summary["valid"]:
        remove_if_there(places.valid)  # of an older build
    return summary


def _resizer(data: Data) -> str:
    return "none" if data.source == "cifar10" and data.img_size == (SIDE_PX, SIDE_PX) else RESIZER


def _summarise(
    recipe: dict[str, Any], class_names: list[str], counts: Counts, told: dict[str, Any] | None
) -> dict[str, Any]:
    """Counts of everything."""
    summary = {"recipe": recipe, "sorter": told, "files": counts.files}
    summary |= {split: counts.splits[split] for split in ("train", "valid")}
    for name in ("dropped", "views", "decided_by", "sources", "licenses"):
        summary[name] = dict(sorted(getattr(counts, name).items()))
    return summary | {"classes": {name: counts.classes[name] for name in class_names}}


def _refuse_unusable(store: StoreWriter, data: Data) -> None:
    splits, dropped = store.splits(), store.dropped()
    if "train" in splits:
        return
    if "valid" in splits:
        raise UserError(
            f"data.valid_fraction: found {data.valid_fraction}, with which all {store.kept_count()} "
            "pictures are kept aside and none is left to train on; try --set data.valid_fraction=0"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    if "no_class" in dropped:
        reasons += "; sub-folders are classes, and files beside them have none: move these into one, or those away"
    if not set(dropped) <= {*UNDECODED, "no_class"}:
        reasons += "; --set clean.apply=false takes all that can be decoded"
    raise UserError(f"data.src: none of the {store.count()} files in {pictures_folder(data)} can be used ({reasons})")


def _tell(data: Data, places: Places, summary: dict[str, Any]) -> None:
    dropped = sum(summary["dropped"].values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items())
    say(
        f"{data.set} at {data.size_name}: {summary['train']} pictures to train on, {summary['valid']} kept aside, "
        f"{dropped} of {summary['files']} files dropped{' (' + reasons + ')' if reasons else ''}; {places.manifest}"
    )
    if data.valid_fraction and not summary["valid"]:
        say("no picture is kept aside: there is only one, or copies of one")
    for name in [name for name, count in summary["classes"].items() if count == 0]:
        say(f"class {name}: no picture of it can be used")
