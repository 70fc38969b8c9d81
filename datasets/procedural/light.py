"""Shading under a sky, a floor and a few lamps."""

from dataclasses import dataclass, fields

import numpy as np

from datasets.procedural.body import smoothstep


@dataclass(frozen=True)
class Light:
    """Colours are linear RGB (3,), about 1 = white in the picture. Directions are in the camera's frame turned
    upright: x to the right, y away from the viewer, z up. `lamp` is the strength of soft light overhead, 0 = none."""

    zenith: np.ndarray
    horizon: np.ndarray
    ground: np.ndarray
    sun_rgb: np.ndarray
    sun_to: np.ndarray
    skyline: float  # how dark the band of houses and trees on the horizon is, 0 = none
    skyline_height: float
    lamp: float


def light_frame(yaw_deg: float) -> np.ndarray:
    """Rows right, away, up of the upright camera frame, in the car frame: float32 (3, 3)."""
    yaw = np.radians(yaw_deg)
    return np.array([[-np.sin(yaw), np.cos(yaw), 0], [-np.cos(yaw), -np.sin(yaw), 0], [0, 0, 1]], np.float32)


def environment(light: Light, direction: np.ndarray) -> np.ndarray:
    """Environment map: linear RGB (n, 3) in directions (n, 3) of the upright camera frame."""
    up = direction[:, 2]
    height = np.clip(up, 0, 1)[:, None]
    sky = light.horizon + (light.zenith - light.horizon) * np.sqrt(height)
    waves = np.sin(7 * direction[:, 0] + 1.0) + np.sin(17 * direction[:, 0] + 5 * direction[:, 1])
    edge = light.skyline_height * (1 + 0.35 * waves)
    dark = light.skyline * (1 - smoothstep(up - edge, -0.05, 0.05))
    sky = sky * (1 - dark[:, None])
    if light.lamp:
        over = 1.0 / np.maximum(up, 0.05)
        across, away = direction[:, 0] * over, direction[:, 1] * over
        strips = np.maximum(
            1 - smoothstep(np.abs(away - 0.5), 0.25, 0.55), 1 - smoothstep(np.abs(away + 1.6), 0.5, 0.9)
        )
        strip = strips * (1 - smoothstep(np.abs(across), 2.2, 3.2))
        sky = sky + (light.lamp * strip * (up > 0.05))[:, None]
    floor = light.ground * (0.45 + 0.55 * np.clip(1 + 2.2 * up, 0, 1))[:, None]  # darker in the car's own shadow
    return floor + (sky - floor) * smoothstep(up, -0.035, 0.035)[:, None]


@dataclass
class Fragments:
    """Visible surface: flat pixel indices (n,), the rest (n,) or (n, 3); later fragments cover earlier ones.

    `views`: unit vectors from the eye to the surface. `albedo`: linear colour under a clear coat with head-on
    reflectance `mirror`. `glow`: emission. `open_sky`: in [0, 1], 1 = not occluded. `flake`: share of metallic colour.
    """

    pixels: np.ndarray
    views: np.ndarray
    normals: np.ndarray
    albedo: np.ndarray
    mirror: np.ndarray
    glow: np.ndarray
    open_sky: np.ndarray
    flake: np.ndarray


def join_fragments(layers: list[Fragments]) -> Fragments:
    names = (field.name for field in fields(Fragments))
    return Fragments(*(np.concatenate([getattr(layer, name) for layer in layers]) for name in names))


def shade(light: Light, frame: np.ndarray, seen: Fragments) -> np.ndarray:
    """Radiance (n, 3) of fragments; `frame` turns car directions into the light's (see `light_frame`)."""
    facing = np.einsum("ij,ij->i", seen.normals, seen.views)
    reflected = seen.views - (2 * facing)[:, None] * seen.normals
    around = environment(light, reflected @ frame.T)
    bend = np.minimum(np.maximum(1 + facing, 0), 1)
    bend2 = bend * bend
    fresnel = (seen.mirror * (1 + 8.0 * bend2 * bend2 * bend))[:, None]  # Schlick, scaled down at the edges
    toward_sun = light.sun_to @ frame
    sun = np.maximum(seen.normals @ toward_sun, 0)
    above, below = 0.72 * light.zenith + 0.45 * light.horizon + 0.30 * light.lamp, 0.62 * light.ground
    soft = below + (above - below) * (0.5 + 0.5 * seen.normals[:, 2:])
    glance = np.maximum(reflected @ toward_sun, 0)
    broad = glance * glance
    broad = broad * broad
    broad = broad * broad  # glance ** 8, by squaring for speed
    hidden, metal = seen.open_sky[:, None], seen.flake[:, None]
    matt = (1 - 0.5 * metal) * (soft + (1.25 * sun)[:, None] * light.sun_rgb)
    body = seen.albedo * hidden * (matt + metal * (0.85 * around + (1.4 * broad)[:, None] * light.sun_rgb))
    tight = broad * broad
    tight = tight * tight
    tight = tight * tight * tight * tight * broad * broad  # glance ** 144
    spark = (9 * tight)[:, None] * light.sun_rgb
    return body + fresnel * (around + spark) * (0.3 + 0.7 * hidden) + seen.glow


def tone_map(radiance: np.ndarray) -> np.ndarray:
    """Exponential tone curve: linear radiance → [0, 1), still linear light."""
    return 1 - np.exp(-1.3 * radiance)
