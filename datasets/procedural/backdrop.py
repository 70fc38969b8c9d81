"""Backdrops with their light and floor, drawn from a seed alone."""

from dataclasses import dataclass

import numpy as np

from datasets.procedural.body import smoothstep
from datasets.procedural.light import Light


@dataclass(frozen=True)
class Scene:
    """`picture`: linear RGB float32 (H, W, 3) in [0, 1]. `gloss`: reflectance of the floor, `shadow`: darkness below
    the car, both in [0, 1]."""

    picture: np.ndarray
    light: Light
    gloss: float
    shadow: float


def _rgb(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _tint(rng: np.random.Generator, level: float, strength: float) -> np.ndarray:
    """A slightly coloured grey of this linear level."""
    colour = 1 + strength * rng.uniform(-1, 1, 3)
    return (level * colour / colour.mean()).astype(np.float32)


def _rows(height: int, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Per row: 0 to 1 from top to horizon, and 0 to 1 from horizon to bottom."""
    v = (np.arange(height, dtype=np.float32) + 0.5) / height
    return np.clip(v / horizon, 0, 1), np.clip((v - horizon) / (1 - horizon), 0, 1)


def _profile(rng: np.random.Generator, width: int, bumps: int, rough: float = 1.0) -> np.ndarray:
    """A smooth random curve over the columns, float32 (W,) roughly in [0, 1]; the same at every width."""
    u = (np.arange(width, dtype=np.float32) + 0.5) / width
    line = np.zeros(width, np.float32)
    for octave in range(1, 5):
        wave, phase = rng.uniform(0.6, 1.6) * bumps * octave, rng.uniform(0, 6.28)
        line += (rough ** (octave - 1) / octave) * np.sin(wave * u * 3.0 + phase, dtype=np.float32)
    return 0.5 + 0.28 * line


def _sun(rng: np.random.Generator, strength: float, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    azimuth, height = rng.choice([-1, 1]) * rng.uniform(0.2, 1.3), rng.uniform(0.6, 1.1)
    to = np.array([np.sin(azimuth) * np.cos(height), -np.cos(azimuth) * np.cos(height), np.sin(height)])
    return to.astype(np.float32), strength * colour


def _grain(rng: np.random.Generator, ground: np.ndarray, below: np.ndarray, strength: float) -> None:
    """Noise on the rows below the horizon, stronger towards the viewer."""
    speckle = rng.standard_normal(ground.shape[:2], dtype=np.float32)
    ground *= 1 + (strength * (0.3 + 0.7 * below))[:, None, None] * speckle[..., None]


def _studio(rng, height, width):
    horizon, level = rng.uniform(0.40, 0.52), rng.choice([0.80, 0.60, 0.30, 0.10])
    above, below = _rows(height, horizon)
    wall = _tint(rng, level * rng.uniform(0.6, 0.95), 0.10 + 0.15 * (level < 0.5))
    floor = wall * rng.uniform(0.9, 1.25)
    sweep = smoothstep(above - 1 + below, -0.25, 0.22)[:, None, None]
    u = (np.arange(width, dtype=np.float32) + 0.5) / width
    v = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    glow = np.exp(-(((u - rng.uniform(0.35, 0.65)) / 0.55) ** 2 + ((v - horizon) / 0.45) ** 2))[..., None]
    picture = (wall * (1 - sweep) + floor * sweep) * (0.62 + 0.48 * glow)
    to, sun = _sun(rng, 0.25, _rgb(1, 1, 1))
    light = Light(
        _tint(rng, 0.35, 0.03), 0.5 * wall + 0.12, floor * 0.55 + 0.02, sun, to, 0.0, 0.0, rng.uniform(0.9, 1.5)
    )
    return Scene(picture, light, rng.uniform(0.05, 0.30), 0.75)


def _outdoors(rng, height, width):
    """A road: sky, hills or trees, asphalt or concrete, sometimes a kerb."""
    horizon = rng.uniform(0.34, 0.50)
    above, below = _rows(height, horizon)
    warm = rng.random()
    zenith = (1 - warm) * _rgb(0.16, 0.33, 0.68) + warm * _rgb(0.34, 0.44, 0.62)
    low = (1 - warm) * _rgb(0.60, 0.74, 0.88) + warm * _rgb(0.95, 0.76, 0.56)
    if rng.random() < 0.35:  # overcast
        zenith, low = _tint(rng, 0.55, 0.04), _tint(rng, 0.80, 0.04)
    sky = zenith + (low - zenith) * (above**1.3)[:, None]
    picture = np.repeat(sky[:, None], width, 1)
    v = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    far = _tint(rng, 0.16, 0.25) * 0.7 + low * 0.25
    near = rng.choice(np.array([[0.05, 0.09, 0.03], [0.10, 0.09, 0.06], [0.08, 0.10, 0.11]])).astype(np.float32)
    for colour, tall, soft, bumps in (
        (far, rng.uniform(0.04, 0.14), 0.012, 3),
        (near, rng.uniform(0.02, 0.10), 0.02, 9),
    ):
        line = horizon - tall * (0.35 + _profile(rng, width, bumps, 0.8))
        cover = smoothstep(v - line, -soft, soft)[..., None]
        lit = 0.75 + 0.5 * _profile(rng, width, bumps * 3)[None, :, None]
        picture += cover * (colour * lit - picture)
    asphalt = _tint(rng, rng.uniform(0.14, 0.34), 0.06)
    floor = np.repeat((asphalt * (0.85 + 0.3 * below[:, None]))[:, None], width, 1)
    _grain(rng, floor, below, 0.06)
    cover = smoothstep(v - horizon, -0.006, 0.006)[..., None]
    picture += cover * (floor - picture)
    verge = rng.uniform(0.02, 0.09)
    if rng.random() < 0.6:
        strip = (smoothstep(v - horizon, -0.01, 0.01) * (1 - smoothstep(v - horizon - verge, -0.01, 0.01)))[..., None]
        picture += strip * (near * 1.9 - picture)
        kerb = np.exp(-(((v - horizon - verge - 0.012) / 0.007) ** 2))[..., None]
        picture += 0.7 * kerb * (1.8 * asphalt - picture)
    to, sun = _sun(rng, rng.uniform(0.5, 1.3), _rgb(1.0, 0.95 - 0.1 * warm, 0.88 - 0.25 * warm))
    return Scene(picture, Light(zenith, low, asphalt * 0.8, sun, to, 0.75, rng.uniform(0.03, 0.10), 0.0), 0.0, 0.85)


def _wall(rng, height, width):
    """A wall of bricks, panels or plaster close behind the car."""
    horizon = rng.uniform(0.50, 0.60)
    above, below = _rows(height, horizon)
    paint = _tint(rng, rng.uniform(0.15, 0.62), 0.20)
    u, v = (np.arange(width) + 0.5) / height, ((np.arange(height) + 0.5) / height)[:, None]
    picture = np.broadcast_to(paint * (0.8 + 0.25 * above[:, None, None]), (height, width, 3)).copy()
    course = rng.choice([0.045, 0.12, 0.30])
    brick = course * rng.choice([2.4, 1.0, 4.0])
    row = np.floor(v / course)
    column = np.floor(u / brick + 0.5 * (row % 2) * (course < 0.1))
    tone = np.sin(12.9898 * row + 78.233 * column + rng.uniform(0, 9)) * 43758.5453
    picture *= (1 + rng.uniform(0.02, 0.10) * (2 * (tone - np.floor(tone)) - 1))[..., None].astype(np.float32)
    joints = np.maximum(
        1 - smoothstep(np.abs(v / course - np.round(v / course)) * course, 0.001, 0.007),
        1
        - smoothstep(
            np.abs(
                u / brick + 0.5 * (row % 2) * (course < 0.1) - np.round(u / brick + 0.5 * (row % 2) * (course < 0.1))
            )
            * brick,
            0.001,
            0.007,
        ),
    )
    picture *= (1 - 0.16 * joints)[..., None].astype(np.float32)
    shade = 0.75 + 0.5 * _profile(rng, width, 2)
    picture *= shade[None, :, None]
    ground = _tint(rng, rng.uniform(0.16, 0.36), 0.08)
    floor = np.repeat((ground * (0.8 + 0.3 * below[:, None]))[:, None], width, 1)
    _grain(rng, floor, below, 0.05)
    picture += smoothstep(v - horizon, -0.006, 0.006)[..., None].astype(np.float32) * (floor - picture)
    picture *= (1 - 0.45 * np.exp(-(((v - horizon) / 0.02) ** 2)))[..., None].astype(np.float32)
    to, sun = _sun(rng, rng.uniform(0.3, 1.0), _rgb(1, 0.96, 0.9))
    light = Light(
        _rgb(0.35, 0.45, 0.62), _rgb(0.70, 0.76, 0.82), ground * 0.8, sun, to, 0.6, rng.uniform(0.08, 0.2), 0.0
    )
    return Scene(picture, light, 0.0, 0.85)


def _hall(rng, height, width):
    """A show hall: polished floor, dim wall, blurred lamps."""
    horizon = rng.uniform(0.40, 0.50)
    above, below = _rows(height, horizon)
    dim = _tint(rng, rng.uniform(0.05, 0.22), 0.25)
    picture = np.repeat((dim * (0.6 + 0.9 * above[:, None]))[:, None], width, 1)
    u, v = (np.arange(width) + 0.5) / width, ((np.arange(height) + 0.5) / height)[:, None]
    floor_tone = _tint(rng, rng.uniform(0.08, 0.45), 0.08)
    floor = floor_tone * (1.15 - 0.35 * below[:, None, None]) + 0.12 * dim
    for _ in range(rng.integers(3, 7)):
        x, y, wide, tall = (
            rng.uniform(0, 1),
            rng.uniform(0.03, 0.8) * horizon,
            rng.uniform(0.03, 0.16),
            rng.uniform(0.008, 0.03),
        )
        colour = _tint(rng, rng.uniform(0.35, 0.9), 0.25)
        spot = np.exp(-(((u - x) / wide) ** 4 + ((v - y) / tall) ** 2))[..., None].astype(np.float32)
        picture = picture + spot * colour
        image = np.exp(-(((u - x) / (wide * 1.3)) ** 2 + ((v - 2 * horizon + y) / (3 * tall + 0.02)) ** 2))[..., None]
        floor = floor + 0.22 * image.astype(np.float32) * colour
    cover = smoothstep(v - horizon, -0.01, 0.01)[..., None].astype(np.float32)
    picture = picture + cover * (floor - picture)
    to, sun = _sun(rng, 0.35, _rgb(1, 1, 1))
    light = Light(dim * 1.4 + 0.08, dim * 1.6 + 0.12, floor_tone * 0.5, sun, to, 0.0, 0.0, rng.uniform(1.2, 2.0))
    return Scene(np.minimum(picture, 1).astype(np.float32), light, rng.uniform(0.15, 0.40), 0.7)


def _park(rng, height, width):
    """Out-of-focus greenery behind gravel or grass."""
    horizon = rng.uniform(0.42, 0.54)
    _, below = _rows(height, horizon)
    u, v = (np.arange(width) + 0.5) / height, ((np.arange(height) + 0.5) / height)[:, None]
    leaf = _rgb(0.10, 0.17, 0.05) * rng.uniform(0.7, 1.3) + _rgb(0.10, 0.02, 0.0) * rng.random()
    crowns = _profile(rng, width, 7)[None] * (0.6 + 0.8 * _profile(rng, height, 5))[:, None]
    fade = (0.80 - 0.55 * v / horizon + 0.8 * crowns)[..., None]  # lighter towards the tree tops
    picture = np.broadcast_to(leaf * fade, (height, width, 3)).astype(np.float32).copy()
    for number in range(30):
        size = rng.uniform(0.03, 0.13) * (1.0 if number < 18 else 0.5)
        x, y = rng.uniform(0, 1.8), rng.uniform(0, horizon)
        sky = max(0.0, rng.uniform(-1.0, 0.45) * (1 - y / horizon))
        colour = leaf * rng.uniform(0.25, 2.4) + sky * _rgb(0.8, 0.9, 0.9)
        reach = 1.2 * size * height
        box = (
            slice(max(0, int(y * height - reach)), int(y * height + reach) + 2),
            slice(max(0, int(x * height - reach)), int(x * height + reach) + 2),
        )
        spot = 1 - smoothstep(np.hypot(u[box[1]] - x, v[box[0]] - y), 0.7 * size, 1.2 * size)
        picture[box] += (0.6 * spot[..., None]).astype(np.float32) * (colour - picture[box])
    ground = rng.choice(np.array([[0.16, 0.22, 0.07], [0.34, 0.30, 0.24], [0.24, 0.23, 0.22]])).astype(np.float32)
    floor = np.repeat((ground * (0.75 + 0.35 * below[:, None]))[:, None], width, 1)
    _grain(rng, floor, below, 0.10)
    picture += smoothstep(v - horizon, -0.02, 0.02)[..., None].astype(np.float32) * (floor - picture)
    to, sun = _sun(rng, rng.uniform(0.5, 1.1), _rgb(1, 0.95, 0.82))
    light = Light(
        _rgb(0.30, 0.45, 0.70), _rgb(0.60, 0.70, 0.72), ground * 0.7, sun, to, 0.85, rng.uniform(0.15, 0.35), 0.0
    )
    return Scene(picture, light, 0.0, 0.85)


_SCENES = (_studio, _studio, _outdoors, _outdoors, _wall, _hall, _park)


def draw_scene(height: int, width: int, seed: int) -> Scene:
    """A random scene; depends on the seed and the size alone."""
    rng = np.random.default_rng([seed, 1])
    return _SCENES[rng.integers(len(_SCENES))](rng, height, width)
