"""One file → one picture of the set's size, or the reason why not. Runs in worker processes.

decode → letterbox bars off → centred crop to the aspect → exact Lanczos.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from harness.images import FORMATS, PictureError, decode_picture, fit_picture, read_file


@dataclass(frozen=True)
class Job:
    """A file and what is to be made of it."""

    path: str
    height: int
    width: int
    fast_decode: bool


@dataclass(frozen=True)
class Prepared:
    """`picture`: uint8 (H, W, 3), or None and a `reason`. `sha256`: of the file. `size_px`: its width, height."""

    picture: np.ndarray | None
    reason: str | None = None
    sha256: str | None = None
    size_px: tuple[int, int] | None = None


def prepare(job: Job) -> Prepared:
    """Reads, decodes and fits one picture. Whatever is wrong with the file becomes a reason, never an error."""
    try:
        content = read_file(job.path)
    except PictureError as error:
        return Prepared(None, error.reason)
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        source = decode_picture(content, (job.height, job.width) if job.fast_decode else None)
        size_px = _source_size_px(content, source) if job.fast_decode else (source.shape[1], source.shape[0])
        return Prepared(fit_picture(source, job.height, job.width), None, sha256, size_px)
    except PictureError as error:
        return Prepared(None, error.reason, sha256)
    except MemoryError:
        return Prepared(None, "too_large: not enough memory to decode it", sha256)


def _source_size_px(content: bytes, picture: np.ndarray) -> tuple[int, int]:
    """Width and height before the decoder shrank it; turned as the picture was."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
    turned = (width > height) != (picture.shape[1] > picture.shape[0]) and width != height
    return (height, width) if turned else (width, height)
