"""Reasons against a picture that need no network: too small, wrong shape, blank, dark."""

from typing import NamedTuple

from harness.config.schema import Clean

BLANK_LEVELS = 10  # of brightness, between the darkest and the brightest 2 % of a picture; below it is one flat colour
DARK_LEVEL = 32  # of 255, of the brightest 2 %; below it no car can be made out
UNDECODED = ("unreadable", "damaged", "format", "too_large", "crash", "timeout", "link", "not_a_file")
UNPLACED = ("no_class", "ignored", "no_training")  # because of their folder


class FileFacts(NamedTuple):
    """`reason`: why the file cannot be used at all. Sizes in pixels, without letterbox bars.

    `luma_low`, `luma_high`: see `fingerprints.luma_range`; None if the set is not cleaned."""

    reason: str | None
    inner_width: int | None
    inner_height: int | None
    luma_low: int | None
    luma_high: int | None


def rule_reason(file: FileFacts, clean: Clean | None) -> str | None:
    """A reason against a file, "slug: text", or None. `clean` None: files that can be decoded have none."""
    if file.reason or clean is None:
        return file.reason
    width, height = file.inner_width or 0, file.inner_height or 0
    if min(width, height) < clean.min_side_px:
        return f"too_small: {width}x{height} pixels, allowed {clean.min_side_px} or more a side"
    aspect = width / height
    if not clean.min_aspect <= aspect <= clean.max_aspect:
        return f"aspect: {aspect:.2f} times as wide as high, allowed {clean.min_aspect:g} to {clean.max_aspect:g}"
    low, high = file.luma_low, file.luma_high
    if low is None or high is None:
        return None
    if low < high < DARK_LEVEL:
        return f"dark: hardly anything is brighter than {high} of 255"
    return f"blank: brightness from {low} to {high} of 255" if high - low < BLANK_LEVELS else None


def to_slug(reason: str | None) -> str:
    """The part of a reason before the colon; "" for None."""
    return (reason or "").partition(":")[0]
