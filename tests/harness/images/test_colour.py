"""Pictures with an ICC profile are converted to sRGB."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from harness.images.colour import MAX_PROFILE_BYTES
from harness.images.decode import decode_picture
from tests.harness.images.test_decode import with_chunk
from tests.harness.pictures import encoded, scene

# Display P3's primaries (D50), as Apple's profile has them, with sRGB's curve; Adobe RGB's, with a gamma of 2.2.
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def profile_of(primaries: tuple[tuple[float, ...], ...], gamma: float | None, name: str = "wide") -> bytes:
    """A matrix profile, written by hand: ICC.1 version 2. `gamma` None: sRGB's curve, in 1,024 points."""
    x = np.linspace(0, 1, 1024)
    srgb = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    points = np.array([round(gamma * 256)]) if gamma else (srgb * 65535).round()
    curve = b"curv\0\0\0\0" + len(points).to_bytes(4, "big") + points.astype(">u2").tobytes()
    tags = {b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"cprt": b"text\0\0\0\0none\0"}
    tags[b"desc"] = b"desc\0\0\0\0" + (len(name) + 1).to_bytes(4, "big") + name.encode() + bytes(79)
    tags |= {key: _xyz(primary) for key, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, place = len(tags).to_bytes(4, "big"), b"", 132 + 12 * len(tags)
    for key, content in tags.items():
        content += bytes(-len(content) % 4)
        table += key + (place + len(body)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content
    head = bytearray(128)
    head[0:4] = (place + len(body)).to_bytes(4, "big")
    head[8:12], head[12:24], head[36:40] = b"\2\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    head[68:80] = _xyz((0.9642, 1.0, 0.8249))[8:]
    return bytes(head) + table + body


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in values)


def in_srgb(picture: np.ndarray, primaries: tuple[tuple[float, ...], ...], gamma: float | None) -> np.ndarray:
    """By the formulas alone: curve, matrix to XYZ, matrix to linear sRGB, curve."""
    levels = picture / 255
    srgb_linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear = levels**gamma if gamma else srgb_linear
    to_linear = np.linalg.inv(
        np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]).T
    )
    srgb = (linear @ np.array(primaries) @ to_linear.T).clip(0, 1)
    return 255 * np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("primaries", "gamma"), [(P3, None), (ADOBE, 2.19921875)], ids=["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "RGBA"])
def test_a_wide_profile_is_converted(primaries, gamma, kind):
    picture = scene(60, 80)
    image = Image.fromarray(picture)
    options = (
        {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    )
    if kind == "RGBA":
        image, kind = image.convert("RGBA"), "PNG"
        image.putpixel((0, 0), (*picture[0, 0].tolist(), 254))
    found = decode_picture(encoded(image, kind, icc_profile=profile_of(primaries, gamma), **options)).astype(float)
    expected = in_srgb(picture, primaries, gamma)
    assert np.abs(expected - picture).mean() > 4, "it makes a difference"
    assert np.abs(found - expected).mean() < 1 and np.abs(found - expected).max() < (32 if kind == "AVIF" else 3)


def test_a_jpeg_s_profile_is_converted():
    picture = scene(60, 80)
    plain = decode_picture(encoded(picture, "JPEG", quality=95))
    found = decode_picture(encoded(picture, "JPEG", quality=95, icc_profile=profile_of(P3, None))).astype(float)
    assert np.abs(found - in_srgb(plain, P3, None)).mean() < 1


def test_pictures_in_srgb_stay_bit_for_bit():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, profile_of(P3, None, "sRGB IEC61966-2.1")):
        assert np.array_equal(decode_picture(encoded(scene(), icc_profile=profile)), scene())


@pytest.mark.parametrize(
    "profile", [b"no profile", profile_of(P3, None)[:200], profile_of(P3, None) + bytes(MAX_PROFILE_BYTES)]
)
def test_a_profile_that_cannot_be_used_changes_nothing(profile):
    assert np.array_equal(decode_picture(encoded(scene(), icc_profile=profile)), scene())


def test_a_profile_for_other_pictures_changes_nothing():
    assert np.array_equal(
        decode_picture(encoded(scene()[..., 0], icc_profile=profile_of(P3, None)))[..., 0], scene()[..., 0]
    )


def test_a_profile_of_a_png_may_be_large():
    """Pillow takes none above 1 MiB."""
    profile = profile_of(P3, None) + bytes(np.random.default_rng(0).bytes(2 * 2**20))
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    png = with_chunk(encoded(scene()), b"iCCP", b"wide\0\0" + zlib.compress(profile))
    small = decode_picture(encoded(scene(), icc_profile=profile_of(P3, None)))
    assert np.array_equal(decode_picture(png), small) and not np.array_equal(small, scene())


def test_cmyk_is_converted_by_its_profile_or_plainly():
    image = Image.fromarray(scene()).convert("CMYK")
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, icc_profile=profile_of(P3, None))  # of RGB: not for it
    assert np.array_equal(decode_picture(stream.getvalue()), decode_picture(encoded(image, "JPEG", quality=95)))
