"""Colours of a picture with an ICC profile, as sRGB: what everything that is trained, drawn and shown here is in."""

import io
from contextlib import suppress
from typing import Any

from PIL import Image, ImageCms, features

MAX_PROFILE_BYTES = 4 * 2**20  # printers' profiles have up to 3 MiB
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile → mode of the pictures that it is for
CONVERSION = f"sRGB (ICC profiles by LittleCMS {features.version('littlecms2')})"  # what a set is stamped with


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB of an RGB, L or CMYK image in the colours of its profile; the image itself where the profile is sRGB,
    damaged, too large or for other pictures."""
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return image
    with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):  # bytes of strangers
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        facts: Any = source.profile
        name = (facts.profile_description or "").strip()
        if MODES.get(facts.xcolor_space.strip()) == image.mode and not name.startswith("sRGB"):
            target = ImageCms.createProfile("sRGB")
            intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            converted = ImageCms.profileToProfile(image, source, target, intent, "RGB", flags=flags)
            return converted or image
    return image
