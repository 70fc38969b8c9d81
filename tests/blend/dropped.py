"""Picture files as somebody might drop them."""

import io

import numpy as np
from PIL import Image


def picture_file(seed: int, kind: str = "JPEG", size: tuple[int, int] = (90, 60)) -> bytes:
    """Smooth random colours as a file; size is width, height."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()
