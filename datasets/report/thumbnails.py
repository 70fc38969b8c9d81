"""Small JPEGs of a set's pictures, for pages.

Only files that the build decoded are decoded again: their sha256 must be the manifest's.
"""

import hashlib
import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from datasets.clean.reasons import slug_of
from datasets.clean.rules import UNDECODED
from harness.images.decode import PictureError, decode_picture, read_file

JPEG_QUALITY = 76


def read_thumbnail(folder: Path, line: dict[str, Any], height_px: int, width_px: int) -> bytes:
    """JPEG of a manifest line's picture, fitted into the box. PictureError when the file is unusable or has changed."""
    slug = slug_of(line)
    if not line.get("sha256") or slug in UNDECODED:
        raise PictureError(slug or "unreadable", "was not decoded by the build")
    content = read_file(_inside(folder, line["file"]))
    if hashlib.sha256(content).hexdigest() != line["sha256"]:
        raise PictureError("changed", "the file is not the one that the build read")
    longest = max(height_px, width_px)  # for both sides, as the picture may be turned
    return to_jpeg(decode_picture(content, (longest, longest)), height_px, width_px)


def to_jpeg(picture: np.ndarray, height_px: int, width_px: int) -> bytes:
    """uint8 (H, W, 3) → JPEG that fits into the box, never enlarged."""
    image = Image.fromarray(picture)
    scale = min(1.0, height_px / image.height, width_px / image.width)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def _inside(folder: Path, name: str) -> Path:
    """A manifest may be edited by hand: a name must not lead out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise PictureError("unreadable", "a name that leads out of the folder")
    return folder.joinpath(*parts)
