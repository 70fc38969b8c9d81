"""Small pictures and their encodings: what tests of decoding share."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from harness.images.decode import Fit, fit_image
from harness.images.letterbox import remove_letterbox


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3): smooth colours with some texture, as photos have."""
    noise = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def picture_file(seed: int, kind: str = "JPEG", size: tuple[int, int] = (90, 60)) -> bytes:
    """A file as somebody might drop it; size is width, height."""
    return encoded(scene(size[1], size[0], seed), kind)


def png_header(width: int, height: int) -> bytes:
    """A few bytes that say they are a picture of that size; the pixels are not in it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def without_bars(picture: np.ndarray) -> np.ndarray:
    return np.asarray(remove_letterbox(Image.fromarray(np.ascontiguousarray(picture))))


def fit_picture(picture: np.ndarray, height: int, width: int, fit: Fit) -> np.ndarray:
    """uint8 (height, width, 3): what a set holds of a file with these pixels."""
    return fit_image(Image.fromarray(without_bars(picture)), height, width, fit)
