"""Guesses a car's colour: the one that the middle of a picture has more of than its edges.

Good enough for the balance of a set; often wrong for single pictures (night, two tones, a wall of the same colour).
"""

import numpy as np
from PIL import Image

# Name → its colour in charts.
COLOURS = {
    "white": "#f2f2ef",
    "silver": "#b9bcc0",
    "grey": "#75787d",
    "black": "#1c1d20",
    "red": "#c2332b",
    "orange": "#e07b28",
    "yellow": "#e6c229",
    "green": "#3f8f4f",
    "blue": "#2f63b8",
    "purple": "#8a4fa3",
    "brown": "#7a5236",
    "beige": "#d8c8a4",
}
COLOUR_NAMES = tuple(COLOURS)
SAMPLE_PX = 48
# Upper end of each colour's hues, in degrees.
HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (260, "blue"), (338, "purple"), (360, "red"))
DARK_WEIGHT = 0.45  # every car has black glass, tyres and shadow
EDGE_WEIGHT = 0.8


def guess_colour(picture: np.ndarray) -> str:
    """uint8 (H, W, 3) of one car → a name of COLOURS."""
    small = Image.fromarray(picture).resize((SAMPLE_PX, SAMPLE_PX), Image.Resampling.BOX)
    names = _pixel_names(np.asarray(small.convert("HSV")))
    middle = names[16:38, 7:41]
    edge = np.concatenate([names[:7].ravel(), names[44:].ravel(), names[7:44, :3].ravel(), names[7:44, -3:].ravel()])
    excess = _shares(middle) - EDGE_WEIGHT * _shares(edge)
    excess[COLOUR_NAMES.index("black")] *= DARK_WEIGHT
    return COLOUR_NAMES[int(np.argmax(excess))]


def _shares(names: np.ndarray) -> np.ndarray:
    return np.bincount(names.ravel(), minlength=len(COLOUR_NAMES)) / names.size


def _pixel_names(hsv: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) → index into COLOUR_NAMES (H, W)."""
    hue, saturation, value = hsv[..., 0] * (360 / 256), hsv[..., 1] / 255, hsv[..., 2] / 255
    named = np.full(hue.shape, COLOUR_NAMES.index("red"))
    for limit, name in reversed(HUES):
        named[hue < limit] = COLOUR_NAMES.index(name)
    warm = (hue >= 15) & (hue < 70)
    named[warm & (value < 0.55)] = COLOUR_NAMES.index("brown")
    named[warm & (saturation < 0.38) & (value >= 0.55)] = COLOUR_NAMES.index("beige")
    plain = saturation < 0.17
    for limit, name in ((2.0, "white"), (0.80, "silver"), (0.52, "grey")):
        named[plain & (value < limit)] = COLOUR_NAMES.index(name)
    named[value < 0.24] = COLOUR_NAMES.index("black")
    return named
