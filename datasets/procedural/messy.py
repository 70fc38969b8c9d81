"""A set with everything that cleaning must catch, and a table with the kind of each file.

File i depends on (set seed, i, size) alone. Kinds repeat in the order of `SCHEDULE`, where originals precede their
duplicates.
"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.procedural.backdrop import draw_scene
from datasets.procedural.factors import draw_factors
from datasets.procedural.messy_art import draw_animal, draw_interior, draw_logo, draw_poster
from datasets.procedural.render import composite, render, to_uint8
from harness.images.decode import decode_picture
from harness.runtime.progress import track

MESSY_TABLE = "messy.csv"
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}

SCHEDULE = (
    "good",
    "logo",
    "animal",
    "front_view",
    "exact_duplicate",
    "interior",
    "collage",
    "good",
    "rear_view",
    "near_duplicate_jpeg",
    "several_cars",
    "stretched",
    "truncated",
    "poster",
    "letterbox",
    "tall",
    "near_duplicate_resized",
    "dark",
    "not_a_picture",
    "good",
    "wide",
    "blank",
    "empty",
    "near_duplicate_cropped",
)
USABLE = ("good", "letterbox")  # all others must be dropped
DAMAGED = ("truncated", "not_a_picture", "empty")
_ORIGINAL_OF = {4: 0, 9: 7, 16: 7, 23: 19}  # places in the schedule
_ART = {"logo": draw_logo, "poster": draw_poster, "animal": draw_animal, "interior": draw_interior}


@dataclass(frozen=True)
class MessyFile:
    """`duplicate_of`: name of the original or "". `usable`: 1 if cleaning should keep it."""

    file: str
    kind: str
    duplicate_of: str
    usable: int
    data: bytes


def messy_kind(index: int) -> str:
    return SCHEDULE[index % len(SCHEDULE)]


def make_messy(seed: int, index: int, size_px: int = 160) -> MessyFile:
    """File `index` of the messy set; `size_px`: height of most pictures."""
    kind = messy_kind(index)
    rng = np.random.default_rng([seed, index, 77])
    suffix = ("jpg", "png", "webp", "jpg")[rng.integers(4)]
    original = None
    if "duplicate" in kind:
        place = index % len(SCHEDULE)
        original = make_messy(seed, index - place + _ORIGINAL_OF[place], size_px)
        data, suffix = _copied(kind, original, suffix, rng)
    elif kind in DAMAGED:
        data, suffix = _damaged(kind, size_px, rng), "jpg"
    else:
        data = _encoded(_picture(kind, size_px, rng), suffix, int(rng.integers(85, 96)))
    return MessyFile(f"{index:06d}.{suffix}", kind, original.file if original else "", int(kind in USABLE), data)


def render_messy(count: int, seed: int, out: Path, size_px: int = 160, label: str = "drawing") -> Path:
    """Writes the files and `messy.csv` (file, kind, duplicate_of, usable) into `out`; returns the table's path."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / MESSY_TABLE
    partial = table.with_suffix(".csv.partial")
    with open(partial, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "kind", "duplicate_of", "usable"])
        for index in track(range(count), count, label):
            made = make_messy(seed, index, size_px)
            (out / made.file).write_bytes(made.data)
            rows.writerow([made.file, made.kind, made.duplicate_of, made.usable])
    partial.replace(table)
    return table


def read_messy(table: Path) -> dict[str, tuple[str, str, int]]:
    """`messy.csv` → file name: (kind, duplicate_of, usable)."""
    with open(table, newline="") as file:
        return {row["file"]: (row["kind"], row["duplicate_of"], int(row["usable"])) for row in csv.DictReader(file)}


def _encoded(pixels: np.ndarray, suffix: str, quality: int) -> bytes:
    stream = io.BytesIO()
    options = {"png": {"compress_level": 1}, "webp": {"quality": quality, "method": 0}, "jpg": {"quality": quality}}
    Image.fromarray(pixels).save(stream, FORMATS[suffix], **options[suffix])
    return stream.getvalue()


