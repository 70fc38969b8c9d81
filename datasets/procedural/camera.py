"""The camera, and filling triangles into a pixel grid without a loop over triangles."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole. `axes` rows: right, down, forward in the car frame; pixel = focal * (right, down) / forward + centre."""

    origin: np.ndarray
    axes: np.ndarray
    focal_px: float
    centre_px: tuple[float, float]

    def project(self, points: np.ndarray) -> np.ndarray:
        """float32 (n, 3) car frame → (n, 3) = (column, row, depth in metres)."""
        local = (points - self.origin) @ self.axes.T
        local[:, :2] *= self.focal_px / local[:, 2:]
        local[:, 0] += self.centre_px[0]
        local[:, 1] += self.centre_px[1]
        return local

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Directions (n, 3) through pixel positions, forward component 1 (so a ray's parameter is the depth)."""
        right = ((columns - self.centre_px[0]) / self.focal_px).astype(np.float32)[:, None]
        down = ((rows - self.centre_px[1]) / self.focal_px).astype(np.float32)[:, None]
        return right * self.axes[0] + down * self.axes[1] + self.axes[2]


def aim_camera(points: np.ndarray, yaw_deg: float, pitch_deg: float, distance: float, framing: float,
               height: int, width: int, centre: tuple[float, float] = (0.5, 0.55)) -> Camera:
    """Look at the car so that its points fill `framing` of the width (and at most that of the height)."""
    yaw, pitch = np.radians(yaw_deg), np.radians(pitch_deg)
    forward = -np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    axes = np.stack([right, np.cross(forward, right), forward]).astype(np.float32)
    origin = (np.array([0.0, 0.0, 0.5]) - distance * forward).astype(np.float32)
    seen = Camera(origin, axes, 1.0, (0.0, 0.0)).project(points)
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    focal = framing * min(width / (high[0] - low[0]), 0.94 * height / (high[1] - low[1]))
    middle = 0.5 * focal * (low + high)
    return Camera(origin, axes, float(focal),
                  (float(centre[0] * width - middle[0]), float(centre[1] * height - middle[1])))


def fill_triangles(seen: np.ndarray, triangles: np.ndarray, height: int, width: int):
    """Which triangle covers which pixel centre, nearest on top.

    seen: (n, 3) = (column, row, depth). Returns flat pixel numbers (p,), their triangles (p, 3) and the three
    corners' weights (p, 3). Back faces are dropped; small triangles are painted from far to near.
    """
    corners = seen[triangles]  # (m, 3, 3)
    x, y = corners[..., 0], corners[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    front = np.flatnonzero(area > 1e-6)
    front = front[np.argsort(-corners[front, :, 2].sum(1), kind="stable")]
    x, y, area = x[front], y[front], area[front]
    row_of, rows = _spread(np.ceil(np.maximum(y.min(1) - 0.5, 0)).astype(np.int64),
                           np.floor(np.minimum(y.max(1) - 0.5, height - 1)).astype(np.int64))
    xr, yr, centre = x[row_of], y[row_of], rows + 0.5
    low, high = np.full(len(rows), 0.5, np.float32), np.full(len(rows), width - 0.5, np.float32)
    for a, b in ((0, 1), (1, 2), (2, 0)):  # an edge bounds the row from the left or from the right
        dy = yr[:, b] - yr[:, a]
        flat = np.abs(dy) < 1e-9
        cut = xr[:, a] + (centre - yr[:, a]) * (xr[:, b] - xr[:, a]) / np.where(flat, 1, dy)
        low = np.where((dy < 0) & ~flat, np.maximum(low, cut), low)
        high = np.where((dy > 0) & ~flat, np.minimum(high, cut), high)
    # a hair of overlap, so that rounding never leaves a hole between two neighbours
    span_of, columns = _spread(np.ceil(low - 0.5 - 1e-3).astype(np.int64), np.floor(high - 0.5 + 1e-3).astype(np.int64))
    pixels = rows[span_of] * width + columns
    owner = np.full(height * width, -1, np.int64)
    owner[pixels] = np.arange(len(pixels))  # later = nearer wins
    covered = np.flatnonzero(owner >= 0)
    chosen = owner[covered]
    face = row_of[span_of[chosen]]
    px, py = (columns[chosen] + 0.5), (rows[span_of[chosen]] + 0.5)
    xf, yf = x[face], y[face]
    first = ((xf[:, 1] - px) * (yf[:, 2] - py) - (xf[:, 2] - px) * (yf[:, 1] - py)) / area[face]
    second = ((xf[:, 2] - px) * (yf[:, 0] - py) - (xf[:, 0] - px) * (yf[:, 2] - py)) / area[face]
    weights = np.stack([first, second, 1 - first - second], 1).astype(np.float32)
    return covered, triangles[front[face]], weights


def _spread(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For ranges first..last: the number of its range and the value, for every member, in order."""
    counts = np.maximum(last - first + 1, 0)
    index = np.repeat(np.arange(len(counts)), counts)
    starts = np.repeat(first - (np.cumsum(counts) - counts), counts)
    return index, starts + np.arange(len(index))
