"""Materials of the body at each pixel: paint, glass, lamps, grille, seams."""

import numpy as np

from datasets.procedural.body import V_BELT, V_ROOF_EDGE, Shape, normalise, smoothstep
from datasets.procedural.faces import draw_face
from datasets.procedural.factors import Factors
from datasets.procedural.materials import BLACK, GLASS, RED_LAMP, WHITE_LAMP, Patch, blend, hsv_to_linear


def make_patch(f: Factors, shape: Shape, points, normals, params, metres_per_px: float) -> Patch:
    """The material of every body pixel."""
    n = len(points)
    paint = hsv_to_linear(f.paint_hue, f.paint_saturation, f.paint_value)
    patch = Patch(
        points,
        normals,
        params[:, 0],
        params[:, 1],
        np.broadcast_to(paint, (n, 3)).copy(),
        np.full(n, 0.075, np.float32),
        np.zeros((n, 3), np.float32),
        np.zeros(n, bool),
    )
    s = 0.5 * shape.length - points[:, 0]
    _crease_flanks(f, shape, patch, s)
    _draw_seams(f, shape, patch, s, metres_per_px)
    _trim_sills(f, shape, patch, s)
    _glaze(f, shape, patch, s)
    front = np.flatnonzero((s < 1.0) & (patch.v < 11.99))
    if shape.brand is None:
        _draw_front(f, shape, patch, front, s[front])
    else:
        draw_face(f, shape, shape.brand, patch, front, s[front])
    back = np.flatnonzero(s > shape.length - 0.8)
    _draw_back(f, shape, patch, back, s[back])
    return patch


def _crease_flanks(f: Factors, shape: Shape, patch: Patch, s: np.ndarray) -> None:
    """Tilts normals along a line below the shoulder and one above the sill; cuts the arches out."""
    flank = np.flatnonzero((patch.v > 2.2) & (patch.v < 7.0) & (np.abs(patch.normals[:, 1]) > 0.35))
    z, sf = patch.points[flank, 2], s[flank]
    belt = np.interp(sf, shape.profile_s, shape.belt)
    line = belt - 0.13 - 0.02 * f.futurism + 0.03 * (sf / shape.length - 0.5)
    inside = smoothstep(sf, 0.35, 0.8) * (1 - smoothstep(sf, shape.length - 0.5, shape.length - 0.15))
    tilt = inside * (1 - 0.5 * f.futurism) * np.clip((z - line) / 0.05, -1, 1) * np.exp(-(((z - line) / 0.10) ** 2))
    low = f.clearance + 0.17 + (0.10 + 0.22 * f.futurism) * (sf / shape.length)
    tilt += (0.5 + 0.4 * f.futurism) * inside * np.clip((z - low) / 0.04, -1, 0.4) * np.exp(-(((z - low) / 0.09) ** 2))
    patch.normals[flank, 2] += 0.42 * tilt
    for wheel in shape.wheel_s:
        near = np.hypot(sf - wheel, z - shape.wheel_radius)
        lip = (near < shape.arch_radius + 0.035) & (near > shape.arch_radius)
        patch.normals[flank[lip], 2] += 0.25
        patch.hollow[flank[(near < shape.arch_radius) & (np.abs(patch.points[flank, 1]) > 0.6 * shape.half_width)]] = (
            True
        )
    patch.normals[flank] = normalise(patch.normals[flank])


def door_lines(shape: Shape, z: np.ndarray) -> tuple[float, float, np.ndarray]:
    """s of the front door's front edge, the seam between the doors, and the rear door's edge at heights z."""
    first = shape.wheel_s[0] + shape.arch_radius + 0.11
    reach = shape.arch_radius + 0.10
    last = shape.wheel_s[1] - np.sqrt(np.maximum(reach**2 - (z - shape.wheel_radius) ** 2, 0.02))
    middle = first + 0.50 * (shape.wheel_s[1] - 0.12 - first)
    return first, middle, last


def _draw_seams(f: Factors, shape: Shape, patch: Patch, s: np.ndarray, metres_per_px: float) -> None:
    width = max(0.009, 0.55 * metres_per_px)
    strength = min(1.0, 0.016 / width) * (1 - 0.62 * f.futurism)
    flank = np.flatnonzero(
        (patch.v > 3.0) & (patch.v < V_BELT + 0.1) & ~patch.hollow & (patch.points[:, 2] > f.clearance + 0.09)
    )
    z, sf = patch.points[flank, 2], s[flank]
    first, middle, last = door_lines(shape, z)
    dark = sum(np.exp(-(((sf - line) / width) ** 2)) for line in (first, middle, last))
    between = (sf > first) & (sf < last)
    dark += between * np.exp(-(((z - f.clearance - 0.12) / width) ** 2))
    blend(patch, flank, BLACK, 0.02, np.clip(strength * dark, 0, 0.9))
    handles = 1 - smoothstep(f.futurism, 0.25, 0.55)
    if handles > 0:
        belt = np.interp(sf, shape.profile_s, shape.belt)
        drop = belt - z - 0.105
        for line in (middle, shape.wheel_s[1] - 0.14):
            inside = (np.abs(sf - line + 0.17) < 0.085) & (np.abs(drop) < 0.020)
            shade_of = np.where(drop[inside] > 0.004, 0.02, 0.55)[:, None] * np.ones(3, np.float32)
            blend(patch, flank[inside], shade_of, 0.10, handles * min(1.0, 0.03 / metres_per_px))
    bonnet = np.flatnonzero((s > 0.10) & (patch.s_section < shape.screen[0]) & (patch.v > 8.6))
    edge = np.exp(-(((patch.v[bonnet] - 9.0) / 0.12) ** 2))
    blend(patch, bonnet, BLACK, 0.02, 0.75 * strength * edge)