def _copied(kind: str, original: MessyFile, suffix: str, rng: np.random.Generator) -> tuple[bytes, str]:
    if kind == "exact_duplicate":
        return original.data, original.file.rpartition(".")[2]
    picture = decode_picture(original.data)
    if kind == "near_duplicate_jpeg":
        return _encoded(picture, "jpg", int(rng.integers(45, 75))), "jpg"
    image, (height, width) = Image.fromarray(picture), picture.shape[:2]
    if kind == "near_duplicate_cropped":
        edge = int(0.02 * width)
        image = image.crop((edge, edge, width - edge, height - edge))
    scale = rng.uniform(0.6, 0.85)
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    return _encoded(np.asarray(image), suffix, 88), suffix


def _damaged(kind: str, size_px: int, rng: np.random.Generator) -> bytes:
    if kind == "empty":
        return b""
    if kind == "not_a_picture":
        return b"<html><head><title>404</title></head><body>The picture has moved.</body></html>\n"
    whole = _encoded(_car(size_px, rng), "jpg", 90)
    return whole[: int(len(whole) * rng.uniform(0.02, 0.6))]


def _car(size_px: int, rng: np.random.Generator, aspect: float = 0.0, **changed: float) -> np.ndarray:
    """A render at a common aspect ratio, or at width / height = `aspect`."""
    aspect = aspect or (1.0, 4 / 3, 3 / 2)[rng.integers(3)]
    factors = replace(draw_factors("ordinary", rng), **changed)
    return render(factors, size_px, round(size_px * aspect), int(rng.integers(2**31)))


def _picture(kind: str, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) of a kind that is neither a duplicate nor damaged."""
    wide = round(size_px * rng.uniform(1.0, 1.5))
    if kind in _ART:
        return _ART[kind](size_px, wide, rng)
    if kind == "front_view":
        return _car(size_px, rng, yaw_deg=rng.uniform(-10, 12), framing=rng.uniform(0.6, 0.8))
    if kind == "rear_view":
        return _car(size_px, rng, yaw_deg=rng.uniform(160, 200), framing=rng.uniform(0.6, 0.8))
    if kind == "several_cars":
        return _several(size_px, round(size_px * 1.4), rng)
    if kind == "collage":
        return _collage(size_px, rng)
    if kind == "letterbox":
        picture = _car(size_px, rng)
        bar = np.zeros((round(size_px * rng.uniform(0.12, 0.22)), picture.shape[1], 3), np.uint8)
        return np.concatenate([bar, picture, bar])
    if kind == "stretched":
        image = Image.fromarray(_car(size_px, rng, 1.0))
        return np.asarray(image.resize((round(size_px * 0.55), round(size_px * rng.uniform(1.0, 1.3)))))
    if kind in ("tall", "wide"):
        return _car(size_px, rng, 0.42 if kind == "tall" else 3.4)
    if kind == "dark":
        return (_car(size_px, rng) * rng.uniform(0.02, 0.06)).astype(np.uint8)
    if kind == "blank":
        return np.full((size_px, wide, 3), rng.integers(0, 256, 3), np.uint8)
    assert kind == "good", kind
    return _car(size_px, rng)


def _several(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Two or three cars of similar size in one scene, the farther ones first."""
    seed = int(rng.integers(2**31))
    scene = draw_scene(height, width, seed)
    picture, count = scene.picture, int(rng.integers(2, 4))
    yaw, order = rng.uniform(40, 75), rng.permutation(count)
    for number, place in enumerate(order):
        factors = replace(draw_factors("ordinary", rng), yaw_deg=yaw, pitch_deg=9.0, framing=0.40 + 0.06 * number)
        picture, _ = composite(factors, scene, picture, ((place + 0.5) / count, 0.48 + 0.13 * number))
    return to_uint8(picture, seed)


def _collage(size_px: int, rng: np.random.Generator) -> np.ndarray:
    """Four to six pictures with white gaps."""
    rows, columns, gap = 2, int(rng.integers(2, 4)), max(2, size_px // 40)
    cell = size_px // 2
    whole = np.full((rows * (cell + gap) + gap, columns * (cell + gap) + gap, 3), 255, np.uint8)
    for number in range(rows * columns):
        top, left = (gap + k * (cell + gap) for k in divmod(number, columns))
        tile = draw_interior(cell, cell, rng) if rng.random() < 0.2 else _car(cell, rng, 1.0)
        whole[top : top + cell, left : left + cell] = tile
    return whole
