"""Light and reflection: what a surface point looks like under a sky, a floor and a few lamps."""

from dataclasses import dataclass

import numpy as np

from datasets.procedural.body import ramp


@dataclass(frozen=True)
class Light:
    """Colours are linear RGB (3,), about 1 = white in the picture. Directions are in the camera's frame turned upright:
    x to the right, y away from the viewer, z up; `lamp` is a strip of soft light overhead (its strength, 0 = none)."""

    zenith: np.ndarray
    horizon: np.ndarray
    ground: np.ndarray
    sun_rgb: np.ndarray
    sun_to: np.ndarray
    skyline: float  # how dark the band of houses and trees on the horizon is, 0 = none
    skyline_height: float
    lamp: float


def turn_light(light: Light, yaw_deg: float) -> np.ndarray:
    """Rows right, away, up of the upright camera frame, in the car frame: float32 (3, 3)."""
    yaw = np.radians(yaw_deg)
    return np.array([[-np.sin(yaw), np.cos(yaw), 0], [-np.cos(yaw), -np.sin(yaw), 0], [0, 0, 1]], np.float32)


def surroundings(light: Light, direction: np.ndarray) -> np.ndarray:
    """What a mirror sees in direction (n, 3) of the upright camera frame: linear RGB (n, 3)."""
    up = direction[:, 2]
    height = np.clip(up, 0, 1)[:, None]
    sky = light.horizon + (light.zenith - light.horizon) * np.sqrt(height)
    waves = np.sin(7 * direction[:, 0] + 1.0) + np.sin(17 * direction[:, 0] + 5 * direction[:, 1])
    edge = light.skyline_height * (1 + 0.35 * waves)
    dark = light.skyline * (1 - ramp(up - edge, -0.05, 0.05))
    sky = sky * (1 - dark[:, None])
    if light.lamp:
        over = 1.0 / np.maximum(up, 0.05)
        across, away = direction[:, 0] * over, direction[:, 1] * over
        strips = np.maximum(1 - ramp(np.abs(away - 0.5), 0.25, 0.55), 1 - ramp(np.abs(away + 1.6), 0.5, 0.9))
        strip = strips * (1 - ramp(np.abs(across), 2.2, 3.2))
        sky = sky + (light.lamp * strip * (up > 0.05))[:, None]
    floor = light.ground * (0.45 + 0.55 * np.clip(1 + 2.2 * up, 0, 1))[:, None]  # darker in the car's own shadow
    return floor + (sky - floor) * ramp(up, -0.035, 0.035)[:, None]


def shade(light: Light, frame: np.ndarray, normals: np.ndarray, views: np.ndarray, albedo: np.ndarray,
          mirror: np.ndarray, open_sky: np.ndarray, flake: float = 0.0) -> np.ndarray:
    """Radiance (n, 3) of surfaces with linear `albedo` (n, 3) under a clear coat that reflects `mirror` (n,) head-on.

    views: unit vectors from the eye to the surface; open_sky (n,) in [0, 1] darkens hidden corners;
    flake: how much of the colour itself shines like metal.
    """
    facing = np.einsum("ij,ij->i", normals, views)
    reflected = views - (2 * facing)[:, None] * normals
    turned = reflected @ frame.T
    seen = surroundings(light, turned)
    bend = np.clip(1 + facing, 0, 1)
    bend2 = bend * bend
    fresnel = (mirror + (1 - mirror) * 0.9 * bend2 * bend2 * bend)[:, None]
    toward_sun = light.sun_to @ frame
    sun = np.clip(normals @ toward_sun, 0, 1)
    half_up = 0.5 + 0.5 * normals[:, 2:]
    soft = light.ground * 0.62 + (0.72 * light.zenith + 0.45 * light.horizon + 0.30 * light.lamp - 0.62 * light.ground) * half_up
    glance = np.clip(reflected @ toward_sun, 0, 1)
    broad = glance**8
    hidden = open_sky[:, None]
    body = albedo * (soft + sun[:, None] * light.sun_rgb) * hidden
    if flake:
        body = body + albedo * (flake * (0.5 * seen + (0.9 * broad)[:, None] * light.sun_rgb)) * hidden
    spark = (glance**160 * 9)[:, None] * light.sun_rgb
    return body + fresnel * (seen + spark) * (0.3 + 0.7 * hidden)


def develop(radiance: np.ndarray) -> np.ndarray:
    """Film curve: linear radiance → [0, 1], still linear to the eye's doubling."""
    return 1 - np.exp(-1.3 * radiance)
