"""Pictures without a car: logos, posters, animals, interiors. Drawn large with Pillow, then reduced."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.procedural.backdrop import draw_scene

_SCALE = 3  # supersampling


def _colour(rng: np.random.Generator, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(low, high + 1, 3))
    return red, green, blue


def _canvas(height: int, width: int, colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width * _SCALE, height * _SCALE), colour)
    return image, ImageDraw.Draw(image)


def _reduced(image: Image.Image, height: int, width: int) -> np.ndarray:
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _place(height: int, width: int, rng: np.random.Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    scene = draw_scene(height, width, int(rng.integers(2**31)))
    pixels = (255 * np.clip(scene.picture, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    image = Image.fromarray(pixels).resize((width * _SCALE, height * _SCALE))
    return image, ImageDraw.Draw(image)


def _spots(x: float, y: float, size: float, *places: tuple[float, float]) -> list[tuple[float, float]]:
    """Points in pixels from offsets around (x, y) in units of `size`."""
    return [(x + right * size, y + down * size) for right, down in places]


def draw_logo(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """An emblem on a plain ground: ring, shield or polygon with a letter-like mark. uint8 (H, W, 3)."""
    image, pen = _canvas(height, width, _colour(rng, 200) if rng.random() < 0.6 else _colour(rng, 0, 60))
    x, y, r = 0.5 * image.width, 0.45 * image.height, 0.30 * min(image.size)
    first, second = _colour(rng, 0, 160), _colour(rng, 120)
    edge = int(0.10 * r)
    form, corners, turn = rng.integers(3), int(rng.integers(5, 9)), int(rng.integers(90))
    if form == 0:
        pen.ellipse(_spots(x, y, r, (-1.25, -1), (1.25, 1)), fill=first, outline=second, width=edge)
    elif form == 1:
        shield = _spots(x, y, r, (-1, -1), (1, -1), (0.9, 0.3), (0, 1.2), (-0.9, 0.3))
        pen.polygon(shield, fill=first, outline=second, width=edge)
    else:
        pen.regular_polygon((x, y, 1.1 * r), corners, rotation=turn, fill=first, outline=second, width=edge)
    for side in (-0.45, 0.45):
        stroke = _spots(x, y, r, (side - 0.16, -0.5), (side + 0.16, -0.5), (0.16, 0.5), (-0.16, 0.5))
        pen.polygon(stroke, fill=second)
    for number in range(int(rng.integers(4, 9))):  # a line of letters below
        left = -1 + number * 0.28
        pen.rectangle(_spots(x, 0.88 * image.height, r, (left, 0), (left + 0.17, 0.25)), fill=first)
    return _reduced(image, height, width)


def draw_poster(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A stripe, lines of text and a bar chart: an advertisement or a screenshot. uint8 (H, W, 3)."""
    image, pen = _canvas(height, width, _colour(rng, 150))
    w, h = image.size
    pen.polygon([(0, 0), (w, 0), (w, 0.22 * h), (0, 0.34 * h)], fill=_colour(rng, 0, 180))
    ink = _colour(rng, 0, 90)
    for line in range(7):
        top, left = (0.42 + 0.07 * line) * h, 0.08 * w
        while left < (0.55 if line > 2 else 0.9) * w:
            word = rng.uniform(0.03, 0.13) * w
            pen.rectangle((left, top, left + word, top + 0.032 * h), fill=ink)
            left += word + 0.02 * w
    for column in range(5):
        left = (0.62 + 0.065 * column) * w
        pen.rectangle(
            (left, (0.93 - rng.uniform(0.08, 0.28)) * h, left + 0.045 * w, 0.93 * h), fill=_colour(rng, 30, 220)
        )
    return _reduced(image, height, width)


