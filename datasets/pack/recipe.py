"""A training set as configured: its recipe, its files, and whether the set on disk has this recipe.

Files get their names in this order: manifest, summary, valid set, train set. The train set has the manifest's hash, so
it shows whether all files are there.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from datasets.clean.manual_labels import Decision, read_decisions
from harness.config.experiment import Data, expand_path, source_folder
from harness.config.schema import Clean
from harness.errors import NewerVersion, UserError, refuse_newer
from harness.files import open_file
from harness.storage.hdf5 import open_packed
from harness.storage.json_files import read_json

STAGE_VERSION = 2  # increased when the same pictures would be packed differently
NOT_CLEANED = {"apply": False}
ADDED_LATER = {"fit": "crop"}  # value of sets packed before the key existed
# Left out of recipes at these values, so that sets packed before the keys existed keep their hash.
OMITTED = {"looseness": 1.0, "layout": "auto", "ignore": None}
PLACE_IN_CLEAN = "decisions"  # a path: the recipe has the hash of its content instead


class ClassifierSummary(BaseModel):
    name: str | None = None
    threshold: float | None = None


class Summary(BaseModel):
    """The part of a build's summary that is read again."""

    recipe: dict[str, Any]
    sorter: ClassifierSummary | None = None


SUMMARY = TypeAdapter(Summary)


@dataclass(frozen=True)
class SetPlan:
    """A training set as configured, resolved once: all that a build, its report and the clinic need.

    Attributes:
        cleanable: True for folders and the messy set; other drawn sets and CIFAR-10 are clean.
        clean: how it is cleaned; None = not at all.
        decisions: sha256 → a person's decision; empty if the set is not cleaned.
        recipe: everything that decides what is packed, except paths.
        decisions_path and the rest: its files; `raw`: the pictures of a drawn set.
    """

    data: Data
    cleanable: bool
    clean: Clean | None
    decisions: dict[str, Decision]
    recipe: dict[str, Any]
    decisions_path: Path
    manifest: Path
    summary: Path
    report: Path
    scan: Path
    lock: Path
    raw: Path
    train: Path
    valid: Path

    @classmethod
    def of(cls, data: Data, clean: Clean | None = None) -> "SetPlan":
        """`clean` None: not cleaned. UserError for a damaged table of decisions."""
        folder, size = Path("data/sets") / data.set, data.size_name
        decisions_path = folder / "decisions.csv"
        if clean is not None and clean.decisions is not None:
            decisions_path = expand_path(clean.decisions, "clean.decisions")
        cleanable = data.source == "folder" or (data.source == "procedural" and data.kind == "messy")
        clean = clean if clean is not None and clean.apply and cleanable else None
        decisions = {} if clean is None else read_decisions(decisions_path)
        return cls(
            data=data,
            cleanable=cleanable,
            clean=clean,
            decisions=decisions,
            recipe=_make_recipe(data, cleanable, clean, decisions),
            decisions_path=decisions_path,
            manifest=folder / f"manifest-{size}.jsonl",
            summary=folder / f"summary-{size}.json",
            report=folder / f"report-{size}.html",
            scan=folder / f"scan-{size}.sqlite",
            lock=folder / "lock.json",
            raw=Path("data/raw") / f"{data.set}-{size}",
            train=data.hdf5_path("train"),
            valid=data.hdf5_path("valid"),
        )

    @property
    def name(self) -> str:
        return f"{self.data.set} at {self.data.size_name}"

    def pictures_folder(self) -> Path:
        """The source pictures' folder. UserError when data.src does not name one."""
        return self.raw if self.data.source == "procedural" else source_folder(self.data)

    def recipe_with_places(self) -> dict[str, Any]:
        """The recipe and, unless drawn, the source's path (None: not given); a change of either is refused."""
        recipe = dict(self.recipe)
        if self.clean is not None:
            recipe["clean"] = recipe["clean"] | {PLACE_IN_CLEAN: self.clean.decisions}
        if self.data.source == "procedural":
            return recipe
        try:
            place = None if self.data.src is None else os.path.realpath(expand_path(self.data.src))
        except UserError:  # an unset environment variable does not matter if the set is complete
            place = None
        return recipe | {"src": place}


def _make_recipe(data: Data, cleanable: bool, clean: Clean | None, decisions: dict[str, Decision]) -> dict[str, Any]:
    recipe: dict[str, Any] = {"source": data.source}
    if data.source == "procedural":
        recipe |= drawing_recipe(data)
    if data.source == "folder":
        recipe |= _explicit({"layout": data.layout, "ignore": None if data.ignore is None else list(data.ignore)})
    recipe |= {"img_size": list(data.img_size), "valid_fraction": data.valid_fraction}
    if data.source != "cifar10":  # nothing is decoded there
        recipe["fast_decode"] = data.fast_decode
    if cleanable:  # others have their size already
        recipe["fit"] = data.fit
    if clean is None:
        recipe["clean"] = NOT_CLEANED
    else:
        recipe["clean"] = clean.model_dump(mode="json", exclude={PLACE_IN_CLEAN})
        recipe["decisions_sha256"] = _decisions_sha256(decisions)
    return recipe | {"stage_version": STAGE_VERSION}


