"""What a training set is made of, where its files are, and whether the one on disk is the one that is asked for.

Files, in the order in which they get their names: manifest, summary, valid set, train set. So the train set, which
knows the manifest's hash, tells whether all is there.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import Data, expand_path
from harness.errors import UserError
from harness.hdf5 import open_packed

STAGE_VERSION = 1  # rises when the same pictures would be packed differently


@dataclass(frozen=True)
class Places:
    """Where a set's files are."""

    manifest: Path
    summary: Path
    lock: Path
    raw: Path
    train: Path
    valid: Path

    @classmethod
    def of(cls, data: Data) -> "Places":
        folder, size = Path("data/sets") / data.set, data.size_name
        return cls(
            manifest=folder / f"manifest-{size}.jsonl",
            summary=folder / f"summary-{size}.json",
            lock=folder / "lock.json",
            raw=Path("data/raw") / f"{data.set}-{size}",
            train=data.hdf5_path("train"),
            valid=data.hdf5_path("valid"),
        )


def make_recipe(data: Data) -> dict[str, Any]:
    """Everything that decides what is packed, but for the place of a folder: it may move."""
    recipe: dict[str, Any] = {"source": data.source}
    if data.source == "procedural":
        recipe |= {"kind": data.kind, "count": data.count, "seed": data.seed}
    recipe |= {"img_size": list(data.img_size), "valid_fraction": data.valid_fraction}
    if data.source != "cifar10":  # nothing is decoded there
        recipe["fast_decode"] = data.fast_decode
    return recipe | {"stage_version": STAGE_VERSION}


def recipe_with_place(data: Data) -> dict[str, Any]:
    """The recipe and, unless drawn, the source's place (None: not said): what a person must not change unnoticed."""
    if data.source == "procedural":
        return make_recipe(data)
    try:
        place = None if data.src is None else str(expand_path(data.src).absolute())
    except UserError:  # an unset variable; it does not matter while the set is there
        place = None
    return make_recipe(data) | {"src": place}


def find_complete(data: Data, verify: bool = False) -> list[Path] | None:
    """The packed files of a complete set of this recipe; None when there is none. UserError: another recipe, damage.

    `verify` also reads every picture and compares it with its hash.
    """
    places = Places.of(data)
    if not places.train.exists():
        return None
    hint = f"\n  build it anew with --rebuild (make: REBUILD=1): {data.set} at {data.size_name}"
    try:
        with open_packed(places.train) as packed:
            attributes = packed.attributes
            if verify:
                packed.check()
        if not _fits_manifest(places, attributes):
            return None
        _refuse_other_recipe(data, places)
        if not attributes["valid_count"]:
            return [places.train]
        if not places.valid.exists():
            return None
        with open_packed(places.valid) as packed:
            if verify:
                packed.check()
    except UserError as error:
        raise UserError(f"{error}{hint}") from error
    return [places.train, places.valid]


def _fits_manifest(places: Places, attributes: dict[str, Any]) -> bool:
    """False when the process was killed between the renames, or the manifest has gone: the set is built again."""
    if "manifest_sha256" not in attributes or "valid_count" not in attributes:
        raise UserError(f"{places.train}: was not packed by the dataset stage")
    try:
        return hashlib.sha256(places.manifest.read_bytes()).hexdigest() == attributes["manifest_sha256"]
    except OSError:
        return False


def _refuse_other_recipe(data: Data, places: Places) -> None:
    found, wanted = json.loads(places.summary.read_text())["recipe"], recipe_with_place(data)
    if "src" in wanted and wanted["src"] is None:
        found["src"] = None  # any folder will do: the set is there
    lines = recipe_differences(found, wanted)
    if lines:
        head = f"data.set: {data.set} at {data.size_name} is there, made otherwise; try another --set data.set=name"
        raise UserError("\n".join([head, *lines]))


def recipe_differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """One line for each key that differs."""
    return [
        f"  {key}: found {found.get(key)!r}, the config says {wanted.get(key)!r}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    ]


def remove_if_there(path: Path) -> None:
    if path.exists():
        os.unlink(path)