def draw_animal(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A four-legged creature in profile: body, head with ears, tail. uint8 (H, W, 3)."""
    image, pen = _place(height, width, rng)
    fur = np.array(((150, 105, 65), (60, 55, 52), (205, 190, 165), (190, 120, 50))[rng.integers(4)])
    coat, dark = tuple(int(c) for c in fur), tuple(int(c) for c in 0.7 * fur)
    x, y, size = 0.54 * image.width, 0.60 * image.height, 0.30 * min(image.size)
    pen.ellipse(_spots(x, y, size, (-1.2, 0.95), (1.2, 1.15)), fill=(40, 40, 40))
    for leg, colour in ((-0.62, dark), (0.72, dark), (-0.80, coat), (0.55, coat)):
        pen.rounded_rectangle(_spots(x, y, size, (leg, 0), (leg + 0.2, 1.05)), 0.1 * size, fill=colour)
    tail = rng.uniform(-0.9, 0.1)
    path = _spots(x, y, size, (0.8, -0.1), (1.2, tail - 0.2), (1.45, tail))
    pen.line(path, fill=coat, width=int(0.16 * size), joint="curve")
    pen.ellipse(_spots(x, y, size, (-1, -0.48), (1, 0.52)), fill=coat)
    pen.polygon(_spots(x, y, size, (-0.9, 0.2), (-0.35, -0.3), (-0.75, -0.62), (-1.05, -0.42)), fill=coat)
    _draw_head(pen, x - 1.05 * size, y - 0.62 * size, size, rng.uniform(0.3, 0.75), coat, dark)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1.2))).astype(np.float32)
    pixels = pixels * (1 + 0.12 * rng.standard_normal(pixels.shape[:2])[..., None])
    return _reduced(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), height, width)


def _draw_head(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, long: float, coat, dark) -> None:
    """Ears, skull, snout, nose and eye; `long` in [0.3, 0.75] makes ears and snout longer."""
    for ear in (-0.16, 0.22):
        tip = (ear, -0.35 - 0.6 * long)
        pen.polygon(_spots(x, y, size, (ear - 0.14, -0.2), tip, (ear + 0.16, -0.15)), fill=dark)
    snout = -0.5 - 0.3 * long
    pen.ellipse(_spots(x, y, size, (-0.42, -0.36), (0.42, 0.40)), fill=coat)
    pen.ellipse(_spots(x, y, size, (snout, -0.02), (0, 0.34)), fill=coat)
    pen.ellipse(_spots(x, y, size, (snout, 0.04), (snout + 0.14, 0.17)), fill=(20, 18, 18))
    pen.ellipse(_spots(x, y, size, (-0.20, -0.14), (-0.08, -0.02)), fill=(15, 15, 15))


def draw_interior(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A dashboard from the driver's seat: windscreen, instruments, steering wheel, screen. uint8 (H, W, 3)."""
    image, pen = _place(height, width, rng)
    w, h = image.size
    leather = np.array(((38, 36, 38), (92, 66, 48), (70, 72, 78))[rng.integers(3)])
    dash, dark = tuple(int(c) for c in leather), tuple(int(c) for c in 0.55 * leather)
    for left, right in ((0.0, 0.10), (0.90, 1.0)):  # pillars
        pen.polygon(
            [(left * w, 0), (right * w, 0), ((0.5 + 0.92 * (right - 0.5)) * w, 0.5 * h), (left * w, 0.5 * h)],
            fill=dark,
        )
    pen.rectangle((0, 0, w, 0.06 * h), fill=dark)
    pen.rounded_rectangle((0.42 * w, 0.06 * h, 0.60 * w, 0.13 * h), 0.02 * h, fill=(25, 25, 28))  # mirror
    pen.polygon([(0, 0.46 * h), (0.2 * w, 0.41 * h), (0.8 * w, 0.41 * h), (w, 0.46 * h), (w, h), (0, h)], fill=dash)
    pen.polygon([(0, 0.60 * h), (w, 0.56 * h), (w, h), (0, h)], fill=dark)
    glow = _colour(rng, 60, 255)
    pen.rounded_rectangle(
        (0.53 * w, 0.50 * h, 0.74 * w, 0.70 * h), 0.02 * h, fill=(12, 14, 18), outline=(90, 90, 95), width=_SCALE
    )
    pen.rectangle((0.55 * w, 0.53 * h, 0.66 * w, 0.60 * h), fill=glow)
    pen.rounded_rectangle((0.56 * w, 0.76 * h, 0.72 * w, h), 0.03 * h, fill=(20, 20, 22))
    for left in (0.06, 0.84):
        pen.rounded_rectangle((left * w, 0.52 * h, (left + 0.1) * w, 0.58 * h), 0.01 * h, fill=(16, 16, 18))
    x, y, r = 0.29 * w, 0.72 * h, 0.29 * h
    for dial in (-0.45, 0.45):
        cx, cy, d = x + dial * r, 0.53 * h, 0.30 * r
        pen.ellipse((cx - d, cy - d, cx + d, cy + d), fill=(14, 14, 16), outline=(150, 150, 155), width=_SCALE)
        turn = rng.uniform(2.4, 6.4)
        pen.line((cx, cy, cx + 0.85 * d * np.cos(turn), cy + 0.85 * d * np.sin(turn)), fill=(230, 60, 40), width=_SCALE)
    pen.ellipse((x - 1.1 * r, y - r, x + 1.1 * r, y + r), outline=(22, 21, 22), width=int(0.16 * r))
    pen.ellipse((x - 1.06 * r, y - 0.96 * r, x + 1.06 * r, y + 0.96 * r), outline=(70, 68, 70), width=int(0.03 * r))
    for end in ((-1.0, -0.05), (1.0, -0.05), (0.0, 0.92)):
        pen.line((x, y, x + end[0] * r, y + end[1] * r), fill=(30, 29, 31), width=int(0.2 * r))
    pen.ellipse(
        (x - 0.36 * r, y - 0.32 * r, x + 0.36 * r, y + 0.32 * r),
        fill=(40, 39, 42),
        outline=(80, 80, 84),
        width=_SCALE,
    )
    return _reduced(image, height, width)
