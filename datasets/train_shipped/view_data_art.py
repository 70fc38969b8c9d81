"""Simple drawings for the view classifier's training pictures: people, lettering, patterns, plain grounds.

Pictures are uint8 (H, W, 3); grounds linear float32 (H, W, 3) in [0, 1], for `datasets.procedural.render.composite`.
"""

import numpy as np
from PIL import Image, ImageDraw

from harness.images.decode import resize_picture

SKINS = ((241, 204, 178), (214, 160, 122), (158, 108, 76), (96, 64, 46))


def draw_ground(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """White, a flat colour, a gradient, or a gradient below random patterns."""
    kind = rng.integers(7)
    if kind <= 1:
        return np.full((height, width, 3), (1.0, rng.uniform(0.85, 1.0))[kind], np.float32)
    colour = rng.uniform(0.02, 0.9, 3).astype(np.float32).clip(0, 1)
    grey = np.full(3, rng.uniform(0.0, 0.9), np.float32)
    first = grey if rng.random() < 0.6 else colour
    if kind == 2:
        return np.broadcast_to(first, (height, width, 3)).copy()
    second = (first * rng.uniform(0.3, 1.2)).clip(0, 1)
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** rng.uniform(0.5, 2)
    ground = np.broadcast_to(first * (1 - share) + second * share, (height, width, 3)).copy()
    if kind >= 4:  # patterns above the horizon
        horizon = round(height * rng.uniform(0.3, 0.6))
        behind = draw_pattern(height, width, rng) if kind < 6 else _draw_things(draw_pattern(height, width, rng), rng)
        ground[:horizon] = (behind[:horizon] / np.float32(255)) ** 2.2
    return ground


def draw_pattern(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured noise of several scales, like leaves, crowds or cloth: uint8 (H, W, 3)."""
    total = np.zeros((height, width, 3), np.float32)
    steepness, muted = rng.uniform(0.4, 1.3), rng.choice([0.0, 0.15, 0.3, 0.9])
    for cells in (2, 4, 8, 16, 32):
        points = rng.integers(0, 256, (cells, max(1, round(cells * rng.uniform(0.5, 2))), 3)).astype(np.uint8)
        grey = points.mean(2, keepdims=True)
        points = (grey + muted * (points - grey)).astype(np.uint8)
        total += (resize_picture(points, height, width).astype(np.float32) - 128) * cells**-steepness
    tint = rng.uniform(40, 215) + muted * rng.uniform(-60, 60, 3)
    return np.clip(tint + total * rng.uniform(0.5, 1.6), 0, 255).astype(np.uint8)


def draw_shapes(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Random ellipses, boxes and polygons on a ground, some outlined: uint8 (H, W, 3)."""
    ground = 255 * draw_ground(height, width, rng) ** (1 / 2.2)
    return _draw_things(np.clip(ground, 0, 255).astype(np.uint8), rng)


def _draw_things(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    pen, side = ImageDraw.Draw(image), min(height, width)
    for _ in range(int(rng.integers(1, 9))):
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.25, 0.85) * height
        a, b = rng.uniform(0.03, 0.4, 2) * side
        fill = tuple(int(c) for c in rng.integers(0, 256, 3))
        edge = None if rng.random() < 0.5 else (20, 20, 20)
        kind = rng.integers(3)
        if kind == 0:
            pen.ellipse((x - a, y - b, x + a, y + b), fill=fill, outline=edge)
        elif kind == 1:
            pen.rounded_rectangle((x - a, y - b, x + a, y + b), 0.3 * min(a, b), fill=fill, outline=edge)
        else:
            pen.regular_polygon((x, y, a), int(rng.integers(3, 7)), rotation=int(rng.integers(90)), fill=fill)
    return np.array(image)


def add_people(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with one to five people in the foreground."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((2 * width, 2 * height))
    pen = ImageDraw.Draw(image)
    count = int(rng.integers(1, 6))
    tall = rng.uniform(0.45, 0.9) * 2 * height
    for place in rng.permutation(count):
        x = (place + rng.uniform(0.2, 0.8)) / count * 2 * width
        foot = rng.uniform(0.78, 1.0) * 2 * height
        _draw_person(pen, x, foot, tall * rng.uniform(0.9, 1.1), rng)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _draw_person(pen: ImageDraw.ImageDraw, x: float, foot: float, tall: float, rng: np.random.Generator) -> None:
    skin = SKINS[rng.integers(len(SKINS))]
    shirt, trousers = (tuple(int(c) for c in rng.integers(*span, 3)) for span in ((0, 256), (10, 120)))
    wide, top = 0.13 * tall, foot - tall
    for side in (-1, 1):
        pen.line((x + side * 0.35 * wide, top + 0.5 * tall, x + side * rng.uniform(0.2, 0.8) * wide, foot),
                 fill=trousers, width=max(1, int(0.6 * wide)))  # fmt: skip
        hand = (x + side * rng.uniform(0.8, 1.8) * wide, top + rng.uniform(0.3, 0.55) * tall)
        pen.line((x + side * 0.8 * wide, top + 0.2 * tall, *hand), fill=shirt, width=max(1, int(0.4 * wide)))
        pen.ellipse((hand[0] - 0.2 * wide, hand[1] - 0.2 * wide, hand[0] + 0.2 * wide, hand[1] + 0.2 * wide), fill=skin)
    pen.rounded_rectangle((x - wide, top + 0.15 * tall, x + wide, top + 0.55 * tall), 0.5 * wide, fill=shirt)
    head = 0.075 * tall
    pen.ellipse((x - 0.8 * head, top, x + 0.8 * head, top + 2 * head), fill=skin)
    pen.chord((x - 0.85 * head, top - 0.1 * head, x + 0.85 * head, top + 1.4 * head), 180, 360,
              fill=tuple(int(c) for c in rng.integers(10, 110, 3)))  # fmt: skip


def add_lettering(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with a headline, often on a bar, and small print: an advertisement or a screenshot."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((2 * width, 2 * height))
    pen = ImageDraw.Draw(image)
    ink = tuple(int(c) for c in (rng.integers(215, 256, 3) if rng.random() < 0.5 else rng.integers(0, 90, 3)))
    top, size = rng.uniform(0.0, 0.8) * 2 * height, rng.uniform(0.08, 0.2) * 2 * height
    if rng.random() < 0.6:
        bar = tuple(int(c) for c in rng.integers(0, 256, 3))
        left, right = (0, 2 * width) if rng.random() < 0.5 else (0.1 * width, rng.uniform(0.9, 1.9) * width)
        pen.rectangle((left, top - 0.4 * size, right, top + rng.uniform(1.4, 3.0) * size), fill=bar)
    _write(pen, rng.uniform(0.05, 0.4) * width, top, size, rng.uniform(0.9, 1.9) * width, ink, rng)
    for line in range(int(rng.integers(0, 5))):
        y = top + (1.5 + 0.7 * line) * size
        _write(pen, 0.2 * width, y, 0.4 * size, rng.uniform(0.5, 1.8) * width, ink, rng)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def add_caption(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with a line of small print near an edge."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((2 * width, 2 * height))
    ink = (255, 255, 255) if rng.random() < 0.5 else (30, 30, 30)
    left, size = rng.uniform(0.04, 1.2) * width, rng.uniform(0.03, 0.06) * 2 * height
    top = (0.03 if rng.random() < 0.5 else 0.9) * 2 * height
    _write(ImageDraw.Draw(image), left, top, size, min(left + rng.uniform(0.2, 0.7) * width, 1.9 * width), ink, rng)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def _write(
    pen: ImageDraw.ImageDraw, x: float, y: float, size: float, end: float, ink, rng: np.random.Generator
) -> None:
    """Strokes that look like letters, from x to `end`."""
    thick = max(1, int(size * 0.16))
    while x < end:
        if rng.random() < 0.15:
            x += 0.5 * size
            continue
        w = rng.uniform(0.3, 0.7) * size
        corners = [(x, y), (x + w, y), (x + w, y + size), (x, y + size), (x, y + size / 2), (x + w, y + size / 2)]
        for _ in range(int(rng.integers(2, 4))):
            first, second = rng.choice(6, 2, replace=False)
            pen.line((*corners[first], *corners[second]), fill=ink, width=thick)
        x += w + 0.25 * size
