"""Bare Pillow: what no stage that reads whole pictures can do without. The yardstick of `python -m datasets bench`."""

from PIL import Image

SIZE_PX = 128


def decode_and_shrink(path: str) -> None:
    """The whole picture, decoded and brought to the set's size by Lanczos."""
    image = Image.open(path)
    image.load()
    image.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)


def decode_and_shrink_middle(path: str) -> None:
    """The middle square alone, as the stage packs it: so much less to shrink."""
    image = Image.open(path)
    image.load()
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.crop((left, top, left + side, top + side))
    middle.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)
