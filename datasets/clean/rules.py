"""What can be said against a picture without any network: too small, of the wrong shape, blank, dark."""

from typing import NamedTuple

from harness.config.schema import Clean

BLANK_LEVELS = 10  # of brightness, between the darkest and the brightest 2 % of a picture; less is one flat colour
DARK_LEVEL = 32  # of 255, that the brightest 2 % reach; below it no car can be made out
UNDECODED = ("unreadable", "damaged", "format", "too_large", "crash", "timeout", "link", "not_a_file")
UNPLACED = ("no_class", "ignored", "no_training")  # because of the folder that they lie in


class FileFacts(NamedTuple):
    """What is known of a file. `reason`: why it cannot be used at all. Sizes: without letterbox bars, in pixels.

    `luma_low`, `luma_high`: see `fingerprints.luma_range`; None where nobody looked."""

    reason: str | None
    inner_width: int | None
    inner_height: int | None
    luma_low: int | None
    luma_high: int | None


def rule_reason(file: FileFacts, clean: Clean | None) -> str | None:
    """A reason against a file, "slug: text", or None. `clean` None: only what cannot be decoded has one."""
    if file.reason or clean is None:
        return file.reason
    width, height = file.inner_width or 0, file.inner_height or 0
    if min(width, height) < clean.min_side_px:
        return f"too_small: {width}x{height} pixels, allowed {clean.min_side_px} or more a side"
    aspect = width / height
    if not clean.min_aspect <= aspect <= clean.max_aspect:
        return f"aspect: {aspect:.2f} times as wide as high, allowed {clean.min_aspect:g} to {clean.max_aspect:g}"
    return (
        None if file.luma_low is None or file.luma_high is None else _brightness_reason(file.luma_low, file.luma_high)
    )


def _brightness_reason(low: int, high: int) -> str | None:
    if high < DARK_LEVEL and high > low:
        return f"dark: hardly anything is brighter than {high} of 255"
    if high - low < BLANK_LEVELS:
        return f"blank: brightness from {low} to {high} of 255"
    return None


def is_undecoded(reason: str | None) -> bool:
    return (reason or "").partition(":")[0] in UNDECODED
