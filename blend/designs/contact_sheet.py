"""A sheet of designs to print or send: each enlarged, with its figures and its note below.

In: pictures with their documents. Out: one picture.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.web.embed import enlarge

CELL_PX, GAP_PX, MARGIN_PX = 384, 28, 48
LINE_PX, TEXT_PX, HEAD_PX = 24, 18, 30
COLUMNS, NOTE_LINES, NOTE_LETTERS = 3, 2, 42
PAPER, INK, SOFT = (250, 249, 246), (27, 28, 32), (95, 97, 105)


def draw_contact_sheet(head: str, pictures: Sequence[np.ndarray], documents: Sequence[dict[str, Any]]) -> np.ndarray:
    """uint8 (H', W', 3) of pictures uint8 (H, W, 3) and their documents (`design_document`)."""
    assert pictures
    pictures = [enlarge(picture, CELL_PX) for picture in pictures]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = min(COLUMNS, len(pictures))
    lines = -(-len(pictures) // columns)
    cell_px = height + (1 + NOTE_LINES) * LINE_PX + GAP_PX
    top_px = MARGIN_PX + HEAD_PX + GAP_PX
    size = 2 * MARGIN_PX + columns * width + (columns - 1) * GAP_PX, top_px + lines * cell_px + MARGIN_PX - GAP_PX
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, MARGIN_PX), head, INK, ImageFont.load_default(HEAD_PX))
    font = ImageFont.load_default(TEXT_PX)
    for number, (picture, document) in enumerate(zip(pictures, documents, strict=True)):
        left = MARGIN_PX + number % columns * (width + GAP_PX)
        top = top_px + number // columns * cell_px
        sheet.paste(Image.fromarray(picture), (left, top))
        note = " ".join(document.get("note", "").split())
        wrapped = textwrap.wrap(note, NOTE_LETTERS, max_lines=NOTE_LINES, placeholder=" …")
        texts = [(_figures(document.get("measures")), INK), *((line, SOFT) for line in wrapped)]
        for line, (text, colour) in enumerate(texts):
            pen.text((left, top + height + 6 + line * LINE_PX), text, colour, font)
    return np.array(sheet)


def _figures(measures: dict[str, Any] | None) -> str:
    if measures is None:
        return "not measured"
    identity = measures.get("identity")
    parts = [f"futurism {measures['futurism']:.0f}", "" if identity is None else f"identity {identity:.0f}"]
    novelty = (measures.get("novelty") or {}).get("verdict")
    return "  ·  ".join(part for part in [*parts, "near a training picture" if novelty == "WARN" else ""] if part)
