"""Training and test pictures of the view classifier: cars from every side, and pictures that cleaning must drop.

Picture i depends on (seed, i, size) alone, not on the number of workers.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from datasets.clean.kinds import KINDS, MIRRORED
from datasets.clean.manual_labels import VIEWS
from datasets.procedural.backdrop import draw_scene
from datasets.procedural.factors import Factors, draw_factors
from datasets.procedural.messy import DAMAGED, make_messy, messy_kind
from datasets.procedural.messy_art import draw_animal, draw_interior, draw_logo, draw_poster
from datasets.procedural.render import composite, to_uint8
from datasets.procedural.sets import map_jobs
from datasets.scan.scan import make_classifier_input
from datasets.train_shipped.view_data_art import (
    add_caption,
    add_lettering,
    add_people,
    draw_ground,
    draw_pattern,
    draw_shapes,
)
from harness.images.decode import decode, decode_picture, resize_picture
from harness.images.letterbox import remove_letterbox

WITH_VIEW = ("ok", "people", "aspect")  # kinds labelled with a view
SHARES = {"ok": 0.53, "blank": 0.02, "dark": 0.03, "logo": 0.04, "graphic": 0.04, "not_a_car": 0.08, "interior": 0.03,
          "several_cars": 0.09, "collage": 0.03, "people": 0.04, "part": 0.04, "aspect": 0.03}  # fmt: skip
END_VIEWS = 0.08  # weight of cars seen from the front or rear among negatives, beside SHARES
# Degrees of yaw: 0 = seen from the front, 90 = from its left side, with the nose on the left. No car is drawn between
# two ranges.
YAWS = {"front": (-14, 14), "front_left": (20, 76), "left": (83, 97), "rear_right": (104, 155), "rear": (161, 199)}
STEEP_DEG = (48.0, 85.0)  # pitch of the view "other"
HEIGHTS_PX = (72, 160)
CAPTIONED = 0.12  # of usable pictures: a dealer's name or a date in small print is allowed
MESSY_ASPECTS = (0.7, 2.6)  # allowed by configs/base.yaml; this rule comes before the classifier


@dataclass(frozen=True)
class DrawnViews:
    """`inputs` uint8 (N, S, S, 3); `kinds` and `views` int64 (N,), indices into KINDS and VIEWS, view -1 = none."""

    inputs: np.ndarray
    kinds: np.ndarray
    views: np.ndarray


def draw_training_set(count: int, seed: int, input_px: int, workers: int = 1, first: int = 0) -> DrawnViews:
    """Pictures from number `first`: kinds in their `SHARES`, views uniform."""
    return _draw_all(_draw, [(seed, first + index, input_px, None) for index in range(count)], workers)


def draw_views(view: str, count: int, seed: int, input_px: int, workers: int = 1) -> DrawnViews:
    """Usable cars in this view."""
    return _draw_all(_draw, [(seed, index, input_px, view) for index in range(count)], workers)


def draw_negatives(count: int, seed: int, input_px: int, workers: int = 1) -> np.ndarray:
    """Pictures without a usable car, uint8 (N, S, S, 3): kinds other than "ok", and cars from the front or rear."""
    return _draw_all(_draw_negative, [(seed, index, input_px) for index in range(count)], workers).inputs


def draw_messy_inputs(count: int, seed: int, input_px: int) -> tuple[np.ndarray, list[str]]:
    """Classifier inputs from the first `count` files of the procedural messy set, and their kinds.

    Duplicates, damaged files and aspects outside MESSY_ASPECTS are left out: they never reach the classifier."""
    inputs, kinds = [], []
    for index in range(count):
        kind = messy_kind(index)
        if kind in DAMAGED or "duplicate" in kind:
            continue
        image = decode(make_messy(seed, index).data).image
        if MESSY_ASPECTS[0] <= image.width / image.height <= MESSY_ASPECTS[1]:
            inputs.append(make_classifier_input(image, input_px))
            kinds.append(kind)
    return np.stack(inputs), kinds


def _draw_all(function: Callable[[tuple], tuple], jobs: list[tuple], workers: int) -> DrawnViews:
    inputs, kinds, views = zip(*map_jobs(function, jobs, workers), strict=True)
    return DrawnViews(np.stack(inputs), np.array(kinds), np.array(views))


def _draw(job: tuple[int, int, int, str | None]) -> tuple[np.ndarray, int, int]:
    """A usable car in this view; None = any kind in any view."""
    seed, index, input_px, view = job
    rng = np.random.default_rng([seed, index, 50] if view is None else [seed, index, 51, VIEWS.index(view)])
    kind = KINDS[rng.choice(len(KINDS), p=list(SHARES.values()))] if view is None else "ok"
    return _make_example(kind, view or VIEWS[rng.integers(len(VIEWS))], input_px, rng)


def _draw_negative(job: tuple[int, int, int]) -> tuple[np.ndarray, int, int]:
    seed, index, input_px = job
    rng = np.random.default_rng([seed, index, 52])
    shares = np.array(list((SHARES | {"ok": END_VIEWS}).values()))
    kind = KINDS[rng.choice(len(KINDS), p=shares / shares.sum())]
    view = ("front", "rear")[rng.integers(2)] if kind == "ok" else VIEWS[rng.integers(len(VIEWS))]
    return _make_example(kind, view, input_px, rng)


def _make_example(kind: str, view: str, input_px: int, rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """A picture of this kind. Views not in YAWS are drawn as their mirror image."""
    drawn = view if view in YAWS or view == "other" else MIRRORED[view]
    picture = add_web_artifacts(_picture(kind, drawn, rng), rng)
    if drawn != view or (MIRRORED[view] == view and rng.random() < 0.5):
        picture = picture[:, ::-1]
    square = make_classifier_input(remove_letterbox(Image.fromarray(picture)), input_px)
    return square, KINDS.index(kind), VIEWS.index(view) if kind in WITH_VIEW else -1


# ---- cars -------------------------------------------------------------------------------------------------------


def draw_car(view: str, rng: np.random.Generator) -> Factors:
    """A random car in this view (one of YAWS, or other), mostly from a person's height."""
    futurism = (0.0, 0.5) if rng.random() < 0.75 else (0.0, 1.0)
    factors = draw_factors("ordinary", rng, futurism)
    pitch = rng.uniform(1, 12) if rng.random() < 0.75 else rng.uniform(12, 26)
    if view == "other":
        yaw, pitch = rng.uniform(-180, 180), rng.uniform(*STEEP_DEG)
    else:
        yaw = rng.uniform(*YAWS[view])
    framing, distance = rng.uniform(0.55, 0.98), rng.uniform(5.5, 16)
    return replace(factors, yaw_deg=yaw, pitch_deg=pitch, framing=framing, distance=distance)