def _trim_sills(f: Factors, shape: Shape, patch: Patch, s: np.ndarray) -> None:
    """Dark plastic at the bottom: more on a tall car, a thin skirt on a low one."""
    rough = smoothstep(f.clearance, 0.165, 0.20) * (1 - smoothstep(f.futurism, 0.3, 0.8))
    if shape.brand is not None:
        rough = shape.brand.cladding
    tall = 0.035 + 0.055 * rough
    z = patch.points[:, 2]
    tall = tall + 0.20 * smoothstep(f.futurism, 0.4, 0.8) * smoothstep(
        s, 0.3 * shape.length, shape.length
    )  # a blade that rises
    blend(patch, z < f.clearance + tall, BLACK * 1.5, 0.03)
    if rough > 0.02:
        flank = np.flatnonzero((patch.v > 2.2) & (patch.v < 7.0))
        near = np.full(len(flank), 9.0, np.float32)
        for wheel in shape.wheel_s:
            near = np.minimum(near, np.hypot(s[flank] - wheel, z[flank] - shape.wheel_radius))
        blend(patch, flank[near < shape.arch_radius + 0.06], BLACK * 1.8, 0.03, rough)


def _glaze(f: Factors, shape: Shape, patch: Patch, s: np.ndarray) -> None:
    """Side windows, windscreen, rear window, pillars; one canopy on a show car."""
    upper = np.flatnonzero(
        (patch.v > V_BELT) & (patch.s_section > shape.screen[0] - 0.02) & (patch.s_section < shape.rear[1] + 0.02)
    )
    v, sp, z, st = patch.v[upper], patch.s_section[upper], patch.points[upper, 2], s[upper]
    canopy = float(smoothstep(f.futurism, 0.35, 0.72))
    belt = np.interp(sp, shape.profile_s, shape.belt)
    over = np.clip((z - belt) / max(0.2, f.roof_height - shape.deck), 0, 1)
    run = shape.rear[1] - shape.rear[0]
    pillar = (0.30 - 0.24 * canopy) + 0.12 * over
    end = shape.rear[1] - 0.06 - pillar - (run * 0.80) * over
    side_top = V_ROOF_EDGE - 0.42 + 0.3 * canopy
    side = (v > V_BELT + 0.22) & (v < side_top) & (st < end)
    frame = (v > V_BELT + 0.08) & (v < side_top + 0.16) & (st < end + 0.05)
    screen = (v > V_ROOF_EDGE + 0.22 - 0.15 * canopy) & (sp > shape.screen[0] + 0.02) & (sp < shape.screen[1] + 0.05)
    rear = (v > V_ROOF_EDGE + 0.25 - 0.15 * canopy) & (sp > shape.rear[0] + 0.06) & (sp < shape.rear[1] - 0.05)
    shell = (v > V_BELT + 0.10) & (sp > shape.screen[0] + 0.02) & ((st < end + 0.06) | (v > V_ROOF_EDGE - 0.3))
    if canopy > 0:
        blend(patch, upper[shell], GLASS, 0.055, canopy)
    blend(patch, upper[frame], BLACK, 0.06)
    glass = side | screen | rear
    blend(patch, upper[glass], GLASS, 0.058)
    _, middle, _ = door_lines(shape, z)
    post = side & (np.abs(st - middle - 0.02 - 0.08 * over) < 0.045)
    blend(patch, upper[post], BLACK, 0.03, 1 - canopy)
    _furnish(f, shape, patch, upper[side & ~post], st[side & ~post], 1 - 0.6 * canopy)
    deep = upper[screen]
    low = 1 - smoothstep(patch.points[deep, 2], shape.cowl, shape.cowl + 0.75 * (f.roof_height - shape.cowl))
    patch.albedo[deep] += (0.018 * low * (1 - 0.5 * canopy))[:, None]


def _furnish(f: Factors, shape: Shape, patch: Patch, where: np.ndarray, s: np.ndarray, amount: float) -> None:
    """Behind the side windows: daylight from the other side, blocked by two seats."""
    z = patch.points[where, 2]
    belt = 0.5 * (shape.cowl + shape.deck)
    _, middle, _ = door_lines(shape, z)
    seats = np.zeros(len(where), np.float32)
    for seat in (middle - 0.02, middle + 0.85):
        back = np.hypot((s - seat - 0.25 * (z - belt)) / 0.13, (z - belt - 0.05) / 0.20)
        seats = np.maximum(seats, 1 - smoothstep(back, 0.85, 1.1))
    light = smoothstep(z, belt - 0.02, belt + 0.12) * (1 - seats)
    patch.albedo[where] += (0.055 * amount * light)[:, None]