def drawing_recipe(data: Data) -> dict[str, Any]:
    """The recipe of the drawn cars, at any size."""
    return _explicit({"kind": data.kind, "count": data.count, "seed": data.seed, "looseness": data.looseness})


def _explicit(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in OMITTED or OMITTED[key] != value}


def _decisions_sha256(decisions: dict[str, Decision]) -> str | None:
    """Hash of verdicts and views, without notes; None if there are no decisions."""
    if not decisions:
        return None
    lines = sorted(f"{one.sha256} {one.verdict} {one.view}\n" for one in decisions.values())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_complete(plan: SetPlan, verify: bool = False) -> list[Path] | None:
    """The packed files of a complete set with this recipe, or None. UserError for another recipe or damage.

    `verify` also reads every picture and compares it with its hash.
    """
    if not plan.train.exists():
        return None
    try:
        attributes = _open_packed(plan.train, verify)
        if not _fits_manifest(plan, attributes):
            return None
        _refuse_other_recipe(plan)
        if not attributes["valid_count"]:
            return [plan.train]
        if not plan.valid.exists():
            return None
        _open_packed(plan.valid, verify)
    except NewerVersion:
        raise
    except UserError as error:
        raise UserError(f"{error}\n  build it again with --rebuild (make: REBUILD=1): {plan.name}") from error
    return [plan.train, plan.valid]


def _open_packed(path: Path, verify: bool) -> dict[str, Any]:
    """Attributes of a packed file."""
    with open_packed(path) as packed:
        if verify:
            packed.check()
        return packed.attributes


def _fits_manifest(plan: SetPlan, attributes: dict[str, Any]) -> bool:
    """False when the process was killed between the renames, or the manifest is missing: the set is built again."""
    if "manifest_sha256" not in attributes or "valid_count" not in attributes:
        raise UserError(f"{plan.train}: was not packed by the dataset stage")
    try:
        with open_file(plan.manifest) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == attributes["manifest_sha256"]
    except OSError:
        return False


def read_summary(path: Path) -> dict[str, Any]:
    """A build's summary, with its `recipe`. UserError when it is missing or damaged."""
    remedy = "the set has to be built again"
    summary = read_json(path, remedy, SUMMARY)
    if summary is None:
        raise UserError(f"{path}: not there; {remedy}")
    return summary


def threshold_of(summary: dict[str, Any]) -> float | None:
    """Of ok_score; None if the set was not cleaned."""
    return (summary.get("sorter") or {}).get("threshold")


def _refuse_other_recipe(plan: SetPlan) -> None:
    summary, wanted = read_summary(plan.summary), plan.recipe_with_places()
    refuse_newer(plan.summary, summary["recipe"].get("stage_version"), STAGE_VERSION)
    found = {**{key: value for key, value in ADDED_LATER.items() if key in wanted}, **summary["recipe"]}
    if "src" in wanted and wanted["src"] is None:
        found["src"] = None  # the set is complete, so any folder will do
    elif isinstance(found.get("src"), str):
        found["src"] = os.path.realpath(found["src"])
    if isinstance(found.get("clean"), dict) and wanted["clean"].get("apply"):
        found["clean"][PLACE_IN_CLEAN] = wanted["clean"][PLACE_IN_CLEAN]
        resolved = (summary.get("sorter") or {}).get("name")
        if wanted["clean"]["features"] in ("auto", resolved):  # the set is complete, so the features of then will do
            found["clean"]["features"] = wanted["clean"]["features"]
    lines = []
    if found.pop("decisions_sha256", None) != wanted.pop("decisions_sha256", None):
        lines.append(f"  {plan.decisions_path}: has changed since the set was built")
    lines += recipe_differences(found, wanted)
    if lines:
        other = "--set data.set=name (make: OVERRIDE='data.set=name'), or --rebuild (make dataset: REBUILD=1)"
        head = f"data.set: {plan.name} was built with other settings; try {other}"
        raise UserError("\n".join([head, *lines]))


def recipe_differences(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """One line per differing key."""
    found, wanted = {**OMITTED, **found}, {**OMITTED, **wanted}
    lines = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and old.get("apply") and new.get("apply"):
            lines += recipe_differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"  {prefix}{key}: found {_format(old)}, the config says {_format(new)}")
    return lines


def _format(value: Any) -> str:
    """A section is shown by its key `apply`."""
    return f"apply={value['apply']}" if isinstance(value, dict) and "apply" in value else repr(value)
