"""Detects and removes flat black or white bars at the edges of a picture."""

from typing import Any, cast

import numpy as np
from PIL import Image

QUICK_SAMPLES = 16  # pixels of an outermost line that are checked first
BAR_TOLERANCE = 14  # levels of JPEG noise in a flat bar
BAR_BLACK, BAR_WHITE = 20, 238  # a bar's median is at or beyond
BAR_SAMPLES = 96  # pixels checked per line, at most
BAR_SHARE = 0.9  # of a line's pixels must match the bar
BAR_LIMIT = 0.45  # of a side, at most
JPEG_BLOCK_PX = 16  # a bar must end within this many lines: JPEG ringing fills the block with the edge
# The share of a line's pixels that must change within two lines at a bar's edge. It is higher for white: cars are often
# shown before white, and a straight roof or shadow is not an edge.
EDGE_SHARE_BLACK, EDGE_SHARE_WHITE = 0.6, 0.85
EDGE_BLUR_PX = 1  # lines that resizing blends from bar and picture
BAR_SLACK = 3  # lines by which the two bars of a pair may differ, with blended ones


def remove_letterbox(image: Image.Image) -> Image.Image:
    """The RGB image without flat black or white bars at its edges; gradients are kept."""
    if not _may_have_bars(image):
        return image
    lines = np.asarray(image)
    top, bottom = _inside_bars(lines)
    left, right = _inside_bars(lines[top:bottom].transpose(1, 0, 2))
    box = left, top, right, bottom
    return image if box == (0, 0, *image.size) else image.crop(box)


def _may_have_bars(image: Image.Image) -> bool:
    """A quick check of a few pixels of the outermost rows and columns: most pictures have no bars and need no array."""
    (width, height), pixels = image.size, cast(Any, image.load())
    columns, rows = (range(0, side, -(-side // QUICK_SAMPLES)) for side in (width, height))
    lines = [[pixels[x, y][1] for x in columns] for y in (0, height - 1)]
    lines += [[pixels[x, y][1] for y in rows] for x in (0, width - 1)]
    return any(_may_have_bar(sorted(line)[len(line) // 2]) for line in lines)


def _may_have_bar(level: float) -> bool:
    """Whether an outermost line of this level may be a bar."""
    return not BAR_BLACK + 2 * BAR_TOLERANCE < level < BAR_WHITE - 2 * BAR_TOLERANCE


def _inside_bars(lines: np.ndarray) -> tuple[int, int]:
    """(first, end) of the lines between the bars of uint8 (lines, length, 3).

    Bars come in pairs of equal width. Next to a dark road or a night sky, one of two black bars may have no visible
    edge; it is then as wide as the other, if it is flat that far. Not so for white, as cars are shown before it."""
    both = _Side(lines), _Side(lines[::-1])
    widths = [side.bar_px() for side in both]
    for k, other in ((0, 1), (1, 0)):
        if widths[other] and not widths[k] and both[k].may_be_as_wide(both[other], widths[other]):
            widths[k] = widths[other]
    first, end = widths[0], len(lines) - widths[1]
    return (first, end) if first < end else (0, len(lines))  # nothing between them: not bars


class _Side:
    """The first lines of uint8 (lines, length, 3), of which `flat` match the outermost one, black or white."""

    def __init__(self, lines: np.ndarray) -> None:
        self.flat, self.black = 0, False
        step = -(-lines.shape[1] // BAR_SAMPLES)
        if not _may_have_bar(lines[0, ::step].mean()):
            return
        self.colour = np.median(lines[0, ::step], axis=0).astype(np.int16)
        self.black = bool(self.colour.max() <= BAR_BLACK)
        if not (self.black or self.colour.min() >= BAR_WHITE):
            return
        self.sampled = lines[: int(len(lines) * BAR_LIMIT) + JPEG_BLOCK_PX, ::step].astype(np.int16)
        like = (np.abs(self.sampled - self.colour).max(axis=2) <= BAR_TOLERANCE).mean(axis=1)
        flat = int(np.argmax(like < BAR_SHARE))  # 0 if all lines match: then it is not a bar
        self.flat = flat if flat <= BAR_LIMIT * len(lines) else 0

    def bar_px(self) -> int:
        """Width of the bar: flat lines with a sharp end."""
        if self.flat < 2:
            return 0
        edge = self.sampled[self.flat - 1 : self.flat + JPEG_BLOCK_PX]
        still_bar = (np.abs(edge[:-2] - self.colour).max(axis=2) <= 2 * BAR_TOLERANCE).mean(axis=1) >= BAR_SHARE
        changed = (np.abs(edge[2:] - edge[:-2]).max(axis=2) > BAR_TOLERANCE).mean(axis=1)
        ends = still_bar & (changed >= (EDGE_SHARE_BLACK if self.black else EDGE_SHARE_WHITE))
        return self.flat + int(np.argmax(ends)) + 1 + EDGE_BLUR_PX if ends.any() else 0

    def may_be_as_wide(self, other: "_Side", width: int) -> bool:
        """Whether this side may have a black bar like the other side's of `width` lines."""
        return self.flat >= max(2, width - BAR_SLACK) and self.black and other.black
