"""Kept designs with their notes: `runs/<name>/studio/{shelf.json, kept/<id>.png}`; those removed last are in
`removed/<id>.{json, png}`.

Each design is complete, with everything that reproduces it, or absent, whenever the server is killed.
"""

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter

from blend.designs.export import design_png
from harness.errors import UserError, refuse_newer
from harness.images.decode import decode_picture
from harness.storage.atomic import atomic_write, clean_leftovers
from harness.storage.json_files import read_json, read_json_or_none, to_json, utc_now
from harness.storage.lock import folder_lock

IDENTITY = re.compile(r"[0-9a-f]{16}")
VERSION = 1
MAX_KEPT = 500
MAX_NOTE_CHARS = 1000
MAX_REMOVED = 20  # that can be restored


class KeptNovelty(BaseModel):
    verdict: str | None = None


class KeptMeasures(BaseModel):
    futurism: FiniteFloat
    identity: FiniteFloat | None = None
    novelty: KeptNovelty | None = None


class KeptDocument(BaseModel):
    """What is read of a kept design."""

    recipe: str
    setting: dict[str, FiniteFloat]
    note: str = ""
    measures: KeptMeasures | None = None


class KeptEntry(BaseModel):
    id: str
    kept_at: str
    document: KeptDocument


class ShelfFile(BaseModel):
    designs: list[KeptEntry]


class RemovedFile(BaseModel):
    place: Annotated[int, Field(ge=0, le=MAX_KEPT)]
    entry: KeptEntry


SHELF, REMOVED = TypeAdapter(ShelfFile), TypeAdapter(RemovedFile)


class Shelf:
    """In the order kept. Several processes may use it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.pictures, self.removed = folder / "shelf.json", folder / "kept", folder / "removed"
        self._lock = threading.Lock()
        if folder.is_dir():
            with self._locked():
                for place in (folder, self.pictures, self.removed):
                    clean_leftovers(place)

    def entries(self) -> list[dict[str, Any]]:
        """Each with `id`, `kept_at` and `document`. UserError when the file is damaged."""
        remedy = "move it away to start with an empty shelf"
        found = read_json(self.path, remedy, SHELF) or {"designs": []}
        refuse_newer(self.path, found.get("version"), VERSION)
        return [entry for entry in found["designs"] if IDENTITY.fullmatch(entry["id"])]

    def entry(self, identity: str) -> dict[str, Any]:
        return _find(self.entries(), identity)

    def picture(self, identity: str) -> np.ndarray:
        """uint8 (H, W, 3) as it was kept."""
        self.entry(identity)
        return decode_picture(self.pictures / f"{identity}.png")

    def keep(self, picture: np.ndarray, document: dict[str, Any]) -> dict[str, Any]:
        """Adds a design. A picture that is kept already only gets the new note, if there is one."""
        identity = document["picture_sha256"][:16]
        with self._locked():
            entries = self.entries()
            for entry in entries:
                if entry["id"] == identity:
                    if document["note"]:
                        entry["document"]["note"] = document["note"]
                        self._write(entries)
                    return entry
            if len(entries) >= MAX_KEPT:
                raise UserError(f"shelf: found {MAX_KEPT} designs, which is the limit; remove some first")
            self.pictures.mkdir(parents=True, exist_ok=True)
            path = self.pictures / f"{identity}.png"
            atomic_write(path, design_png(picture, document))
            entry = {"id": identity, "kept_at": utc_now(), "document": document}
            try:
                self._write([*entries, entry])
            except OSError:
                path.unlink(missing_ok=True)
                raise
            return entry

    def write_note(self, identity: str, note: str) -> dict[str, Any]:
        with self._locked():
            entries = self.entries()
            entry = _find(entries, identity)
            entry["document"]["note"] = check_note(note)
            self._write(entries)
            return entry

    def remove(self, identity: str) -> None:
        """Moves a design to `removed/`, for `restore`; on a full disk it is deleted, which frees space."""
        with self._locked():
            entries = self.entries()
            entry = _find(entries, identity)
            place = entries.index(entry)
            others, picture = [*entries[:place], *entries[place + 1 :]], self.pictures / f"{identity}.png"
            try:
                self.removed.mkdir(parents=True, exist_ok=True)
                atomic_write(self.removed / f"{identity}.json", to_json({"place": place, "entry": entry}) + "\n")
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._delete(picture, others)
                return
            self._write(others)
            with suppress(FileNotFoundError):
                os.replace(picture, self.removed / f"{identity}.png")
            oldest_last = sorted(self.removed.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in oldest_last[MAX_REMOVED:]:
                path.with_suffix(".png").unlink(missing_ok=True)
                path.unlink()

    def _delete(self, picture: Path, others: list[dict[str, Any]]) -> None:
        content = picture.read_bytes() if picture.exists() else None
        picture.unlink(missing_ok=True)
        try:
            self._write(others)
        except OSError:
            if content is not None:
                atomic_write(picture, content)
            raise

    def restore(self, identity: str) -> None:
        """Puts a removed design back in its place."""
        with self._locked():
            entries, path = self.entries(), self.removed / f"{identity}.json"
            found = read_json_or_none(path, REMOVED) if IDENTITY.fullmatch(identity) else None
            if found is None or found["entry"]["id"] != identity:
                raise UserError("shelf: this design cannot be restored any more; draw it again")
            place, entry = found["place"], found["entry"]
            self.pictures.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # killed between the two renames
                os.replace(self.removed / f"{identity}.png", self.pictures / f"{identity}.png")
            if not any(one["id"] == identity for one in entries):
                self._write([*entries[:place], entry, *entries[place:]])
            path.unlink()

    def _write(self, entries: list[dict[str, Any]]) -> None:
        atomic_write(self.path, to_json({"version": VERSION, "designs": entries}, indent=1) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Reading, changing and writing as one transaction, among threads and processes."""
        folder = self.path.parent
        try:
            folder.mkdir(exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:
            raise UserError(f"shelf: {folder} is not a folder; move it away") from error
        with self._lock, folder_lock(folder):
            yield


def _find(entries: list[dict[str, Any]], identity: str) -> dict[str, Any]:
    for entry in entries:
        if entry["id"] == identity:
            return entry
    raise UserError("shelf: this design is no longer on the shelf; reload the page")


def check_note(note: str) -> str:
    if len(note) > MAX_NOTE_CHARS:
        raise UserError(f"note: found {len(note)} characters, allowed {MAX_NOTE_CHARS}")
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise UserError("note: found half a character, allowed text; type it again") from error
    return note
