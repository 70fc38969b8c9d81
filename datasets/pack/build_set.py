"""Builds a packed training set and its manifest from a folder of pictures, drawn cars, or CIFAR-10.

list (scan/listing.py) → scan in workers (scan/scan.py, scan/run.py) into the scan store → decide (clean/decide.py)
→ split (clean/split.py) → pack. The result does not depend on the number of workers or on interruptions. CIFAR-10
(cifar10/cifar10.py) comes decoded and split.
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
from datasets.clean.rules import UNDECODED, UNPLACED
from datasets.clean.split import assign_splits
from datasets.pack.draw_procedural import draw_procedural
from datasets.pack.manifest import Manifest, escaped, write_manifest
from datasets.pack.recipe import SetPlan, find_complete
from datasets.scan.listing import list_into
from datasets.scan.pool import count_cores, map_in_order
from datasets.scan.run import Mapper, run_scan
from datasets.scan.scan import SCAN_VERSION
from datasets.scan.store import ScanStore, remove_store
from harness.errors import UserError
from harness.images.colour import CONVERSION
from harness.images.decode import MIN_ROWS
from harness.messages import log
from harness.runtime.progress import track
from harness.storage.atomic import atomic_write, clean_leftovers
from harness.storage.hdf5 import PackedWriter
from harness.storage.lock import hold_lock

RESIZER = f"Lanczos over all source pixels (Pillow {PIL.__version__})"


def build_set(
    plan: SetPlan,
    *,
    rebuild: bool = False,
    rescan: bool = False,
    verify: bool = False,
    workers: int | None = None,
    mapper: Mapper = map_in_order,
    classifier: Any | None = None,
) -> list[Path]:
    """Builds the set unless it is complete; returns its packed files: train, and valid if there is one.

    Args:
        rebuild: decide and pack again from the scan store; the old set stays until the new one is complete.
        rescan: the same after deleting the scan store: every file is read again.
        verify: if it is complete, read every picture and compare it with its hash.
        workers: processes that decode; None = all cores, 0 = this process.
        mapper: `map_in_order`, or the same on a cluster.
        classifier: a `datasets.clean.view_classifier.ViewClassifier`; None = the one named by `clean.features`.
    """
    workers = count_cores() if workers is None else workers
    complete = None if rebuild or rescan else find_complete(plan, verify)
    if complete:
        log(f"{plan.name}: complete")
        return complete
    if plan.data.source == "cifar10":
        find_source(plan.data)
    else:
        plan.pictures_folder()  # UserError before anything is written
    try:
        for folder in (plan.manifest.parent, plan.train.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(plan.lock, log):
            for folder in (plan.manifest.parent, plan.train.parent):
                clean_leftovers(folder)
            if rescan:
                remove_store(plan.scan)
            if plan.data.source == "procedural":
                redraw = rescan or (rebuild and not plan.cleanable)
                draw_procedural(plan.raw, plan.data, redraw, workers, replace=rebuild or rescan)
            return _build(plan, classifier, workers, mapper)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
            raise  # our bugs
        remedy = "free disk space if it is full, or read every file again with --rescan (make: RESCAN=1)"
        raise UserError(f"{plan.scan}: cannot be used ({error}); {remedy}") from error
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename or plan.train
        text = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise UserError(f"{where}: cannot be written ({text}); no incomplete file is left") from error


def _build(plan: SetPlan, classifier: Any | None, workers: int, mapper: Mapper) -> list[Path]:
    data, clean = plan.data, plan.clean
    if clean is None:
        classifier = None
    else:
        classifier = classifier or _load_classifier(clean.features)
        if clean.decisions is not None and not plan.decisions_path.exists():  # the clinic may create it
            log(f"clean.decisions: found no {plan.decisions_path}, so no decision is applied")
    settings = {"scan_version": SCAN_VERSION, "pillow": PIL.__version__, "source": data.source}
    settings |= {"img_size": list(data.img_size), "fast_decode": data.fast_decode, "fit": data.fit}
    with ScanStore.open(plan.scan, settings) as store:
        class_names = _fill(store, plan, classifier, workers, mapper)
        classifier_info = decide(store, clean, classifier, plan.decisions)
        published = data.source == "cifar10"
        assign_splits(store, data.valid_fraction, keep_classes=published)
        _refuse_unusable(store, plan)
        trained = {*class_names} if published else store.trained_classes()
        summary = _pack(store, plan, [name for name in class_names if name in trained], classifier_info)
    if not plan.cleanable:  # there is nothing to decide, and the pictures can be drawn or downloaded again
        remove_store(plan.scan)
    _report(plan, summary, [name for name in class_names if name not in trained])
    return [plan.train, *([plan.valid] if summary["valid"] else [])]


def _load_classifier(name: str) -> Any:
    from datasets.clean.view_classifier import load_view_classifier  # imports torch, which only cleaning needs

    return load_view_classifier(name)


def _fill(store: ScanStore, plan: SetPlan, classifier: Any, workers: int, mapper: Mapper) -> list[str]:
    """Fills the store with every file; returns the class names."""
    data = plan.data
    if data.source == "cifar10":
        store.add_decoded(read_cifar10(data), data.source)
        return CLASS_NAMES
    class_names = list_into(store, plan.pictures_folder(), data.set, data.source, data.layout, data.ignore)
    if not store.count():
        raise UserError(f"data.src: found no file in {plan.pictures_folder()}, allowed a folder of pictures")
    store.delete_stale()
    scanned, known = run_scan(store, data, classifier, workers, mapper)
    if known and plan.cleanable:
        log(f"{data.set}: {scanned} files read, {known} known from earlier builds")
    return class_names


def _pack(
    store: ScanStore, plan: SetPlan, class_names: list[str], classifier_info: dict[str, Any] | None
) -> dict[str, Any]:
    """Packed files, manifest and summary. Returns the summary."""
    data = plan.data
    recipe = plan.recipe | (
        {"sorter": {key: classifier_info[key] for key in ("name", "sha256")}} if classifier_info else {}
    )
    unchanged = data.source == "cifar10" and data.img_size == (SIDE_PX, SIDE_PX)
    attributes = {"recipe": recipe, "resizer": "none" if unchanged else RESIZER}
    if data.source == "folder":
        attributes["colours"] = CONVERSION
    labels = {name: number for number, name in enumerate(class_names)}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                PackedWriter(data.hdf5_path(split), *data.img_size, class_names, {**attributes, "split": split})
            )
            for split in store.splits()
        }
        count = store.number("select count(*) from decided where verdict = 'keep'")
        for split, class_name, picture, mirrored in track(store.kept(), count, f"packing {data.set}"):
            writers[split].append(picture[:, ::-1] if mirrored else picture, labels[class_name])
        manifest_sha256 = write_manifest(store, plan.manifest)
        summary = {
            "recipe": plan.recipe_with_places(),
            "sorter": classifier_info,
            "colours": attributes.get("colours"),
            **_count(plan, class_names),
        }
        for writer in writers.values():
            counts = {"valid_count": summary["valid"], "views": summary["views"]}
            writer.attributes |= {"manifest_sha256": manifest_sha256, **counts}
        atomic_write(plan.summary, json.dumps(summary, indent=2) + "\n")
        if not summary["valid"]:
            plan.valid.unlink(missing_ok=True)  # of an older build
        # Leaving this block renames the packed files: the valid set's, then the train set's.
    return summary


def _count(plan: SetPlan, class_names: list[str]) -> dict[str, Any]:
    with Manifest(plan.manifest) as manifest:
        splits = manifest.count("split", "kept")
        classes = manifest.count("class", "kept", max_names=len(class_names))
        counts = {
            "dropped": manifest.count("slug", "not kept"),
            "views": manifest.count("view", "kept and view not null"),
            "decided_by": manifest.count("decided_by"),
            "sources": manifest.count("source", "kept and source not null"),
            "notes": manifest.count("substr(note, 1, instr(note, ':') - 1)", "kept and note not null"),
            "licenses": manifest.count("license", "kept and license not null"),
        }
        return {
            "files": manifest.total(),
            **{split: splits.get(split, 0) for split in ("train", "valid")},
            **{name: dict(sorted(found.items())) for name, found in counts.items()},
            "classes": {name: classes.get(escaped(name), 0) for name in class_names},
        }


def _refuse_unusable(store: ScanStore, plan: SetPlan) -> None:
    if "train" in store.splits():
        return
    dropped = store.dropped()
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    if "no_class" in dropped:
        reasons += "; sub-folders are classes, and files beside them have none: move these into a class folder"
    if not set(dropped) <= {*UNDECODED, *UNPLACED}:
        reasons += "; --set clean.apply=false keeps all that can be decoded"
    raise UserError(f"data.src: none of the {store.count()} files in {plan.pictures_folder()} can be used ({reasons})")


def _report(plan: SetPlan, summary: dict[str, Any], left_out: list[str]) -> None:
    dropped = sum(summary["dropped"].values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items())
    log(
        f"{plan.name}: {summary['train']} training pictures, {summary['valid']} held out, "
        f"{dropped} of {summary['files']} files dropped{' (' + reasons + ')' if reasons else ''}; {plan.manifest}"
    )
    for note, count in summary["notes"].items():
        log(f"{count} of them {note}: at least {MIN_ROWS:.0%} of their rows decode; the manifest names them")
    if plan.data.valid_fraction and not summary["valid"]:
        log("no picture is held out: there is only one, or copies of one")
    for name in left_out:
        log(f"class {name}: left out, it has no training picture")
