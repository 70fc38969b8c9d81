"""The bytes of a file → the picture inside its letterbox bars.

`harness.images.letterbox.remove_letterbox(decode_picture(...))` with fewer copies: here most of the time is spent.
"""

import zlib
from typing import Any, cast

import numpy as np
from PIL import Image

from harness.images.decode import PictureError, decode_image
from harness.images.letterbox import find_letterbox, may_have_bar

PNG_START = b"\x89PNG\r\n\x1a\n"
QUICK_SAMPLES = 16  # of a line, at most


def open_inner(content: bytes, fast_size: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """(RGB image without letterbox bars, width and height of the whole as it is seen). PictureError with a reason.

    `fast_size` (height, width): as in `decode_image`.
    """
    check_png(content)
    image, size_px = decode_image(content, fast_size)
    return remove_bars(image), size_px


def remove_bars(image: Image.Image) -> Image.Image:
    """`remove_letterbox` of an RGB image; only one that may have bars is turned into an array."""
    if not _may_have_bars(image):
        return image
    box = find_letterbox(np.asarray(image))
    return image if box == (0, 0, *image.size) else image.crop(box)


def _may_have_bars(image: Image.Image) -> bool:
    """Whether the median of a few levels of an outermost row or column is that of a bar: of a bar's, nearly all are."""
    (width, height), pixels = image.size, cast(Any, image.load())
    columns, rows = (range(0, side, -(-side // QUICK_SAMPLES)) for side in (width, height))
    lines = [[pixels[x, y][1] for x in columns] for y in (0, height - 1)]
    lines += [[pixels[x, y][1] for y in rows] for x in (0, width - 1)]
    return any(may_have_bar(sorted(line)[len(line) // 2]) for line in lines)


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
