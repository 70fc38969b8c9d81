"""Wheels and door mirrors: ray-traced solids, round at any size."""

import numpy as np

from datasets.procedural.body import Shape, normalise, smoothstep
from datasets.procedural.brands import Wheel
from datasets.procedural.camera import Camera
from datasets.procedural.factors import Factors

RUBBER = np.array([0.014, 0.014, 0.015], np.float32)
PLAIN = Wheel(spokes=0)  # spokes as in the factors
METAL = np.array([0.36, 0.37, 0.39], np.float32)


def wheel_places(f: Factors, shape: Shape) -> list[tuple[float, float, int]]:
    """(x, y of the outer face, side) of the four wheels, the far side first."""
    track = shape.half_width - 0.035 - 0.01 * (1 - f.futurism)
    return [(0.5 * shape.length - s, side * track, side) for side in (-1, 1) for s in shape.wheel_s[::-1]]


def box_rays(camera: Camera, low, high, depth: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that may show the box low..high in front of `depth`: flat indices (p,) and rays (p, 3)."""
    corners = np.array(
        [[(low, high)[i & 1][0], (low, high)[i >> 1 & 1][1], (low, high)[i >> 2][2]] for i in range(8)], np.float32
    )
    seen = camera.project(corners)
    left, top = np.maximum(np.floor(seen[:, :2].min(0)).astype(int), 0)
    right = min(int(np.ceil(seen[:, 0].max())), width)
    bottom = min(int(np.ceil(seen[:, 1].max())), height)
    free = depth.reshape(height, width)[top:bottom, left:right] > seen[:, 2].min()
    rows, columns = np.nonzero(free)
    rows, columns = rows + top, columns + left
    return rows * width + columns, camera.rays(columns + 0.5, rows + 0.5)


def hit_wheel(camera: Camera, place, radius: float, depth: np.ndarray, height: int, width: int, thick: float = 0.22):
    """Intersections with a cylinder along y, nearer than `depth` (flat picture).

    Returns pixels (p,), rays (p, 3), their depths, (x, z) from its centre (p, 2), on_face bool (p,).
    """
    x, y, side = place
    low, high = (
        np.array([x - radius, min(y, y - side * thick), 0]),
        np.array([x + radius, max(y, y - side * thick), 2 * radius]),
    )
    pixels, rays = box_rays(camera, low, high, depth, height, width)
    start = camera.origin - np.array([x, 0, radius], np.float32)
    safe = np.where(np.abs(rays[:, 1]) < 1e-6, 1e-6, rays[:, 1])
    face_depth = (y - start[1]) / safe
    fx, fz = start[0] + face_depth * rays[:, 0], start[2] + face_depth * rays[:, 2]
    on_face = (fx * fx + fz * fz < radius * radius) & (side * rays[:, 1] < 0)
    a = rays[:, 0] ** 2 + rays[:, 2] ** 2
    b = start[0] * rays[:, 0] + start[2] * rays[:, 2]
    root = b * b - a * (start[0] ** 2 + start[2] ** 2 - radius**2)
    tread_depth = (-b - np.sqrt(np.maximum(root, 0))) / a
    ty = side * (start[1] + tread_depth * rays[:, 1])
    on_tread = ~on_face & (root > 0) & (ty < side * y) & (ty > side * y - thick)
    met = np.where(on_face, face_depth, tread_depth)
    keep = np.flatnonzero((on_face | on_tread) & (met < depth[pixels]))
    met, kept = met[keep], rays[keep]
    offset = np.stack([start[0] + met * kept[:, 0], start[2] + met * kept[:, 2]], 1)
    return pixels[keep], kept, met, offset, on_face[keep]


def wheel_material(
    f: Factors,
    offset: np.ndarray,
    on_face: np.ndarray,
    side: int,
    radius: float,
    turn: float,
    metres_per_px: float,
    style: Wheel = PLAIN,
):
    """Albedo (n, 3), mirror (n,), normals (n, 3) and glow (n,) of wheel pixels."""
    n = len(offset)
    r = np.hypot(offset[:, 0], offset[:, 1])
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    show = f.futurism
    rim = radius * (0.70 + 0.145 * show)
    soft = max(0.004, 0.6 * metres_per_px)
    count = style.spokes or int(f.spokes)
    gap = np.abs((angle + turn) * count / (2 * np.pi) % 1.0 - 0.5) * (2 * np.pi / count) * r
    blade = 0.038 - 0.018 * show + 0.10 * (1 - show) * np.clip(0.45 * rim - r, 0, 1) + 0.04 * show * r
    spoke = 1 - smoothstep(gap, blade - soft, blade + soft)
    spoke = np.maximum(spoke, 1 - smoothstep(r, style.hub * rim - soft, style.hub * rim + soft))
    spoke = np.maximum(spoke, style.disc)
    edge = (1 - style.lip) * rim
    lip = smoothstep(r, edge - soft, edge + soft) * (1 - 0.3 * show)
    cover = float(smoothstep(show, 0.45, 0.85))
    behind = (
        RUBBER * 1.3
        + 0.07 * (1 - cover) * (r < 0.62 * rim)[:, None]
        + cover * np.array([0.012, 0.012, 0.013], np.float32)
    )
    bright = METAL * (style.tone * (1.0 - 0.25 * cover))
    metal = np.maximum(spoke, lip)[:, None]
    albedo = behind + (bright - behind) * metal
    mirror = 0.05 + min(style.tone, 1.0) * (0.30 - 0.08 * cover) * metal[:, 0]
    rubber = smoothstep(r, rim - soft, rim + soft)
    albedo += rubber[:, None] * (RUBBER - albedo)
    mirror += rubber * (0.02 - mirror)
    outward = offset / np.maximum(r, 1e-6)[:, None]
    lean = np.where(r > rim, 0.15 + 0.9 * smoothstep(r, 0.88 * radius, radius), -0.30 * (1 - 0.5 * show) * metal[:, 0])
    lean = np.where(on_face, lean, 30.0)
    albedo[~on_face], mirror[~on_face] = RUBBER, 0.02
    normals = np.stack([outward[:, 0] * lean, np.full(n, float(side)), outward[:, 1] * lean], 1).astype(np.float32)
    normals = normalise(normals)
    ring = np.exp(-(((r - 0.80 * rim) / max(0.010, 0.5 * metres_per_px)) ** 2)) * on_face
    return albedo.astype(np.float32), mirror.astype(np.float32), normals, 0.55 * cover * ring


def hit_mirror(f: Factors, shape: Shape, camera: Camera, side: int, depth: np.ndarray, height: int, width: int):
    """The door mirror, an ellipsoid that shrinks with futurism: pixels, rays, depths, normals."""
    size = 1 - float(smoothstep(f.futurism, 0.3, 0.62))
    if size < 0.05:
        return np.zeros(0, int), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3))
    centre = np.array(
        [0.5 * shape.length - shape.screen[0] - 0.50, side * (0.965 * shape.half_width + 0.07), shape.cowl + 0.075],
        np.float32,
    )
    radii = np.float32(size) * np.array([0.075, 0.115, 0.072], np.float32)
    pixels, rays = box_rays(camera, centre - radii, centre + radii, depth, height, width)
    start, scaled = (camera.origin - centre) / radii, rays / radii
    a, b = np.einsum("ij,ij->i", scaled, scaled), scaled @ start
    root = b * b - a * (start @ start - 1)
    met = (-b - np.sqrt(np.maximum(root, 0))) / a
    keep = np.flatnonzero((root > 0) & (met < depth[pixels]))
    normals = (start + met[keep, None] * scaled[keep]) / radii
    return pixels[keep], rays[keep], met[keep], normalise(normals)
