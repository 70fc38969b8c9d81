"""The decoder of untrusted pictures; crops and borders, exact Lanczos, grids, PNG files.

A picture is uint8 (H, W, 3), sRGB. Unusable files raise PictureError with a reason. Limits bound the cost of a file:
its bytes, format, pixels, parts and JPEG scans.
"""

import io
import math
import os
import re
import threading
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from harness.files import open_file
from harness.images.colour import MAX_PROFILE_BYTES, to_srgb
from harness.images.jpeg_scans import cut_scan
from harness.images.letterbox import remove_letterbox
from harness.images.magic_bytes import PNG_BEGIN, PNG_END, other_kind, picture_kind
from harness.storage.atomic import atomic_write

# By the first bytes. Pillow has 40 more formats, whose decoders had the worse bugs.
PILLOW_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "heic": "HEIF"}
FORMATS = ("JPEG", "PNG", "WebP", "AVIF", "HEIC")
MAX_PIXELS = 50_000_000
MAX_JPEG_PIXELS = 250_000_000  # above MAX_PIXELS a JPEG is decoded at 1/2, 1/4 or 1/8 per side
Image.MAX_IMAGE_PIXELS = MAX_JPEG_PIXELS  # Pillow's own limit must not refuse a large JPEG
MIN_ROWS = 0.95  # of a truncated picture must decode
TRUNCATED = "image file is truncated"  # start of Pillow's error
TEXT_PARTS, TEXT_BYTES = (
    32,
    2**20,
)  # limits of PNG text chunks, which may hold orientation and design
MAX_FILE_MB = 200  # more is not a photo of 50 megapixels
DECODE_SLOTS = threading.BoundedSemaphore(2)  # per process: each picture may need MAX_PIXELS of memory
MAX_SCAN_PIXELS = 1_500_000_000  # pixels x scans of a JPEG, 1 to 2 ns each: 30 scans of 50 megapixels
MAX_PARTS = 100_000  # chunks of a PNG, segments and padding bytes of a JPEG: Pillow skips each in Python
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # not stuffing, padding or a restart marker
BLOCK_ROWS, MIN_TAIL_BYTES = 16, 64  # rows of a JPEG's largest block; bytes of a scan that show where it ends
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
EDGE_LINES = 2  # outermost lines that a padded border extends


Fit = Literal["crop", "pad"]


class PictureError(ValueError):
    """An unusable picture; `reason` is a slug and a text: "damaged: image file is truncated"."""

    def __init__(self, slug: str, text: str) -> None:
        self.reason = f"{slug}: {' '.join(text.split())[:200]}"
        super().__init__(self.reason)


def read_file(path: Path | str) -> bytes:
    """The bytes of a file that may be a picture. PictureError if it is unreadable or far too large."""
    try:
        with open_file(path) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_FILE_MB * 2**20:
                raise PictureError("too_large", f"the file is larger than {MAX_FILE_MB} MiB")
            return stream.read()
    except PictureError:
        raise
    except OSError as error:
        raise PictureError("unreadable", error.strerror or str(error)) from error


@dataclass(frozen=True)
class Decoded:
    """`image`: RGB; `size_px`: width and height of the upright original; `note`: about a truncated picture, else ""."""

    image: Image.Image
    size_px: tuple[int, int]
    note: str = ""


