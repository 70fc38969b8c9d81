"""Decoding and resizing with Pillow alone: the baseline of `python -m datasets bench`."""

from PIL import Image

SIZE_PX = 128


def decode_and_shrink(path: str, crop: bool = False) -> None:
    """Decodes a picture and shrinks it with Lanczos; `crop`: the middle square alone, as the stage packs it."""
    image = Image.open(path)
    image.load()
    if crop:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    image.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)
