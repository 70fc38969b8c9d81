"""Writes a built set without building it: files, manifest, summary, packed pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from datasets.pack.recipe import SetPlan
from harness.config.experiment import Config
from harness.images.decode import decode_picture
from harness.storage.hdf5 import PackedWriter
from tests.harness.pictures import encoded, fit_picture, scene

THRESHOLD = 0.5
DECISIONS = Path("data/sets/mine/decisions.csv")


def draw(seed: int, height: int = 60, width: int = 90) -> bytes:
    """A JPEG of smooth noise, different for each seed."""
    return encoded(scene(height, width, seed), "JPEG", quality=85)


def line(file: str, **changes: Any) -> dict[str, Any]:
    """A manifest line of a kept picture, with these changes."""
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
    dropped = {"verdict": "drop", "view": None, "view_confidence": None, "split": None} if changes.get("reason") else {}
    return whole | dropped | changes


def write_set(config: Config, lines: list[dict[str, Any]], contents: dict[str, bytes]) -> None:
    """Writes files below data.src and everything that a build writes; kept lines get their rows here."""
    data, plan = config.data, SetPlan.of(config.data)
    for file, content in contents.items():
        path = Path(str(data.src)) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    packed: dict[str, list[np.ndarray]] = {"train": [], "valid": []}
    for one in lines:
        content = contents.get(one["file"])
        if content is not None and one["sha256"] is None:
            one["sha256"] = hashlib.sha256(content).hexdigest()
        if one["verdict"] == "keep" and content is not None:
            one["row"] = len(packed[one["split"]])
            packed[one["split"]].append(fit_picture(decode_picture(content), *data.img_size, data.fit))
    for split in ("train", "valid"):
        if packed[split]:
            with PackedWriter(data.hdf5_path(split), *data.img_size, ["saab"], {}) as writer:
                for picture in packed[split]:
                    writer.append(picture, 0)
    plan.manifest.parent.mkdir(parents=True, exist_ok=True)
    plan.manifest.write_text("".join(json.dumps(one) + "\n" for one in lines))
    rows = {split: len(pictures) for split, pictures in packed.items()}
    summary = {"recipe": plan.recipe_with_places(), "files": len(lines), **rows, "sorter": {"threshold": THRESHOLD}}
    plan.summary.write_text(json.dumps(summary))
