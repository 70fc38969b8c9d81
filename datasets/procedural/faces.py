"""A brand's grille and lamps. Show cars have the same forms, thin and lit."""

import numpy as np

from datasets.procedural.body import Shape, smoothstep
from datasets.procedural.brands import BrandStyle, Grille
from datasets.procedural.factors import Factors
from datasets.procedural.materials import BLACK, WHITE_LAMP, Patch, blend

METAL = np.array([0.62, 0.63, 0.65], np.float32)
LENS = np.array([0.16, 0.17, 0.18], np.float32)
LIP = np.array([0.02, 0.02, 0.022], np.float32)


def draw_face(f: Factors, shape: Shape, brand: BrandStyle, patch: Patch, where: np.ndarray, s: np.ndarray) -> None:
    """Draws on the front's pixels `where`, `s` metres behind the nose."""
    y, z = np.abs(patch.points[where, 1]), patch.points[where, 2]
    half = 0.86 * shape.half_width
    across, up = y / half, (z - f.clearance) / (shape.nose_top - f.clearance)
    facing = patch.normals[where, 0] > 0.25
    lip = facing & (across < 0.8) & (up < 0.10)
    blend(patch, where[lip], LIP, 0.04)
    _draw_grille(f, brand.grille, patch, where, np.where(facing, across, 9.0), up)
    _draw_lamps(f, shape, brand, patch, where, across + 0.75 * s / half, up)


def _draw_grille(f: Factors, grille: Grille, patch: Patch, where, across: np.ndarray, up: np.ndarray) -> None:
    show = float(smoothstep(f.futurism, 0.3, 0.75))
    middle = 0.5 * (grille.low + grille.high)
    half = np.interp(up, [grille.low, middle, grille.high], grille.half_widths)
    rise = 0.9 * grille.frame  # about as thick above as beside
    if grille.frame:
        around = (across < half + grille.frame) & (up > grille.low - rise) & (up < grille.high + rise)
        blend(patch, where[around], METAL, 0.35)
        patch.glow[where[around]] += 0.9 * show * WHITE_LAMP
    opening = (across < half) & (up > grille.low) & (up < grille.high)
    paint = patch.albedo[where[opening]].copy() if grille.painted else METAL
    if grille.painted:
        blend(patch, where[opening], BLACK, 0.03)
    else:
        blend(patch, where[opening], BLACK, 0.05)
        patch.glow[where[opening]] *= 0
    if grille.bars == "none":
        return
    along = across[opening] if grille.bars == "upright" else (up[opening] - grille.low) / (grille.high - grille.low)
    # Upright bars: period over half the width, with an opening in the middle.
    period = max(grille.half_widths) / (grille.count / 2) if grille.bars == "upright" else 1 / grille.count
    bar = np.abs((along / period) % 1 - 0.5) < 0.5 * grille.bar
    blend(patch, where[opening][bar], paint[bar] if grille.painted else paint, 0.075 if grille.painted else 0.3)


def _draw_lamps(
    f: Factors, shape: Shape, brand: BrandStyle, patch: Patch, where, girth: np.ndarray, up: np.ndarray
) -> None:
    """`girth`: as `Lamp.across`."""
    show = float(smoothstep(f.futurism, 0.3, 0.75))
    for lamp in brand.lamps:
        x = (girth - lamp.across) / lamp.half_across
        tall = lamp.half_up * (1 - 0.25 * show) * f.lights / brand.body[0][-1] ** (1 - show) / brand.body[1][-1] ** show
        z = (up - lamp.up - lamp.slant * (girth - lamp.across)) / tall
        away = np.abs(x) ** lamp.power + np.abs(z) ** lamp.power
        blend(patch, where[away < 1.45], LIP, 0.05)
        lens = away < 1.0
        blend(patch, where[lens], LENS, 0.10)
        core = 1 - smoothstep(away[lens], 0.45, 1.0)
        patch.glow[where[lens]] += ((0.55 + 0.45 * show) * core + 0.5 * show)[:, None] * WHITE_LAMP