def render_photo(factors: Factors, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The car in a scene or on a plain ground, off centre: uint8 (H, W, 3)."""
    seed = int(rng.integers(2**31))
    scene = draw_scene(height, width, seed)
    ground = scene.picture if rng.random() < 0.5 else draw_ground(height, width, rng)
    centre = (0.5 + rng.uniform(-0.04, 0.04), rng.uniform(0.46, 0.62))
    return to_uint8(composite(factors, scene, ground, centre)[0], seed)


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    height = int(rng.integers(*HEIGHTS_PX))
    return height, round(height * rng.choice([1.0, 4 / 3, 3 / 2, 16 / 9, 2.0]))


def _picture(kind: str, view: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3)."""
    height, width = _shape(rng)
    if kind in ("logo", "interior"):
        return {"logo": draw_logo, "interior": draw_interior}[kind](height, width, rng)
    if kind == "several_cars":
        return _several(height, round(height * rng.uniform(1.2, 2.0)), rng)
    if kind == "collage":
        return _collage(height, rng)
    if kind == "not_a_car":
        return _no_car(height, width, rng)
    if kind == "blank":
        return _blank(height, width, rng)
    if kind == "graphic" and rng.random() < 0.3:
        return draw_poster(height, width, rng)
    if kind == "part":
        return _part(height, width, rng)
    if kind == "aspect":
        return _squeezed(view, rng)
    picture = render_photo(draw_car(view, rng), height, width, rng)
    if kind == "ok":
        return add_caption(picture, rng) if rng.random() < CAPTIONED else picture
    return {"people": add_people, "graphic": add_lettering, "dark": _darkened}[kind](picture, rng)


def _blank(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One colour, or a gradient."""
    top, bottom = rng.integers(0, 256, (2, 1, 3)).astype(np.float32)
    share = np.linspace(0, rng.uniform(0, 1) if rng.random() < 0.4 else 0, height, dtype=np.float32)
    return np.repeat((top + (bottom - top) * share[:, None])[:, None], width, 1).round().astype(np.uint8)


def _no_car(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(5)
    if kind < 2:
        return draw_animal(height, width, rng)
    if kind == 2:
        seed = int(rng.integers(2**31))
        return to_uint8(draw_scene(height, width, seed).picture, seed)
    picture = (draw_pattern if kind == 3 else draw_shapes)(height, width, rng)
    return add_people(picture, rng) if rng.random() < 0.3 else picture


def _any_view(rng: np.random.Generator) -> str:
    return list(YAWS)[rng.integers(len(YAWS))]


def _any_photo(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return render_photo(draw_car(_any_view(rng), rng), height, width, rng)


def _part(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A close crop: less than half of the car is visible."""
    zoom = rng.uniform(2.2, 4.0)
    factors = replace(draw_car(_any_view(rng), rng), framing=0.95)
    picture = render_photo(factors, round(height * zoom / 1.6), round(width * zoom / 1.6), rng)
    tall, wide = round(height / 1.6), round(width / 1.6)
    top = round((picture.shape[0] - tall) * rng.uniform(0.35, 0.7))
    left = round((picture.shape[1] - wide) * rng.uniform(0.1, 0.9))
    return picture[top : top + tall, left : left + wide]


def _squeezed(view: str, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(*HEIGHTS_PX))
    picture = render_photo(draw_car(view, rng), side, side, rng)
    narrow = round(side * rng.uniform(0.4, 0.58))
    if rng.random() < 0.8:
        return resize_picture(picture, round(side * rng.uniform(0.95, 1.3)), narrow)
    return resize_picture(picture, narrow, round(side * rng.uniform(1.1, 1.4)))


def _darkened(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nearly invisible, or only highlights left."""
    if rng.random() < 0.5:
        return (picture * rng.uniform(0.02, 0.09)).astype(np.uint8)
    return (255 * (picture / 255.0) ** rng.uniform(4, 7) * rng.uniform(0.3, 0.9)).astype(np.uint8)


def _several(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Two to five cars of similar size, side by side or overlapping."""
    seed, count = int(rng.integers(2**31)), (2, 2, 2, 3, 3, 3, 4, 5)[rng.integers(8)]
    scene = draw_scene(height, width, seed)
    picture = scene.picture if rng.random() < 0.5 else draw_ground(height, width, rng)
    view, same, order = _any_view(rng), rng.random() < 0.6, rng.permutation(count)
    for number, place in enumerate(order):
        share = min(0.5, rng.uniform(1.0, 1.7) / count)
        factors = replace(draw_car(view if same else _any_view(rng), rng), framing=share, pitch_deg=8.0, distance=10.0)
        down = 0.46 + 0.16 * number / count + rng.uniform(-0.03, 0.03)
        picture, _ = composite(factors, scene, picture, ((place + 0.5) / count, down))
    return to_uint8(picture, seed)


def _collage(height: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures in rows and columns, with or without gaps."""
    rows, columns = ((1, 2), (2, 1), (2, 2), (2, 3), (3, 3))[rng.integers(5)]
    gap, cell = int(rng.integers(0, 7)), max(40, round(height / rows))
    wide = round(cell * rng.choice([1.0, 1.5]))
    shade = (255, 255, 0, int(rng.integers(256)))[rng.integers(4)]
    whole = np.full((rows * (cell + gap) + gap, columns * (wide + gap) + gap, 3), shade, np.uint8)
    for number in range(rows * columns):
        top, left = gap + number // columns * (cell + gap), gap + number % columns * (wide + gap)
        interior = rng.random() < 0.15
        draw = draw_interior if interior else _any_photo
        whole[top : top + cell, left : left + wide] = draw(cell, wide, rng)
    return whole


def add_web_artifacts(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random crop, resize, colours and JPEG compression, as pictures from the web have them."""
    height, width = picture.shape[:2]
    if rng.random() < 0.5:
        edge = rng.uniform(0, 0.05, 4)
        top, bottom = round(edge[0] * height), height - round(edge[1] * height)
        picture = picture[top:bottom, round(edge[2] * width) : width - round(edge[3] * width)]
    if rng.random() < 0.7:
        stretch = rng.uniform(0.85, 1.15)
        scale = rng.uniform(0.5, 1.0)
        size = max(24, round(picture.shape[0] * scale)), max(24, round(picture.shape[1] * scale * stretch))
        picture = resize_picture(picture, *size)
    if rng.random() < 0.6:
        levels = (picture / 255.0) ** rng.uniform(0.7, 1.4) * rng.uniform(0.85, 1.1, 3)
        if rng.random() < 0.15:
            levels = np.repeat(levels.mean(2, keepdims=True), 3, 2)
        picture = (255 * levels.clip(0, 1)).astype(np.uint8)
    if rng.random() < 0.5:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=int(rng.integers(40, 95)))
        picture = decode_picture(stream.getvalue())
    return picture
