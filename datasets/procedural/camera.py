"""The camera, and a vectorised triangle rasteriser."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole. `axes` has the rows right, down, forward in the car frame (metres);
    pixel = focal * (right, down) / forward + centre."""

    origin: np.ndarray
    axes: np.ndarray
    focal_px: float
    centre_px: tuple[float, float]
    handed: int = 1  # -1: mirrored, so triangles wind the other way

    def project(self, points: np.ndarray) -> np.ndarray:
        """float32 (n, 3) car frame → (n, 3) = (column, row, depth in metres)."""
        local = (points - self.origin) @ self.axes.T
        local[:, :2] *= self.focal_px / local[:, 2:]
        local[:, 0] += self.centre_px[0]
        local[:, 1] += self.centre_px[1]
        return local

    def scaled(self, times: float) -> "Camera":
        """The same view in a picture `times` as large."""
        centre = (self.centre_px[0] * times, self.centre_px[1] * times)
        return Camera(self.origin, self.axes, self.focal_px * times, centre, self.handed)

    def mirrored(self) -> "Camera":
        """The camera reflected in the floor z = 0."""
        flip = np.array([1, 1, -1], np.float32)
        return Camera(self.origin * flip, self.axes * flip, self.focal_px, self.centre_px, -self.handed)

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Directions (n, 3) through pixel positions, with forward component 1: a ray's parameter is its depth."""
        right = ((columns - self.centre_px[0]) / self.focal_px).astype(np.float32)[:, None]
        down = ((rows - self.centre_px[1]) / self.focal_px).astype(np.float32)[:, None]
        return right * self.axes[0] + down * self.axes[1] + self.axes[2]


def aim_camera(
    points: np.ndarray,
    yaw_deg: float,
    pitch_deg: float,
    distance: float,
    framing: float,
    height: int,
    width: int,
    centre: tuple[float, float] = (0.5, 0.55),
) -> Camera:
    """A camera for which the car's points fill `framing` of the width, or of the height if that limits."""
    yaw, pitch = np.radians(yaw_deg), np.radians(pitch_deg)
    forward = -np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    axes = np.stack([right, np.cross(forward, right), forward]).astype(np.float32)
    origin = (np.array([0.0, 0.0, 0.5]) - distance * forward).astype(np.float32)
    seen = Camera(origin, axes, 1.0, (0.0, 0.0)).project(points)
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    focal = framing * min(width / (high[0] - low[0]), 0.94 * height / (high[1] - low[1]))
    middle = 0.5 * focal * (low + high)
    return Camera(
        origin, axes, float(focal), (float(centre[0] * width - middle[0]), float(centre[1] * height - middle[1]))
    )


def fill_triangles(seen: np.ndarray, triangles: np.ndarray, height: int, width: int, handed: int = 1):
    """Rasterises triangles, nearest on top, without back faces.

    seen: (n, 3) = (column, row, depth). Returns flat pixel indices (p,), their triangles (p, 3) and barycentric
    weights (p, 3). Painter's algorithm by triangle: suits small triangles.
    """
    if handed < 0:
        triangles = triangles[:, ::-1]
    corners = seen[triangles]  # (m, 3, 3)
    x, y = corners[..., 0], corners[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    front = np.flatnonzero((area > 1e-6) & (y.max(1) > 0.5) & (y.min(1) < height - 0.5))
    front = front[np.argsort(-corners[front, :, 2].sum(1), kind="stable")]
    x, y, area = x[front], y[front], area[front]
    row_of, rows, low, high = _row_spans(x, y, height)
    low, high = np.maximum(low, 0.5), np.minimum(high, width - 0.5)
    # a slight overlap, so that rounding leaves no hole between neighbours
    span_of, columns = _spread(np.ceil(low - 0.501).astype(np.int64), np.floor(high - 0.499).astype(np.int64))
    pixels = rows[span_of] * width + columns
    owner = np.full(height * width, -1, np.int64)
    owner[pixels] = np.arange(len(pixels))  # later ones are nearer
    covered = np.flatnonzero(owner >= 0)
    chosen = owner[covered]
    face = row_of[span_of[chosen]]
    px, py = columns[chosen] + np.float32(0.5), rows[span_of[chosen]] + np.float32(0.5)
    px, py = px.astype(np.float32), py.astype(np.float32)
    xf, yf = x[face], y[face]
    first = ((xf[:, 1] - px) * (yf[:, 2] - py) - (xf[:, 2] - px) * (yf[:, 1] - py)) / area[face]
    second = ((xf[:, 2] - px) * (yf[:, 0] - py) - (xf[:, 0] - px) * (yf[:, 2] - py)) / area[face]
    weights = np.stack([first, second, 1 - first - second], 1).astype(np.float32)
    return covered, triangles[front[face]], weights


def _row_spans(x: np.ndarray, y: np.ndarray, height: int):
    """Spans of triangles (m, 3) on row centres: triangle, row, first and last column."""
    order = np.argsort(y, axis=1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    ends = ((0, 2), (0, 1), (1, 2))  # the long side, then the two short ones
    slope = np.stack([(x[:, b] - x[:, a]) / np.maximum(y[:, b] - y[:, a], 1e-6) for a, b in ends], 1)
    start = np.stack([x[:, a] - slope[:, i] * (y[:, a] - 0.5) for i, (a, _) in enumerate(ends)], 1)
    row_of, rows = _spread(
        np.ceil(np.maximum(y[:, 0] - 0.5, 0)).astype(np.int64),
        np.floor(np.minimum(y[:, 2] - 0.5, height - 1)).astype(np.int64),
    )
    at = rows.astype(np.float32)
    side = np.where(at + 0.5 < y[row_of, 1], 1, 2)
    long = start[row_of, 0] + slope[row_of, 0] * at
    short = start[row_of, side] + slope[row_of, side] * at
    return row_of, rows, np.minimum(long, short), np.maximum(long, short)


def _spread(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every value of the ranges first..last with the index of its range, in order."""
    counts = np.maximum(last - first + 1, 0)
    index = np.repeat(np.arange(len(counts)), counts)
    starts = np.repeat(first - (np.cumsum(counts) - counts), counts)
    return index, starts + np.arange(len(index))
