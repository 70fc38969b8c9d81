"""Small JPEGs of a set's pictures, for pages.

Only bytes that the build has read and decoded are decoded again: the file's sha256 must be the one in the manifest, and
what could not be decoded then is not tried here.
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
    """JPEG of the picture of a manifest's line, upright, at most so high and wide. PictureError when there is none."""
    slug = slug_of(line)
    if not line.get("sha256") or slug in UNDECODED:
        raise PictureError(slug or "unreadable", "was not decoded by the build")
    content = read_file(_inside(folder, line["file"]))
    if hashlib.sha256(content).hexdigest() != line["sha256"]:
        raise PictureError("changed", "the file is not the one that the build read")
    # Decoded no smaller than twice the box: longest side first, so that neither is short.
    longest = max(height_px, width_px)
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
    """A manifest may have been written by hand: no name leads out of its folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise PictureError("unreadable", "a name that leads out of the folder")
    return folder.joinpath(*parts)
