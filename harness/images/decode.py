"""Pictures in and out: the one decoder of pictures from anywhere, crops and borders, exact Lanczos, grids, PNG files.

A picture is uint8 (H, W, 3) RGB. What cannot be used raises PictureError with a reason. What a file may cost is bounded
here: its bytes, format, pixels, parts, and how often a JPEG passes over its pixels.
"""

import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from harness.files import open_file
from harness.images.letterbox import remove_letterbox
from harness.images.magic_bytes import PNG_BEGIN, picture_kind
from harness.storage.atomic import atomic_write

FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow knows 40 more, and their decoders have had the worse bugs
MAX_PIXELS = 50_000_000
MAX_FILE_MB = 200  # of 50 megapixels at most, so more is not a photo
MAX_SCAN_PIXELS = 1_500_000_000  # pixels x scans of a JPEG, 1 to 2 ns each: 30 scans of 50 megapixels
MAX_PARTS = 100_000  # chunks of a PNG, segments and padding bytes of a JPEG: Pillow steps over each in Python
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # neither stuffing nor padding nor a restart
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"
EXIF_ORIENTATION = 0x0112
EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_SIDEWAYS = (5, 6, 7, 8)
EDGE_LINES = 2  # of a picture are what a padded border continues


Fit = Literal["crop", "pad"]


class PictureError(ValueError):
    """A picture that cannot be used; `reason` is a slug and a text: "damaged: image file is truncated"."""

    def __init__(self, slug: str, text: str) -> None:
        self.reason = f"{slug}: {' '.join(text.split())[:200]}"
        super().__init__(self.reason)


def read_file(path: Path | str) -> bytes:
    """All bytes of a file that may be a picture. PictureError when it cannot be read or is far too large."""
    try:
        with open_file(path) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_FILE_MB * 2**20:
                raise PictureError("too_large", f"the file is larger than {MAX_FILE_MB} MiB")
            return stream.read()
    except PictureError:
        raise
    except OSError as error:
        raise PictureError("unreadable", error.strerror or str(error)) from error


