"""The bytes of a file → the picture inside its letterbox bars.

The same as `harness.images.remove_letterbox(decode_picture(...))`, with fewer copies: here most of the time is spent.
"""

import zlib
from typing import Any

import numpy as np
from PIL import Image

from harness.images import (
    BAR_TOLERANCE,
    PictureError,
    decode_image,
    find_letterbox,
    may_have_bar,
)

PNG_START = b"\x89PNG\r\n\x1a\n"


def open_inner(content: bytes, fast_size: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """(RGB image without letterbox bars, width and height of the whole as it is seen). PictureError with a reason.

    `fast_size` (height, width): as in `decode_image`.
    """
    check_png(content)
    image, size_px = decode_image(content, fast_size)
    return remove_bars(image), size_px


def remove_bars(image: Image.Image) -> Image.Image:
    """`harness.images.remove_letterbox` of an RGB image; only one that may have bars is turned into an array."""
    width, height = image.size
    outermost = ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height))
    if not any(may_have_bar(_mean(image, box), slack=BAR_TOLERANCE) for box in outermost):
        return image
    box = find_letterbox(np.asarray(image))
    return image if box == (0, 0, width, height) else image.crop(box)


def _mean(image: Image.Image, box: tuple[int, int, int, int]) -> float:
    """Of all levels of a row or column: in one call, where an array of them takes three."""
    pixel: Any = image.resize((1, 1), Image.Resampling.BOX, box=box).getpixel((0, 0))
    return sum(pixel) / 3


def check_png(content: bytes) -> None:
    """PictureError where a PNG's own checksums say that it is damaged: its decoder looks at few of them."""
    if not content.startswith(PNG_START):
        return
    place, view = len(PNG_START), memoryview(content)
    while place + 12 <= len(content):
        size = int.from_bytes(view[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(content):
            break
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise PictureError("damaged", f"the checksum of the PNG's part at byte {place} does not fit")
        if view[place + 4 : place + 8] == b"IEND":
            return
        place = end + 4
    raise PictureError("damaged", "the PNG ends too early")
