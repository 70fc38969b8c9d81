"""Pictures of the dataset report: kept ones as packed, dropped ones from their files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from datasets.report.thumbnails import read_thumbnail, to_jpeg
from harness.config.experiment import Data
from harness.errors import UserError
from harness.images.decode import PictureError
from harness.storage.hdf5 import PackedSet, open_packed
from harness.web.embed import bytes_uri

THUMB_HEIGHT_PX, THUMB_WIDTH_PX = 112, 200
MAX_PAGE_BYTES = 3_600_000  # of all pictures, as data URIs
CHUNK_ROWS = 64


class PagePictures:
    """Makes cards {uri or None, alt, file, detail}; beyond MAX_PAGE_BYTES without pictures."""

    def __init__(self, data: Data, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.bytes = self.left_out = 0
        self._packed = {split: _open_or_none(data.hdf5_path(split)) for split in ("train", "valid")}

    def of_file(self, line: dict[str, Any], alt: str) -> dict[str, Any]:
        """The file of a manifest's line."""
        try:
            jpeg = read_thumbnail(self.folder, line, THUMB_HEIGHT_PX, THUMB_WIDTH_PX)
        except PictureError:  # missing or changed since the build
            jpeg = None
        return self._card(jpeg, line, alt)

    def of_packed(self, line: dict[str, Any], alt: str) -> dict[str, Any]:
        """The packed picture; the file if the set has no such row."""
        packed = self._packed.get(line.get("split") or "")
        if packed is None or line.get("row") is None or line["row"] >= packed.count:
            return self.of_file(line, alt)
        picture = packed.read(np.array([line["row"]]))[0]
        return self._card(to_jpeg(picture, THUMB_HEIGHT_PX, THUMB_WIDTH_PX), line, alt)

    def _card(self, jpeg: bytes | None, line: dict[str, Any], alt: str) -> dict[str, Any]:
        uri = bytes_uri(jpeg, "image/jpeg") if jpeg else None
        if uri and self.bytes + len(uri) > MAX_PAGE_BYTES:
            uri = None
            self.left_out += 1
        self.bytes += len(uri or "")
        return {"uri": uri, "alt": f"{alt}: {line['file']}", "file": line["file"], "detail": ""}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for packed in self._packed.values():
            if packed is not None:
                packed.close()


def sample_packed(data: Data, limit: int) -> Iterator[np.ndarray]:
    """Evenly spaced training pictures, uint8 (H, W, 3), read in chunks."""
    packed = _open_or_none(data.hdf5_path("train"))
    if packed is None:
        return
    with packed:
        rows = np.unique(np.linspace(0, packed.count - 1, min(limit, packed.count)).astype(np.int64))
        for start in range(0, len(rows), CHUNK_ROWS):
            yield from packed.read(rows[start : start + CHUNK_ROWS])


def _open_or_none(path: Path) -> PackedSet | None:
    try:
        return open_packed(path)
    except (OSError, UserError):
        return None