def decode_picture(source: Path | bytes, fast_size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 (H, W, 3) RGB, read-only, with letterbox bars: see `decode`."""
    content = source if isinstance(source, bytes) else read_file(source)
    return np.asarray(decode(content, fast_size, keep_letterbox=True).image)


def decode(
    content: bytes, fast_size: tuple[int, int] | None = None, *, keep_letterbox: bool = False, fast_over_px: int = 0
) -> Decoded:
    """A picture in one of FORMATS without letterbox bars: upright, first frame, alpha over white, sRGB. PictureError
    for unusable files.

    `fast_size` (height, width): the later size; a JPEG of more than `fast_over_px` pixels may be decoded smaller, but
    not below twice this size.
    """
    with DECODE_SLOTS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checked below
        try:
            found = _decode(content, fast_size, fast_over_px)
            return found if keep_letterbox else Decoded(remove_letterbox(found.image), found.size_px, found.note)
        except PictureError:
            raise
        except UnidentifiedImageError as error:
            raise PictureError("damaged", f"a {picture_kind(content)} with a damaged header") from error
        except Image.DecompressionBombError as error:
            raise PictureError("too_large", f"more than {MAX_JPEG_PIXELS // 10**6} megapixels") from error
        except MemoryError as error:
            raise PictureError("too_large", "not enough memory to decode it") from error
        except Exception as error:  # a decoder may raise anything
            raise PictureError("damaged", str(error) or type(error).__name__) from error


def _decode(content: bytes, fast_size: tuple[int, int] | None, fast_over_px: int) -> Decoded:
    kind = picture_kind(content)
    if kind is None:
        raise PictureError("format", f"found {other_kind(content)}, allowed {', '.join(FORMATS)}")
    _check_decoder(kind)
    content, profile, ends = check_png(content) if kind == "png" else (content, None, True)
    scans = count_jpeg_scans(content) if kind == "jpg" else 1
    with Image.open(io.BytesIO(content), formats=(PILLOW_FORMATS[kind],)) as image:
        width, height = image.size
        if width * height > (max_pixels := MAX_JPEG_PIXELS if kind == "jpg" else MAX_PIXELS):
            raise PictureError("too_large", f"{width}x{height} pixels, allowed {max_pixels // 10**6} megapixels")
        if width * height * scans > MAX_SCAN_PIXELS:
            limit = MAX_SCAN_PIXELS // (width * height)
            raise PictureError("too_large", f"a JPEG of {width}x{height} pixels in {scans} scans, allowed {limit}")
        orientation = _orientation(image)
        turn, sideways = EXIF_TURNS.get(orientation), orientation in EXIF_SIDEWAYS
        if width * height <= fast_over_px:
            fast_size = None
        if kind == "jpg":
            _reduce(image, (fast_size[1], fast_size[0]) if fast_size is not None and sideways else fast_size)
        loaded, note = _load(image, content, kind)
        note = note if ends or note else "cut short: all of its rows decode"
        rgb = _to_rgb(loaded, profile or image.info.get("icc_profile"))
        size_px = (height, width) if sideways else (width, height)
        return Decoded(rgb if turn is None else rgb.transpose(turn), size_px, note)


def _check_decoder(kind: str) -> None:
    if kind == "avif" and not features.check("avif"):
        raise PictureError("format", "found avif, which this Pillow cannot read, try pip install --upgrade pillow")
    if kind == "heic":
        try:
            import_module("pillow_heif").register_heif_opener(thumbnails=False)
        except ImportError as error:
            raise PictureError(
                "format", "found heic, which needs the heif extra, try pip install pillow-heif"
            ) from error


def _reduce(image: Image.Image, fast_size: tuple[int, int] | None) -> None:
    """Decodes a JPEG smaller if it is too large or `fast_size` (height, width) allows it."""
    width, height = wanted = image.size
    factor = 1
    while width * height > MAX_PIXELS * factor**2:
        factor *= 2
    if fast_size is not None and image.format == "JPEG":
        wanted = 2 * fast_size[1], 2 * fast_size[0]
    if factor > 1 or wanted != image.size:
        image.draft(None, (min(wanted[0], width // factor), min(wanted[1], height // factor)))  # pyright: ignore
    if image.width * image.height > MAX_PIXELS:
        raise PictureError("too_large", f"{width}x{height} pixels, which cannot be decoded smaller")


def _load(image: Image.Image, content: bytes, kind: str) -> tuple[Image.Image, str]:
    """(the image, a note if it is truncated).

    A truncated picture is used if MIN_ROWS of its rows decode. The other rows are cropped, or remain coarser in a
    progressive JPEG that lacks only part of its last scan."""
    try:
        image.load()
        return image, ""
    except OSError as error:
        if kind not in ("jpg", "png") or image.info.get("interlace") or not str(error).startswith(TRUNCATED):
            raise
        start = cut_scan(content) if kind == "jpg" else None
        if start is None:
            image.tile = []  # pyright: ignore  # keep the rows decoded so far
            values = np.asarray(image).reshape(image.height, -1)
            rows = int(np.flatnonzero(values.any(axis=1)).max(initial=-1)) + 1  # rows not decoded are all zeros
            found = image.crop((0, 0, image.width, rows))
        else:
            found, rows = _load_but_last_scan(content, start, image.size)
        if rows < MIN_ROWS * image.height:
            text = f"cut short: {rows} of {image.height} rows decode, allowed {MIN_ROWS:.0%} or more"
            raise PictureError("damaged", text) from error
        return found, f"cut short: {rows / image.height:.1%} of its rows decode"


def _load_but_last_scan(content: bytes, start: int, size_px: tuple[int, int]) -> tuple[Image.Image, int]:
    """(the image, its number of complete rows) of a progressive JPEG whose last scan, from byte `start`, is truncated.
    The rows below lack that scan. Where it ends shows by decoding a little less of it, minus the torn block."""
    less = len(content) - max(MIN_TAIL_BYTES, (len(content) - start) // 100)
    found, shorter, coarse = (_load_part(content[:end], size_px) for end in (len(content), less, start))
    differing = np.flatnonzero((np.asarray(found) != np.asarray(shorter)).any(axis=(1, 2) if found.im.bands > 1 else 1))
    rows = max(0, int(differing[0]) - BLOCK_ROWS) if len(differing) else 0
    found.paste(coarse.crop((0, rows, *size_px)), (0, rows))
    return found, rows


def _load_part(content: bytes, size_px: tuple[int, int]) -> Image.Image:
    """A truncated progressive JPEG, as far as its scans go, at this size."""
    with Image.open(io.BytesIO(content + JPEG_END), formats=("JPEG",)) as image:
        image.draft(None, size_px)  # pyright: ignore
        image.load()
        return image


def count_jpeg_scans(content: bytes) -> int:
    """Scans of a JPEG, each over all its pixels: usually 10 in a progressive one, thousands in a malicious one.

    Previews inside other segments and data after the picture's end are not counted. PictureError if Pillow would have
    to skip too many segments.
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


def check_png(content: bytes) -> tuple[bytes, bytes | None, bool]:
    """(content for Pillow, ICC profile, whether it is complete) of a PNG. PictureError for a wrong checksum: Pillow
    checks only some. Long texts, which Pillow would refuse, are left out."""
    place, parts, texts, view = len(PNG_BEGIN), 0, 0, memoryview(content)
    kept, profile, seen = [view[:place]], None, b""
    while place + 12 <= len(content) and seen != b"IEND":
        size = int.from_bytes(view[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(content):
            break
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise PictureError("damaged", f"the checksum of the PNG's chunk at byte {place} is wrong")
        seen = bytes(view[place + 4 : place + 8])
        if seen == b"iCCP":
            profile = profile or _png_profile(bytes(view[place + 8 : end]))
        elif seen not in PNG_TEXTS:
            kept.append(view[place : end + 4])
        elif texts < TEXT_PARTS and _is_short_text(seen, bytes(view[place + 8 : min(end, place + 8 + TEXT_BYTES + 1)])):
            kept.append(view[place : end + 4])
            texts += 1
        place = end + 4
        parts += 1
        _check_parts(parts)
    if seen == b"IEND":
        return b"".join(kept), profile, True
    if PNG_END in content[place:]:
        raise PictureError("damaged", f"the size of the PNG's chunk at byte {place} is wrong")
    if content[place + 4 : place + 8] != b"IDAT" and seen != b"IDAT":
        raise PictureError("damaged", "the PNG ends too early")
    return b"".join([*kept, view[place:]]), profile, False


def _png_profile(body: bytes) -> bytes | None:
    """The decompressed profile; None if it is too large or damaged."""
    try:
        found = zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return found if len(found) <= MAX_PROFILE_BYTES else None


def _is_short_text(kind: bytes, body: bytes) -> bool:
    """Whether a text chunk is short, also when decompressed."""
    key, _, rest = body.partition(b"\0")
    if len(body) > TEXT_BYTES or kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return len(body) <= TEXT_BYTES
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(packed, TEXT_BYTES + 1)) <= TEXT_BYTES
    except zlib.error:
        return False


def _check_parts(parts: int) -> None:
    if parts > MAX_PARTS:
        raise PictureError("damaged", f"found more than {MAX_PARTS:,} parts, allowed a photo")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to refuse a picture
        return 1


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's convert would clip at 255
        levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        over_white = Image.new("RGB", image.size, (255, 255, 255))
        over_white.paste(to_srgb(image.convert("RGB"), profile), mask=image.getchannel("A"))
        return over_white
    image = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    return to_srgb(image, profile).convert("RGB")


def centred_box(old_height: int, old_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest centred crop with the aspect height : width."""
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
    """Exact Lanczos over all source pixels, optionally of `box` (left, top, right, bottom), whose edges see the pixels
    beyond them. FID depends on the resizer, so everything uses this one."""
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=None))


def pad_image(image: Image.Image, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3) with the whole picture centred, resized by exact Lanczos, and its edges faded outwards.

    The missing sides extend the outermost lines with increasing blur. Of five paddings compared on photos of cars, only
    this one has neither a visible border, which a discriminator would learn first (a flat colour, black bars, a blurred
    copy), nor streaks (edge replication).
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
    """Fills lines[:first] and lines[end:] of uint8 (lines, length, 3) from the lines between them, in place."""
    count = len(lines) - end  # at least `first`
    if not count:
        return
    edges = [lines[first:end][:EDGE_LINES], lines[first:end][-EDGE_LINES:]]
    faded = _fade(np.concatenate([edge.mean(axis=0) for edge in edges], axis=1).round().astype(np.int32), count)
    lines[:first] = faded[:first, :, :3][::-1]
    lines[end:] = faded[..., 3:]


def _fade(line: np.ndarray, count: int) -> np.ndarray:
    """int32 (length, C) → (count, length, C): row k is averaged twice over k + 1 neighbours on either side.

    Twice, as the corners of a single box filter show as rays; in integers, to be the same on every machine.
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
    """uint8 (height, width, 3), by exact Lanczos: the input of all networks.

    `fit`: crop = the largest centred crop with the aspect; pad = the whole picture, see `pad_image`."""
    if fit == "pad":
        return pad_image(inner, height, width)
    return resize_image(inner, height, width, centred_box(inner.height, inner.width, height, width))


def picture_grid(pictures: np.ndarray | Sequence[np.ndarray], columns: int, gap_px: int = 2) -> np.ndarray:
    """uint8 (N, H, W, 3) row by row in one picture, on white."""
    count, height, width = len(pictures), *pictures[0].shape[:2]
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + gap_px), k % columns * (width + gap_px)
        grid[top : top + height, left : left + width] = picture
    return grid


TEXT_KEY = "carforge"  # of the PNG text chunk with a picture's origin


def save_png(path: Path, picture: np.ndarray, text: dict[str, str] | None = None) -> None:
    """Writes a PNG file atomically: see `encode_png`."""
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
    """A text chunk of a PNG, "" if there is none. PictureError for what `decode` refuses."""
    decode(content)
    with Image.open(io.BytesIO(check_png(content)[0]), formats=("PNG",)) as image:
        image.load()  # text may come after the pixels
        return str(image.info.get(key, ""))


def has_png_text(path: Path, key: str) -> bool:
    """Whether a file is a PNG with this text chunk."""
    try:
        return bool(read_png_text(read_file(path), key))
    except PictureError:
        return False
