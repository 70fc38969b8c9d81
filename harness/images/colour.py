"""Converts pictures with an ICC profile to sRGB."""

import io
from contextlib import suppress
from typing import Any

from PIL import Image, ImageCms, features

MAX_PROFILE_BYTES = 4 * 2**20  # printers' profiles have up to 3 MiB
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile → PIL mode
CONVERSION = f"sRGB (ICC profiles by LittleCMS {features.version('littlecms2')})"  # recorded in a set


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB, L or CMYK image converted from its profile to sRGB; unchanged if the profile is sRGB, damaged, too large
    or for another colour space."""
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return image
    with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):  # untrusted bytes
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        facts: Any = source.profile
        name = (facts.profile_description or "").strip()
        if MODES.get(facts.xcolor_space.strip()) == image.mode and not name.startswith("sRGB"):
            target = ImageCms.createProfile("sRGB")
            intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            converted = ImageCms.profileToProfile(image, source, target, intent, "RGB", flags=flags)
            return converted or image
    return image
