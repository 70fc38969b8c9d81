"""The short way from bytes to the set's picture is the long one of `harness.images.decode`, pixel by pixel."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets.bench.files import png_header
from datasets.scan.open_image import check_png, open_inner
from harness.images.decode import PictureError, decode_picture, fit_image, fit_picture, remove_letterbox
from tests.datasets.stand_in import paint


def saved(picture: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def framed(colour: int, rows: int = 0, columns: int = 0) -> np.ndarray:
    whole = np.full((90 + 2 * rows, 120 + 2 * columns, 3), colour, np.uint8)
    whole[rows : rows + 90, columns : columns + 120] = paint(3)
    return whole


@pytest.mark.parametrize(
    "picture",
    [
        paint(1),
        paint(2, 160, 60),
        framed(0, rows=20),
        framed(0, columns=12),
        framed(255, rows=9, columns=15),
        framed(3, 30),
    ],
    ids=["plain", "tall", "black rows", "black columns", "white all round", "nearly black"],
)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_the_same_pixels_as_the_long_way(picture, size):
    for content in (saved(picture), saved(picture, "JPEG", quality=90)):
        inner, size_px = open_inner(content)
        whole = decode_picture(content)
        assert size_px == whole.shape[1::-1]
        assert np.array_equal(np.asarray(inner), remove_letterbox(whole))
        for fit in ("crop", "pad"):
            assert np.array_equal(fit_image(inner, size[0], size[1], fit), fit_picture(whole, size[0], size[1], fit))


def test_turned_and_shrunk_pictures_tell_their_own_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(paint(1, 300, 400), "JPEG", exif=exif.tobytes())
    inner, size_px = open_inner(content, fast_size=(32, 32))
    assert size_px == (300, 400) and inner.size < (300, 400)


def test_every_damaged_byte_of_a_png_is_found():
    content = saved(paint(1, 20, 24))
    check_png(content)
    check_png(content + b"what comes after its end is no part of it")
    for place in range(8, len(content)):
        with pytest.raises(PictureError, match="^damaged"):
            check_png(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])


@pytest.mark.parametrize("length", [9, 20, 33, 60, -12, -5, -1])
def test_a_short_png_is_damaged(length):
    with pytest.raises(PictureError, match="^damaged: the PNG ends too early"):
        check_png(saved(paint(1, 20, 24))[:length])


def test_pixels_that_a_decoder_would_take_are_not_taken():
    """A wrong checksum of sound data: the decoder itself says nothing."""
    content = bytearray(png_header(8, 8, zlib.compress(bytes(8 * 25))))
    content[content.index(b"IDAT") + 4 + len(zlib.compress(bytes(8 * 25)))] ^= 1
    assert decode_picture(bytes(content)).shape == (8, 8, 3)
    with pytest.raises(PictureError, match="^damaged"):
        open_inner(bytes(content))
