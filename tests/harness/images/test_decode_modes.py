"""Golden pixels of grey, palette, transparent, 16-bit, CMYK, animated and rotated pictures."""

import numpy as np
import pytest
from PIL import Image

from harness.images.decode import decode_picture
from tests.harness.pictures import encoded, fit_picture, scene

GREY = np.array([[0, 1, 128, 254], [255, 127, 64, 32]], np.uint8)


def rows(*pixels: tuple[int, int, int]) -> list:
    return [list(pixel) for pixel in pixels]


def test_grey_and_black_and_white():
    expected = np.repeat(GREY[..., None], 3, axis=2)
    assert np.array_equal(decode_picture(encoded(GREY)), expected)
    assert np.array_equal(decode_picture(encoded(Image.fromarray(GREY > 127))), np.where(expected > 127, 255, 0))
    assert np.abs(decode_picture(encoded(np.full((8, 8), 77, np.uint8), "JPEG")).astype(int) - 77).max() <= 1


def test_16_bits_of_grey_are_scaled_and_not_clipped():
    levels = np.array([[0, 257, 128 * 257, 65535, 300, 40000]], np.uint16)
    assert decode_picture(encoded(levels))[0].tolist() == [[v, v, v] for v in (0, 1, 128, 255, 1, 156)]


def test_transparency_is_laid_over_white():
    la = np.dstack([GREY, np.array([[0, 255, 128, 255], [255, 0, 255, 255]], np.uint8)])
    decoded = decode_picture(encoded(Image.fromarray(la, "LA")))
    assert decoded[0].tolist() == [[v, v, v] for v in (255, 1, 191, 254)]
    assert decoded[1, 1].tolist() == [255, 255, 255]
    rgba = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [200, 0, 0, 51]]], np.uint8)
    assert decode_picture(encoded(rgba))[0].tolist() == rows((255, 255, 255), (200, 0, 0), (244, 204, 204))
    assert np.array_equal(decode_picture(encoded(rgba, "WEBP", lossless=True)), decode_picture(encoded(rgba)))


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.putdata([0, 1, 2])
    assert decode_picture(encoded(image))[0].tolist() == rows((10, 20, 30), (200, 100, 50), (1, 2, 3))
    assert decode_picture(encoded(image, transparency=1))[0].tolist() == rows((10, 20, 30), (255, 255, 255), (1, 2, 3))
    alphas = decode_picture(encoded(image, transparency=bytes([255, 51, 0])))
    assert alphas[0].tolist() == rows((10, 20, 30), (244, 224, 214), (255, 255, 255))


def test_one_colour_may_be_transparent():
    picture = np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)
    assert decode_picture(encoded(picture, transparency=(9, 9, 9)))[0].tolist() == rows((255, 255, 255), (1, 2, 3))
    grey = np.array([[9, 7]], np.uint8)
    assert decode_picture(encoded(grey, transparency=9))[0].tolist() == rows((255, 255, 255), (7, 7, 7))


def test_cmyk_is_no_negative():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255  # all cyan
    decoded = decode_picture(encoded(Image.fromarray(ink, "CMYK"), "JPEG"))
    assert np.abs(decoded.astype(int) - [0, 255, 255]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    content = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert (decode_picture(content) == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_picture_is_set_upright(orientation: int, kind: str):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[8:, 16:] = (250, 0, 0), (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    decoded = decode_picture(encoded(np.ascontiguousarray(stored), kind, exif=exif, **options))
    assert decoded.shape == upright.shape and np.abs(decoded.astype(int) - upright).max() < 30


def test_broken_exif_does_not_refuse_a_picture():
    content = encoded(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + bytes(40))
    assert decode_picture(content).shape == (60, 80, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 10000), (10000, 1)])
def test_extreme_shapes(size: tuple[int, int]):
    picture = decode_picture(encoded(scene(*size)))
    assert picture.shape == (*size, 3)
    assert fit_picture(picture, 32, 64, "crop").shape == (32, 64, 3)
