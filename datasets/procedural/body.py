"""Factors to a triangle mesh: cross-sections (cubic B-splines) lofted along the car.

Car frame in metres: x forward, y to the car's left, z up from the ground; s is the distance behind the nose.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from datasets.procedural.brands import BrandStyle
from datasets.procedural.factors import Factors

# Section parameter v runs from the underside's middle (0) to the roof's middle (12); these are its landmarks.
V_BELT, V_ROOF_EDGE = 7.0, 9.6


@dataclass(frozen=True)
class Shape:
    """Dimensions derived from factors, in metres. Profiles are float (n,) over `profile_s`."""

    length: float
    half_width: float
    nose_top: float  # height of the bonnet's leading edge
    cowl: float  # height of the windscreen's base
    deck: float  # height of the rear window's base
    screen: tuple[float, float]  # s of the windscreen's base and of its upper edge
    rear: tuple[float, float]  # s of the rear window's upper edge and of its base
    wheel_s: tuple[float, float]
    wheel_radius: float
    arch_radius: float
    profile_s: np.ndarray
    top: np.ndarray
    belt: np.ndarray
    brand: BrandStyle | None = None  # None for cars without a brand


@dataclass(frozen=True)
class Mesh:
    """float32 vertices: `points` (n, 3), `normals` (n, 3), `params` (n, 2) = (s, v); int triangles (m, 3)."""

    points: np.ndarray
    normals: np.ndarray
    params: np.ndarray
    triangles: np.ndarray


def smoothstep(x, low, high):
    """0 below `low`, 1 above `high`, cubic between."""
    t = np.minimum(np.maximum((x - low) * (1.0 / (high - low)), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors: (n, 3) → (n, 3)."""
    return vectors / np.sqrt(np.einsum("ij,ij->i", vectors, vectors) + np.float32(1e-12))[:, None]


def factors_to_shape(f: Factors, brand: BrandStyle | None = None) -> Shape:
    length = f.bonnet + f.cabin + f.boot
    belt_middle = f.roof_height - f.glass * (f.roof_height - f.clearance)
    wedge = 0.05 + 0.09 * f.futurism
    cowl, deck = belt_middle + 0.02 - 0.5 * wedge, belt_middle + 0.02 + 0.5 * wedge
    nose_top = cowl - (0.17 + 0.07 * f.futurism) * min(1.0, 0.35 + 0.6 * f.bonnet)
    screen_run = (f.roof_height - cowl) / np.tan(np.radians(f.windscreen_deg))
    rear_run = (f.roof_height - deck) / np.tan(np.radians(f.tail_deg))
    shrink = min(1.0, 0.84 * f.cabin / (screen_run + rear_run))
    screen = (f.bonnet, f.bonnet + shrink * screen_run)
    rear = (length - f.boot - shrink * rear_run, length - f.boot)
    overhang = length - f.wheelbase
    front = overhang * (0.49 + 0.05 * f.futurism)
    wheel_s = (front, front + f.wheelbase)
    s = np.linspace(-0.6, length + 0.6, 181)
    place, rise = (0.35 - 0.1 * f.futurism, 0.0) if brand is None else brand.peak
    peak = screen[1] + place * (rear[0] - screen[1])
    top = np.interp(
        s,
        [0, f.bonnet, screen[1], peak, rear[0], rear[1], length],
        [
            nose_top,
            cowl,
            f.roof_height - 0.03,
            f.roof_height + 0.01 + rise,
            f.roof_height - 0.05,
            deck,
            deck - 0.03 - 0.10 * f.boot,
        ],
    )
    belt = np.interp(
        s,
        [0, f.bonnet, f.bonnet + 0.45 * f.cabin, rear[1], length],
        [nose_top - 0.06, cowl - 0.055, 0.5 * (cowl + deck) - 0.06, deck - 0.05, deck - 0.10],
    )
    blur = 0.07 + 0.07 * f.futurism
    top, belt = _smooth(s, top, blur), _smooth(s, belt, 0.16)
    radius = 0.5 * f.wheel_size
    arch = radius * (1.09 - 0.035 * f.futurism) + 0.012
    shape = Shape(length, 0.5 * f.width, nose_top, cowl, deck, screen, rear, wheel_s, radius, arch, s, top, belt, brand)
    return _raise_wings(f, shape)


