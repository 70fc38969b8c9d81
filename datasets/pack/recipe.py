"""What a training set is made of, where its files are, and whether the one on disk is the one that is asked for.

Files, in the order in which they get their names: manifest, summary, valid set, train set. So the train set, which
knows the manifest's hash, tells whether all is there.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.clean.manual_labels import read_decisions
from harness.config.experiment import Data, expand_path, source_folder
from harness.config.schema import Clean
from harness.errors import UserError
from harness.storage.hdf5 import open_packed
from harness.storage.json_files import read_json

STAGE_VERSION = 2  # rises when the same pictures would be packed differently
NOT_CLEANED = {"apply": False}
BEFORE = {"fit": "crop"}  # what a set was made with that was packed before there was a choice
PLACES_IN_CLEAN = ("decisions",)  # a path: what it holds is compared instead


@dataclass(frozen=True)
class Places:
    """Where a set's files are."""

    manifest: Path
    summary: Path
    scan: Path
    decisions: Path
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
            scan=folder / f"scan-{size}.sqlite",
            decisions=folder / "decisions.csv",
            lock=folder / "lock.json",
            raw=Path("data/raw") / f"{data.set}-{size}",
            train=data.hdf5_path("train"),
            valid=data.hdf5_path("valid"),
        )


def is_cleanable(data: Data) -> bool:
    """Pictures from outside, and drawn ones that stand for them; cars that Carforge draws, and CIFAR-10, are clean."""
    return data.source == "folder" or (data.source == "procedural" and data.kind == "messy")


def pictures_folder(data: Data) -> Path:
    """Where the files are that a set is made from. UserError when data.src does not say it."""
    return Places.of(data).raw if data.source == "procedural" else source_folder(data)


def cleaning(data: Data, clean: Clean | None) -> Clean | None:
    """How this set is cleaned; None = not at all."""
    return clean if clean is not None and clean.apply and is_cleanable(data) else None


def decisions_path(data: Data, clean: Clean | None) -> Path:
    if clean is None or clean.decisions is None:
        return Places.of(data).decisions
    return expand_path(clean.decisions)


def make_recipe(data: Data, clean: Clean | None = None) -> dict[str, Any]:
    """Everything that decides what is packed, but for places: they may move. `clean` None: taken as it is."""
    recipe: dict[str, Any] = {"source": data.source}
    if data.source == "procedural":
        recipe |= {"kind": data.kind, "count": data.count, "seed": data.seed}
    recipe |= {"img_size": list(data.img_size), "valid_fraction": data.valid_fraction}
    if data.source != "cifar10":  # nothing is decoded there
        recipe["fast_decode"] = data.fast_decode
    if is_cleanable(data):  # others are drawn or published at their size
        recipe["fit"] = data.fit
    clean = cleaning(data, clean)
    recipe["clean"] = NOT_CLEANED if clean is None else clean.model_dump(mode="json", exclude=set(PLACES_IN_CLEAN))
    if clean is not None:
        recipe["decisions_sha256"] = _decisions_sha256(decisions_path(data, clean))
    return recipe | {"stage_version": STAGE_VERSION}


def recipe_with_place(data: Data, clean: Clean | None = None) -> dict[str, Any]:
    """The recipe and, unless drawn, the source's place (None: not said): what a person must not change unnoticed."""
    recipe = make_recipe(data, clean)
    clean = cleaning(data, clean)
    if clean is not None:
        recipe["clean"] |= {key: getattr(clean, key) for key in PLACES_IN_CLEAN}
    if data.source == "procedural":
        return recipe
    try:
        place = None if data.src is None else os.path.realpath(expand_path(data.src))
    except UserError:  # an unset variable; it does not matter while the set is there
        place = None
    return recipe | {"src": place}


def _decisions_sha256(path: Path) -> str | None:
    """Of what a person decided; None where there is nothing. Notes may change."""
    decisions = read_decisions(path, tell=lambda text: None)
    if not decisions:
        return None
    lines = sorted(f"{one.sha256} {one.verdict} {one.view}\n" for one in decisions.values())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_complete(data: Data, clean: Clean | None = None, verify: bool = False) -> list[Path] | None:
    """The packed files of a complete set of this recipe; None when there is none. UserError: another recipe, damage.

    `verify` also reads every picture and compares it with its hash.
    """
    places, wanted = Places.of(data), recipe_with_place(data, clean)
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
        _refuse_other_recipe(wanted, data, clean, places)
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
        with open(places.manifest, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == attributes["manifest_sha256"]
    except OSError:
        return False


def read_summary(path: Path) -> dict[str, Any]:
    """What a build has told of itself; its `recipe` is a dict. UserError where there is none, or it is damaged."""
    remedy = "the set has to be built anew"
    summary = read_json(path, remedy)
    if summary is None or not isinstance(summary.get("recipe"), dict):
        raise UserError(f"{path}: {'not there' if summary is None else 'is damaged (no recipe)'}; {remedy}")
    return summary


def _refuse_other_recipe(wanted: dict[str, Any], data: Data, clean: Clean | None, places: Places) -> None:
    summary = read_summary(places.summary)
    found = {**{key: value for key, value in BEFORE.items() if key in wanted}, **summary["recipe"]}
    if "src" in wanted and wanted["src"] is None:
        found["src"] = None  # any folder will do: the set is there
    elif isinstance(found.get("src"), str):
        found["src"] = os.path.realpath(found["src"])
    if isinstance(found.get("clean"), dict) and wanted["clean"].get("apply"):
        found["clean"] |= {key: wanted["clean"][key] for key in PLACES_IN_CLEAN}
        resolved = (summary.get("sorter") or {}).get("name")
        if wanted["clean"]["features"] in ("auto", resolved):  # the set is there: whichever was the best then will do
            found["clean"]["features"] = wanted["clean"]["features"]
    lines = []
    if found.pop("decisions_sha256", None) != wanted.get("decisions_sha256"):
        lines.append(f"  {decisions_path(data, clean)}: decides otherwise than when it was made")
    lines += recipe_differences(found, {key: value for key, value in wanted.items() if key != "decisions_sha256"})
    if lines:
        head = f"data.set: {data.set} at {data.size_name} is there, made otherwise; try another --set data.set=name"
        raise UserError("\n".join([head, *lines]))


def recipe_differences(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each key that differs."""
    lines = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and old.get("apply") and new.get("apply"):
            lines += recipe_differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"  {prefix}{key}: found {_shown(old)}, the config says {_shown(new)}")
    return lines


def _shown(value: Any) -> str:
    """A whole section is told by whether it applies."""
    return f"apply={value['apply']}" if isinstance(value, dict) and "apply" in value else repr(value)


def remove_if_there(path: Path) -> None:
    if path.exists():
        os.unlink(path)
