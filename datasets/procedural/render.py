"""Renders a car on a backdrop, with its shadow and reflection."""

import numpy as np

from datasets.procedural.backdrop import Scene, draw_scene
from datasets.procedural.body import Shape, build_mesh, factors_to_shape, smoothstep
from datasets.procedural.brands import BrandStyle
from datasets.procedural.camera import Camera, aim_camera
from datasets.procedural.car import render_car
from datasets.procedural.factors import Factors
from datasets.procedural.light import light_frame


def render(factors: Factors, height: int, width: int, seed: int, brand: BrandStyle | None = None) -> np.ndarray:
    """uint8 (H, W, 3) RGB. `seed`: of backdrop, light and noise."""
    return render_with_mask(factors, height, width, seed, brand)[0]


def render_with_mask(
    factors: Factors, height: int, width: int, seed: int, brand: BrandStyle | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 (H, W, 3), and where the car is, bool (H, W)."""
    scene = draw_scene(height, width, seed)
    picture, alpha = composite(factors, scene, scene.picture, brand=brand)
    return to_uint8(picture, seed), alpha > 0.5


def composite(
    f: Factors, scene: Scene, picture: np.ndarray, centre=(0.5, 0.55), brand: BrandStyle | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Composites a car with shadow and reflection onto linear (H, W, 3); also returns its alpha (H, W)."""
    height, width = picture.shape[:2]
    shape, samples = factors_to_shape(f, brand), samples_per_side(height, width)
    mesh = build_mesh(f, shape, *mesh_resolution(samples * max(height, width)))
    outline = np.concatenate([mesh.points, _ground_points(f, shape)])
    camera = aim_camera(outline, f.yaw_deg, f.pitch_deg, f.distance, f.framing, height, width, centre)
    picture = picture * ground_light(f, shape, camera, scene, height, width)[..., None]
    if scene.gloss > 0:
        image = render_car(f, shape, mesh, camera.mirrored(), scene.light, height, width, 1)
        image = _soften(image) * np.float32(scene.gloss)
        picture = image[..., :3] + picture * (1 - image[..., 3:])
    car = render_car(f, shape, mesh, camera, scene.light, height, width, samples)
    return car[..., :3] + picture * (1 - car[..., 3:]), car[..., 3]


def mesh_resolution(size: int) -> tuple[int, int]:
    """Sections along the car and points per half section, for a picture with `size` samples a side."""
    return (56, 25) if size > 200 else (40, 19) if size > 100 else (28, 16)


def _soften(image: np.ndarray) -> np.ndarray:
    """3 x 3 box blur: floors are not perfect mirrors."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (across[:-2] + across[1:-1] + across[2:]) * np.float32(1 / 9)


def samples_per_side(height: int, width: int) -> int:
    """Each pixel is the mean of this number squared of samples."""
    size = max(height, width)
    return 2 if size > 96 else 3


def _ground_points(f: Factors, shape: Shape) -> np.ndarray:
    return np.array(
        [[0.5 * shape.length - s, side * shape.half_width, 0] for s in shape.wheel_s for side in (-1, 1)], np.float32
    )


def ground_light(f: Factors, shape: Shape, camera: Camera, scene: Scene, height: int, width: int) -> np.ndarray:
    """Share of light that reaches the ground in each pixel: float32 (H, W)."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    rays = camera.rays(columns.ravel(), rows.ravel())
    below = rays[:, 2] < -0.02
    reach = np.where(below, -camera.origin[2] / np.minimum(rays[:, 2], -0.02), 1e3)
    x, y = camera.origin[0] + reach * rays[:, 0], camera.origin[1] + reach * rays[:, 1]
    half_x, half_y = 0.5 * shape.length - 0.30, shape.half_width - 0.12

    def outside(x, y, grow):
        return np.hypot(np.maximum(np.abs(x) - half_x + grow, 0), np.maximum(np.abs(y) - half_y + grow, 0))

    under = 1 - smoothstep(outside(x, y, 0.15), 0.0, 0.42)
    around = np.exp(-outside(x, y, 0.0) / 0.5)
    toward = scene.light.sun_to @ light_frame(f.yaw_deg)
    shift = -0.55 * f.roof_height * toward[:2] / max(toward[2], 0.3)
    cast = 1 - smoothstep(outside(x - shift[0], y - shift[1], 0.1), 0.0, 0.55)
    sun = min(0.55, 0.5 * float(scene.light.sun_rgb.mean()))
    light = (1 - 0.90 * scene.shadow * under) * (1 - 0.35 * around) * (1 - sun * cast)
    return np.where(below, light, 1.0).reshape(height, width).astype(np.float32)


def to_uint8(picture: np.ndarray, seed: int) -> np.ndarray:
    """Linear (H, W, 3) → uint8 sRGB with slight sensor noise."""
    rng = np.random.default_rng([seed, 2])
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    display = np.clip(picture, 0, 1) ** (1 / 2.2)
    display += 0.30 * (display * display * (3 - 2 * display) - display)  # contrast like a photo's
    return np.clip(255 * display + 1.2 * noise + 0.5, 0, 255).astype(np.uint8)