def decode_picture(source: Path | bytes, fast_size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 (H, W, 3) RGB, read-only, of a JPEG, PNG or WEBP with its letterbox bars: see `decode_image`."""
    content = source if isinstance(source, bytes) else read_file(source)
    return np.asarray(decode_image(content, fast_size, keep_letterbox=True)[0])


def decode_image(
    content: bytes, fast_size: tuple[int, int] | None = None, *, keep_letterbox: bool = False
) -> tuple[Image.Image, tuple[int, int]]:
    """(RGB image without its letterbox bars, width and height of the whole as it is seen) of a JPEG, PNG or WEBP:
    upright, first frame, alpha over white. PictureError for everything that is refused.

    `fast_size` (height, width): it will be resized to this, so a JPEG may be decoded smaller, not under twice this.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is refused below anyway
        try:
            image, size_px = _decode(content, fast_size)
            return (image if keep_letterbox else remove_letterbox(image)), size_px
        except PictureError:
            raise
        except UnidentifiedImageError as error:
            raise PictureError("format", f"not one of {', '.join(FORMATS)}, or its header is damaged") from error
        except Image.DecompressionBombError as error:
            raise PictureError("too_large", f"more than {MAX_PIXELS // 10**6} megapixels") from error
        except MemoryError as error:
            raise PictureError("too_large", "not enough memory to decode it") from error
        except Exception as error:  # bytes of strangers: a decoder may raise anything, and the next picture counts
            raise PictureError("damaged", str(error) or type(error).__name__) from error


def _decode(content: bytes, fast_size: tuple[int, int] | None) -> tuple[Image.Image, tuple[int, int]]:
    kind = picture_kind(content)
    if kind == "png":
        check_png(content)
    scans = count_jpeg_scans(content) if kind == "jpg" else 1
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            limit = MAX_PIXELS // 10**6
            raise PictureError("too_large", f"{width}x{height} pixels, allowed {limit} megapixels")
        if width * height * scans > MAX_SCAN_PIXELS:
            limit = MAX_SCAN_PIXELS // (width * height)
            raise PictureError("too_large", f"a JPEG of {width}x{height} pixels in {scans} scans, allowed {limit}")
        orientation = _orientation(image)
        turn = EXIF_TURNS.get(orientation)
        size_px = (width, height) if orientation not in EXIF_SIDEWAYS else (height, width)
        if fast_size is not None and image.format == "JPEG":
            height, width = fast_size if orientation not in EXIF_SIDEWAYS else fast_size[::-1]
            image.draft(None, (2 * width, 2 * height))
        image.load()
        rgb = _to_rgb(image)
        return (rgb if turn is None else rgb.transpose(turn)), size_px


def count_jpeg_scans(content: bytes) -> int:
    """How often a JPEG passes over all its pixels: progressive ones usually 10 times, made ones thousands of times.

    Previews inside other segments and what comes after the picture's end are not counted. PictureError where Pillow
    would step through too much before it finds the picture.
    """
    scans = parts = 0
    place, marker = 2, b""
    while place < len(content) and marker != JPEG_END:
        found = JPEG_MARKER.search(content, place)
        start, end = found.span() if found else (len(content), len(content))
        marker = content[start:end]
        parts += 1 if scans else 1 + start - place
        _check_parts(parts)
        scans += marker == JPEG_SCAN
        place = end + int.from_bytes(content[end : end + 2], "big")
    return scans


def check_png(content: bytes) -> None:
    """PictureError where a PNG's own checksums say that it is damaged: its decoder looks at few of them."""
    place, parts, view = len(PNG_BEGIN), 0, memoryview(content)
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
        parts += 1
        _check_parts(parts)
    raise PictureError("damaged", "the PNG ends too early")


def _check_parts(parts: int) -> None:
    if parts > MAX_PARTS:
        raise PictureError("damaged", f"found more than {MAX_PARTS:,} parts, so it is not a photo")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # broken metadata does not make a picture unusable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow's own convert clips at 255
        levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        over_white = Image.new("RGB", image.size, (255, 255, 255))
        over_white.paste(image.convert("RGB"), mask=image.getchannel("A"))
        return over_white
    return image.convert("RGB")


def centred_box(old_height: int, old_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest centred part with the aspect height : width."""
    new_height = min(old_height, max(1, round(old_width * height / width)))
    new_width = min(old_width, max(1, round(old_height * width / height)))
    top, left = (old_height - new_height) // 2, (old_width - new_width) // 2
    return left, top, left + new_width, top + new_height


def resize_picture(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): see `resize_image`."""
    return resize_image(Image.fromarray(picture), height, width)


def resize_image(
    image: Image.Image, height: int, width: int, box: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Exact Lanczos over all source pixels, of the part in `box` (left, top, right, bottom) where that is given: FID
    depends on the resizer, so there is one. At the edges of a part the filter sees what lies beyond them."""
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=None))


def pad_image(image: Image.Image, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3) with all of the picture in its middle, by exact Lanczos, and its edges faded outwards.

    What is missing on two sides continues the outermost lines, blurred the more the farther it is from them. Of five
    fillings looked at on photos of cars this alone shows neither a border, which a discriminator would learn before it
    learns cars (a flat colour, black bars, a blurred copy of the picture), nor streaks (the edge repeated).
    """
    scale = min(height / image.height, width / image.width)
    rows, columns = (max(1, round(side * scale)) for side in (image.height, image.width))
    rows, columns = min(rows, height), min(columns, width)
    small = resize_image(image, rows, columns)
    top, left = (height - rows) // 2, (width - columns) // 2
    whole = np.empty((height, width, 3), np.uint8)
    whole[top : top + rows, left : left + columns] = small
    inside = whole[top : top + rows]
    _fade_outwards(inside.transpose(1, 0, 2), left, left + columns)
    _fade_outwards(whole, top, top + rows)
    return whole


def _fade_outwards(lines: np.ndarray, first: int, end: int) -> None:
    """Fills lines[:first] and lines[end:] of uint8 (lines, length, 3) from what is between them, in place."""
    count = len(lines) - end  # never less than `first`
    if not count:
        return
    edges = [lines[first:end][:EDGE_LINES], lines[first:end][-EDGE_LINES:]]
    faded = _fade(np.concatenate([edge.mean(axis=0) for edge in edges], axis=1).round().astype(np.int32), count)
    lines[:first] = faded[:first, :, :3][::-1]
    lines[end:] = faded[..., 3:]


def _fade(line: np.ndarray, count: int) -> np.ndarray:
    """int32 (length, C) → (count, length, C): k-th, averaged twice over k + 1 neighbours on either side.

    Twice, as a box alone shows its corners as rays; in whole numbers, so that it is the same on every machine.
    """
    length, channels = line.shape
    reach, place = np.arange(1, count + 1)[:, None], np.arange(length)
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, length)
    number = (high - low)[..., None].astype(np.int32)
    sums = np.zeros((length + 1, channels), np.int32)
    line.cumsum(axis=0, out=sums[1:])
    once = (2 * (sums[high] - sums[low]) + number) // (2 * number)
    sums = np.zeros((count, length + 1, channels), np.int32)
    once.cumsum(axis=1, out=sums[:, 1:])
    flat, start = sums.reshape(-1, channels), (length + 1) * np.arange(count)[:, None]
    return (2 * (flat[start + high] - flat[start + low]) + number) // (2 * number)


def fit_image(inner: Image.Image, height: int, width: int, fit: Fit) -> np.ndarray:
    """uint8 (height, width, 3) of a picture without bars, by exact Lanczos: what networks learn from and are shown.

    `fit`: crop = the largest centred part that has the aspect; pad = all of it, see `pad_image`."""
    if fit == "pad":
        return pad_image(inner, height, width)
    return resize_image(inner, height, width, centred_box(inner.height, inner.width, height, width))


def picture_grid(pictures: np.ndarray | Sequence[np.ndarray], columns: int, gap_px: int = 2) -> np.ndarray:
    """uint8 (N, H, W, 3) row by row in one picture, white between and around the missing."""
    count, height, width = len(pictures), *pictures[0].shape[:2]
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + gap_px), k % columns * (width + gap_px)
        grid[top : top + height, left : left + width] = picture
    return grid


TEXT_KEY = "carforge"  # of the PNG text chunk that says where a picture comes from


def save_png(path: Path, picture: np.ndarray, text: dict[str, str] | None = None) -> None:
    """A PNG file, whole or not at all: see `encode_png`."""
    atomic_write(Path(path), encode_png(picture, text))


def encode_png(picture: np.ndarray, text: dict[str, str] | None = None) -> bytes:
    """PNG of uint8 (H, W, 3); `text` becomes PNG text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def read_png_text(content: bytes, key: str) -> str:
    """The text chunk of a PNG that decodes; empty where it has none. PictureError for what `decode_image` refuses."""
    decode_image(content)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.load()  # text may stand behind the pixels
        return str(image.info.get(key, ""))


def has_png_text(path: Path, key: str) -> bool:
    """Whether a file is a PNG with this text chunk; any other file has none."""
    try:
        return bool(read_png_text(read_file(path), key))
    except PictureError:
        return False