def _draw_front(f: Factors, shape: Shape, patch: Patch, where: np.ndarray, s: np.ndarray) -> None:
    """Headlamps (one light bar on show cars), grille, intake and plate."""
    y, z = np.abs(patch.points[where, 1]), patch.points[where, 2]
    half, forward = 0.86 * shape.half_width, patch.normals[where, 0]
    tall = shape.nose_top - f.clearance
    across = y / half
    grille = 1 - smoothstep(f.futurism, 0.22, 0.6)
    facing = forward > 0.30
    if grille > 0:
        top, bottom = shape.nose_top - 0.055, shape.nose_top - 0.055 - 0.30 * tall
        opening = facing & (across < 0.56 - 0.25 * (1 - grille)) & (z < top) & (z > bottom)
        blend(patch, where[opening], BLACK, 0.05, grille)
        bars = opening & ((z - bottom) % 0.055 < 0.016)
        blend(patch, where[bars], np.array([0.35, 0.36, 0.38], np.float32), 0.3, 0.7 * grille)
        badge = facing & (np.hypot(y, z - 0.5 * (top + bottom)) < 0.055)
        blend(patch, where[badge], np.array([0.7, 0.7, 0.72], np.float32), 0.4, grille)
        plate = facing & (y < 0.26) & (np.abs(z - bottom + 0.07) < 0.052)
        blend(patch, where[plate], np.array([0.72, 0.72, 0.70], np.float32), 0.04, grille)
    mouth = (
        facing
        & (across < 0.80 - 0.1 * f.futurism)
        & (z < f.clearance + (0.30 - 0.06 * f.futurism) * tall)
        & (z > f.clearance + 0.10 * tall)
    )
    blend(patch, where[mouth], BLACK, 0.04)
    _light_front(f, shape, patch, where, s, y, z)


def _light_front(f: Factors, shape: Shape, patch: Patch, where, s, y, z) -> None:
    half = 0.86 * shape.half_width
    bar = float(smoothstep(f.futurism, 0.30, 0.72))
    upper = shape.nose_top - 0.035 - 0.05 * bar + (0.17 - 0.05 * bar) * s
    inner = (0.60 - 0.62 * bar) * half + 0.35 * np.maximum(upper - z, 0) * (1 - bar)
    reach = 0.40 + 0.12 * bar
    outside = (y > inner) & (s < reach) & ((patch.v[where] < V_BELT + 1.8) | (patch.normals[where, 0] > 0.5))
    depth = (upper - z) / (f.lights * (1 - 0.55 * smoothstep(s, 0.15, reach + 0.05)))
    lens = outside & (depth > 0) & (depth < 1)
    blend(patch, where[lens], np.array([0.10, 0.11, 0.12], np.float32), 0.10)
    cells = np.exp(-(((y[lens] - 0.74 * half) / 0.075) ** 2 + ((depth[lens] - 0.45) / 0.32) ** 2))
    cells += np.exp(-(((y[lens] - 0.93 * half) / 0.06) ** 2 + ((depth[lens] - 0.45) / 0.32) ** 2))
    strip = np.exp(-(((depth[lens] - 0.85) / 0.13) ** 2))
    glow = (1 - bar) * (0.55 * np.clip(cells, 0, 1) + 0.75 * strip) + bar * 1.7
    patch.glow[where[lens]] += glow[:, None] * WHITE_LAMP


def _draw_back(f: Factors, shape: Shape, patch: Patch, where: np.ndarray, s: np.ndarray) -> None:
    """Tail lamps, plate and bumper."""
    y, z = np.abs(patch.points[where, 1]), patch.points[where, 2]
    half, behind = 0.88 * shape.half_width, shape.length - s
    bar = float(smoothstep(f.futurism, 0.30, 0.72))
    top = shape.deck - 0.10 - 0.02 * bar
    tall = 0.15 - 0.11 * bar
    lamp = (z < top) & (z > top - tall) & (y > (0.62 - 0.64 * bar) * half) & (behind < 0.20 + 0.08 * bar)
    blend(patch, where[lamp], RED_LAMP * 0.35, 0.09)
    patch.glow[where[lamp]] += (0.22 + 0.75 * bar) * RED_LAMP
    rearward = patch.normals[where, 0] < -0.3
    plate = rearward & (y < 0.26) & (np.abs(z - 0.62 * shape.deck) < 0.055)
    blend(patch, where[plate], np.array([0.72, 0.72, 0.70], np.float32), 0.04)
    low = rearward & (z < f.clearance + 0.24 * shape.deck) & (y < 0.85 * half)
    blend(patch, where[low], BLACK * 1.4, 0.03)