def _raise_wings(f: Factors, shape: Shape) -> Shape:
    """Lifts belt and top above the wheels, so that wings clear them however low the bonnet."""
    s, top, belt = shape.profile_s, shape.top, shape.belt
    flank_s = _bend(f, shape, s, np.full_like(s, 0.97 * shape.half_width), belt)
    for wheel in shape.wheel_s:
        away = (flank_s - wheel) / 0.45
        lack = shape.wheel_radius + shape.arch_radius + 0.045 - float(np.interp(wheel, flank_s, belt))
        bump = max(0.0, lack) * np.exp(-(away**2) * np.minimum(1, 0.25 + np.abs(away)))
        belt, top = belt + bump, top + 0.75 * bump * (1 - smoothstep(top - belt, 0.1, 0.3))
    return replace(shape, top=top, belt=belt)


def _smooth(s: np.ndarray, values: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(np.ceil(2.5 * sigma / (s[1] - s[0])))
    kernel = np.exp(-0.5 * ((s[1] - s[0]) * np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


@lru_cache(maxsize=8)
def _section_basis(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cubic B-spline over 13 control points, mirrored at both ends: v (count,), y and z bases (2, 13, count)."""
    v = 12.0 * np.linspace(0, 1, count)
    v = np.clip(v + 0.55 * np.sin(2 * np.pi * v / 12.0), 0, 12)  # finer at the flank and the roof's edge
    basis = np.zeros((2, 13, count), np.float32)
    knot = np.minimum(v.astype(int), 11)
    t = v - knot
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    columns = np.arange(count)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = knot + offset
        mirrored = (index < 0) | (index > 12)
        index = np.where(index < 0, -index, np.where(index > 12, 24 - index, index))
        np.add.at(basis[0], (index, columns), np.where(mirrored, -weight, weight) / 6)
        np.add.at(basis[1], (index, columns), weight / 6)
    return v.astype(np.float32), basis


@lru_cache(maxsize=8)
def _grid_triangles(rows: int, columns: int) -> np.ndarray:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).ravel()
    first = np.stack([corner, corner + 1, corner + columns], 1)
    second = np.stack([corner + 1, corner + columns + 1, corner + columns], 1)
    return np.concatenate([first, second])


# End caps: sections shrink towards a middle point and move outwards along a superellipse.
_CAP_SCALES = np.array([0.0, 0.3, 0.55, 0.74, 0.86, 0.93, 0.97, 0.99])


def build_mesh(f: Factors, shape: Shape, sections: int = 56, around: int = 25) -> Mesh:
    """Lofts the body. Resolution: `sections` along the car, `around` points per half section."""
    steps = np.hypot(np.diff(shape.profile_s), 1.3 * np.diff(shape.top))
    inside = (shape.profile_s > 0) & (shape.profile_s < shape.length)
    arc = np.concatenate([[0], np.cumsum(steps * inside[1:])])
    s = np.interp(np.linspace(0, arc[-1], sections), arc, np.clip(shape.profile_s, 0, shape.length))
    s[0], s[-1] = 0.0, shape.length
    control_y, control_z = _controls(f, shape, s)
    v, basis = _section_basis(around)
    y, z = control_y @ basis[0], control_z @ basis[1]
    nose, tail = _CAP_SCALES, _CAP_SCALES[::-1]
    scale = np.concatenate([nose, np.ones(sections), tail])[:, None]
    row = np.concatenate([np.zeros(len(nose), int), np.arange(sections), np.full(len(tail), sections - 1)])
    middle = np.where(np.arange(len(row)) < len(row) // 2, 0.5 * (f.clearance + shape.nose_top), 0.55 * shape.deck)
    y, z = y[row] * scale, middle[:, None] + (z[row] - middle[:, None]) * scale
    bulge = (1 - scale**2.6) ** (1 / 2.6)
    outward = np.where(np.arange(len(row)) < len(row) // 2, -0.10, 0.07)[:, None] * bulge
    s_grid = _bend(f, shape, s[row][:, None] + outward, y, z)
    return _assemble(shape, s_grid, y, z, s[row][:, None] + 0 * y, np.broadcast_to(v, y.shape))


def _controls(f: Factors, shape: Shape, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Control points of every section: y and z, float32 (len(s), 13)."""
    front, back = np.clip(1 - s / 1.25, 0, 1), np.clip(1 - (shape.length - s) / 1.25, 0, 1)
    half = shape.half_width * (1 - (0.11 + 0.05 * f.futurism) * front**2 - (0.09 + 0.03 * f.futurism) * back**2)
    top, belt = np.interp(s, shape.profile_s, shape.top), np.interp(s, shape.profile_s, shape.belt)
    low = f.clearance + 0.05 * front**3 + (0.10 + 0.04 * f.futurism) * back**3
    flare = sum(np.exp(-(((s - wheel) / 0.42) ** 2)) for wheel in shape.wheel_s)
    waist = (0.018 + 0.045 * f.futurism) * (1 - np.minimum(flare, 1))  # flanks drawn in between the wheels
    rise, body = top - belt, belt - low
    cabin = smoothstep(rise, 0.07, 0.24)
    lean = 0.36 + 0.14 * f.futurism
    base = 0.955 * half - 0.01
    zero = 0 * s
    under_y = [
        zero,
        0.55 * half,
        0.86 * half,
        0.965 * half - 0.5 * waist,
        half - 1.4 * waist,
        half - 0.3 * waist,
        0.985 * half,
    ]
    under_z = [low, low, low, low + 0.05, low + 0.40 * body, low + 0.76 * body, belt - 0.035]
    bonnet_y = [0.955 * half, 0.90 * half, 0.80 * half, 0.63 * half, 0.33 * half, zero]
    bonnet_z = [belt + 0.30 * rise, belt + 0.58 * rise, belt + 0.78 * rise, belt + 0.92 * rise, top, top]
    cabin_y = [
        base,
        base - 0.27 * lean * rise,
        base - 0.70 * lean * rise,
        base - lean * rise - 0.07,
        0.55 * (base - lean * rise),
        zero,
    ]
    cabin_z = [belt + 0.02, belt + 0.34 * rise, belt + 0.78 * rise, top - 0.045, top - 0.008, top]
    upper_y = [b + (c - b) * cabin for b, c in zip(bonnet_y, cabin_y, strict=True)]
    upper_z = [b + (c - b) * cabin for b, c in zip(bonnet_z, cabin_z, strict=True)]
    return (np.stack(under_y + upper_y, 1).astype(np.float32), np.stack(under_z + upper_z, 1).astype(np.float32))


def _bend(f: Factors, shape: Shape, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Bows the ends in plan view and leans them in side view; returns s of every point."""
    front, back = np.clip(1 - s / 1.6, 0, 1), np.clip(1 - (shape.length - s) / 1.3, 0, 1)
    across = np.abs(y / shape.half_width) ** 2.4
    screen = np.exp(-(((s - shape.screen[0] - 0.2) / 0.6) ** 2))
    rear = np.exp(-(((s - shape.rear[1] + 0.2) / 0.5) ** 2))
    up = np.clip((z - f.clearance) / (shape.nose_top - f.clearance), 0, 1.0)
    s = s + across * ((0.30 + 0.10 * f.futurism) * front**2 + 0.10 * screen - 0.16 * back**2 - 0.05 * rear)
    s = s + (0.05 + 0.22 * f.futurism) * front**2 * up**1.5
    return s - (0.06 - 0.16 * f.futurism) * back**2 * np.clip(z / shape.deck, 0, 1) ** 2


def _assemble(shape: Shape, s: np.ndarray, y: np.ndarray, z: np.ndarray, s_param: np.ndarray, v: np.ndarray) -> Mesh:
    """Mirrors the half sections; normals are cross products of the grid's tangents."""
    both = [np.concatenate([a, m[:, -2::-1]], 1) for a, m in ((s, s), (y, -y), (z, z), (s_param, s_param), (v, v))]
    x = 0.5 * shape.length - both[0]
    points = np.stack([x, both[1], both[2]], -1).astype(np.float32)
    along, around = np.empty_like(points), np.empty_like(points)
    along[1:-1], along[0], along[-1] = (points[2:] - points[:-2], points[1] - points[0], points[-1] - points[-2])
    around[:, 1:-1] = points[:, 2:] - points[:, :-2]
    around[:, 0], around[:, -1] = points[:, 1] - points[:, 0], points[:, -1] - points[:, -2]
    normals = np.stack(
        [
            along[..., 1] * around[..., 2] - along[..., 2] * around[..., 1],
            along[..., 2] * around[..., 0] - along[..., 0] * around[..., 2],
            along[..., 0] * around[..., 1] - along[..., 1] * around[..., 0],
        ],
        -1,
    )
    normals[0], normals[-1] = (1, 0, 0), (-1, 0, 0)
    params = np.stack([both[3], both[4]], -1).astype(np.float32)
    return Mesh(
        points.reshape(-1, 3),
        normalise(normals.reshape(-1, 3)),
        params.reshape(-1, 2),
        _grid_triangles(*points.shape[:2]),
    )
