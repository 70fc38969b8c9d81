"""Materials of the body's pixels, and blending them in."""

from dataclasses import dataclass

import numpy as np

BLACK = np.array([0.012, 0.012, 0.014], np.float32)
GLASS = np.array([0.010, 0.013, 0.015], np.float32)
WHITE_LAMP = np.array([0.92, 0.97, 1.0], np.float32)
RED_LAMP = np.array([0.75, 0.02, 0.02], np.float32)


@dataclass
class Patch:
    """Pixels of the body, all (n, ...): position, normal, material."""

    points: np.ndarray
    normals: np.ndarray
    s_section: np.ndarray  # s of the cross-section, follows the mesh
    v: np.ndarray
    albedo: np.ndarray
    mirror: np.ndarray
    glow: np.ndarray  # (n, 3) light of its own
    hollow: np.ndarray  # bool: wheel arch, seen through


def hsv_to_linear(hue: float, saturation: float, value: float) -> np.ndarray:
    shifted = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    rgb = value - value * saturation * np.clip(np.minimum(shifted, 4 - shifted), 0, 1)
    return (rgb**2.2).astype(np.float32)


def blend(patch: Patch, where: np.ndarray, colour: np.ndarray, mirror: float, amount: float | np.ndarray = 1.0) -> None:
    """Blends a material in at the pixel indices (or mask) `where`."""
    if where.dtype == bool:
        where = np.flatnonzero(where)
    share = np.asarray(amount, np.float32)
    column = share[..., None] if share.ndim else share
    patch.albedo[where] += column * (colour - patch.albedo[where])
    patch.mirror[where] += share * (mirror - patch.mirror[where])
