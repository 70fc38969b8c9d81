"""Reads a scraper's ledger.jsonl line by line.

The last line of an address counts. If two addresses gave the same picture, the one with a class is used, then the first
by name. A sha256 in the ledger is compared with the file's when it is scanned.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.scan.store import ORIGIN, file_to_key
from harness.config.class_choice import to_class_name
from harness.storage.json_files import read_json_lines

LEDGER = "ledger.jsonl"


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """`address` and `store.ORIGIN` of every complete line, in order; ORIGIN is None if the address gave no picture."""
    for line in read_json_lines(path):
        if line and isinstance(line.get("url"), str):  # others are truncated by a kill, or damaged
            yield {"address": _text(line["url"]) or "", **_origin(line)}


def _origin(line: dict[str, Any]) -> dict[str, Any]:
    file = _text(line.get("file"))
    if line.get("status") != "done" or not file or file.startswith("/") or ".." in file.split("/"):
        return dict.fromkeys(ORIGIN)
    specs, class_name = line.get("specs"), line.get("class")
    known = {
        "key": file_to_key(file),
        "expected": _text(line.get("sha256")),
        "specs": json.dumps(specs, sort_keys=True) if isinstance(specs, dict) and specs else None,
        "class": to_class_name(class_name) if isinstance(class_name, str) and class_name else None,
        "split": line.get("split") if line.get("split") in ("train", "valid") else None,
    }
    return {name: _text(line.get(name)) for name in ORIGIN} | known


def _text(value: Any) -> str | None:
    """Valid UTF-8, or None."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None
