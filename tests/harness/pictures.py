"""Small pictures and their encodings: what the tests of harness/images/decode.py share."""

import io

import numpy as np
from PIL import Image

from harness.images.decode import Fit, fit_image
from harness.images.letterbox import remove_letterbox


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3): smooth colours with some texture, as photos have."""
    noise = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def without_bars(picture: np.ndarray) -> np.ndarray:
    return np.asarray(remove_letterbox(Image.fromarray(np.ascontiguousarray(picture))))


def fit_picture(picture: np.ndarray, height: int, width: int, fit: Fit) -> np.ndarray:
    """uint8 (height, width, 3): what a set holds of a file with these pixels."""
    return fit_image(Image.fromarray(without_bars(picture)), height, width, fit)
