"""A built set as the stage leaves it, made by hand in a moment: files, manifest, summary, packed pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

from datasets.pack.recipe import SetPlan
from harness.config.experiment import Config
from harness.images.decode import decode_picture
from harness.storage.hdf5 import PackedWriter
from tests.harness.pictures import encoded, fit_picture, scene

THRESHOLD = 0.5


def draw(seed: int, height: int = 60, width: int = 90) -> bytes:
    """A JPEG of smooth noise, each another."""
    return encoded(scene(height, width, seed), "JPEG", quality=85)


def line(file: str, **said: Any) -> dict[str, Any]:
    """A manifest line: a kept picture, but for what is said."""
    whole = {
        "file": file,
        "verdict": "keep",
        "reason": None,
        "ok_score": 0.9,
        "view": "front_left",
        "view_confidence": 0.8,
        "sha256": None,
        "source": "folder",
        "class": "saab",
        "specs": None,
        "split": "train",
        "row": None,
        "width": 90,
        "height": 60,
        "duplicate_of": None,
        "decided_by": "model",
        "url": None,
        "page": None,
        "license": None,
        "author": None,
    }
    dropped = {"verdict": "drop", "view": None, "view_confidence": None, "split": None} if said.get("reason") else {}
    return whole | dropped | said


def write_set(config: Config, lines: list[dict[str, Any]], contents: dict[str, bytes]) -> None:
    """Files below data.src, and everything that a build leaves; kept lines get their rows here."""
    data = config.data
    plan = SetPlan.of(data)
    for file, content in contents.items():
        path = Path(str(data.src)) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = {"train": 0, "valid": 0}
    writers = {split: PackedWriter(data.hdf5_path(split), *data.img_size, ["saab"], {}) for split in ("train", "valid")}
    for one in lines:
        content = contents.get(one["file"])
        if content is not None and one["sha256"] is None:
            one["sha256"] = hashlib.sha256(content).hexdigest()
        if one["verdict"] == "keep" and content is not None:
            picture = decode_picture(content)
            writers[one["split"]].append(fit_picture(picture, *data.img_size, data.fit), 0)
            one["row"] = rows[one["split"]]
            rows[one["split"]] += 1
    for split, writer in writers.items():
        writer.__enter__()
        if rows[split]:
            writer.__exit__(None, None, None)
        else:
            writer.__exit__(RuntimeError, RuntimeError(), None)
    plan.manifest.parent.mkdir(parents=True, exist_ok=True)
    plan.manifest.write_text("".join(json.dumps(one) + "\n" for one in lines))
    summary = {"recipe": plan.recipe_with_places(), "files": len(lines), **rows, "sorter": {"threshold": THRESHOLD}}
    plan.summary.write_text(json.dumps(summary))
