"""Pictures for pages: animated WebP of sweeps, and data URIs.

Takes uint8 (..., H, W, 3). Small pictures are enlarged with Lanczos: browsers would make them blocky.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from harness.images.decode import resize_picture
from harness.storage.atomic import atomic_write

SWEEP_WIDTH_PX = 256  # of an animation, about
FRAME_MS, HOLD_MS = 110, 900  # a step of the sweep; its first and last picture
WEBP_QUALITY, JPEG_QUALITY = 82, 90


def save_sweep_webp(
    path: Path, frames: np.ndarray, width_px: int = SWEEP_WIDTH_PX, frame_ms: int = FRAME_MS, hold_ms: int = HOLD_MS
) -> None:
    """Writes an animated WebP of uint8 (T, H, W, 3), forwards and backwards in a loop, enlarged to about `width_px`."""
    atomic_write(Path(path), sweep_webp(frames, width_px, frame_ms, hold_ms))


def sweep_webp(
    frames: np.ndarray, width_px: int = SWEEP_WIDTH_PX, frame_ms: int = FRAME_MS, hold_ms: int = HOLD_MS
) -> bytes:
    """The bytes that `save_sweep_webp` writes."""
    assert frames.ndim == 4 and frames.dtype == np.uint8 and len(frames) > 0, (frames.shape, frames.dtype)
    enlarged = [Image.fromarray(enlarge(frame, width_px)) for frame in frames]
    there_and_back = enlarged + enlarged[-2:0:-1]
    durations = [frame_ms] * len(there_and_back)
    durations[0] = durations[len(enlarged) - 1] = hold_ms
    stream = io.BytesIO()
    first, rest = there_and_back[0], there_and_back[1:]
    first.save(stream, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=WEBP_QUALITY)
    return stream.getvalue()


def enlarge(picture: np.ndarray, width_px: int) -> np.ndarray:
    """uint8 (H, W, 3) enlarged by the integer factor that brings it nearest to `width_px`; never reduced."""
    height, width = picture.shape[:2]
    factor = max(1, round(width_px / width))
    return resize_picture(picture, height * factor, width * factor)


# ---- data URIs ----


def picture_uri(picture: np.ndarray, width_px: int, quality: int = WEBP_QUALITY) -> str:
    """uint8 (H, W, 3), resized to `width_px`, as a data URI (WebP)."""
    height, width = picture.shape[:2]
    scaled = resize_picture(picture, max(1, round(height * width_px / width)), width_px)
    stream = io.BytesIO()
    Image.fromarray(scaled).save(stream, "WEBP", quality=quality, method=4)
    return bytes_uri(stream.getvalue(), "image/webp")


def picture_jpeg(picture: np.ndarray, width_px: int) -> bytes:
    """uint8 (H, W, 3) enlarged to about `width_px`, as a JPEG: eight times faster to encode than WebP."""
    stream = io.BytesIO()
    Image.fromarray(enlarge(picture, width_px)).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def picture_jpeg_uri(picture: np.ndarray, width_px: int) -> str:
    return bytes_uri(picture_jpeg(picture, width_px), "image/jpeg")


def strip_uri(pictures: np.ndarray, width_px: int) -> str:
    """uint8 (T, H, W, 3) side by side without gaps, each resized to `width_px`, as a data URI (WebP)."""
    count, height, width = pictures.shape[:3]
    scaled = [resize_picture(picture, max(1, round(height * width_px / width)), width_px) for picture in pictures]
    return picture_uri(np.concatenate(scaled, axis=1), width_px * count)


def bytes_uri(content: bytes, kind: str) -> str:
    """Any content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
