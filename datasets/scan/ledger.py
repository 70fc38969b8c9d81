"""Where a scraper's pictures come from: its ledger.jsonl, joined to the files without holding either in memory.

The last line of an address counts. Where two addresses gave the same picture, the one that names a class, then the
first by name, says where it comes from. A sha256 in the ledger is compared with the file's own when it is scanned.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.scan.store_writer import Origin, StoreWriter
from harness.storage.json_files import read_json_lines

LEDGER = "ledger.jsonl"
TEXTS = ("sha256", "class", "source", "url", "page", "license", "author")


def find_origins(store: StoreWriter, folder: Path) -> None:
    """Adds what the folder's ledger says to the files in the store; files that it has and the folder has not, too."""
    store.join_origins(_read_ledger(folder / LEDGER), folder)


def _read_ledger(path: Path) -> Iterator[tuple[str, Origin | None]]:
    """(address, its picture or None where there is none) of every whole line, in order."""
    for line in read_json_lines(path):
        if line and isinstance(line.get("url"), str):  # others are torn by a kill, or damaged
            yield _text(line["url"]) or "", _origin(line)


def _origin(line: dict[str, Any]) -> Origin | None:
    file = _text(line.get("file"))
    if line.get("status") != "done" or not file or file.startswith("/") or ".." in file.split("/"):
        return None
    specs = line.get("specs")
    return Origin(
        file=file,
        specs=json.dumps(specs, sort_keys=True) if isinstance(specs, dict) and specs else None,
        **{key if key != "class" else "class_name": _text(line.get(key)) for key in TEXTS},  # pyright: ignore
    )


def _text(value: Any) -> str | None:
    """Text that every file and table can hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None
