"""One picture of one car: mesh → pixels → materials → light, on a backdrop with a shadow."""

import numpy as np

from datasets.procedural.backdrop import Scene, draw_scene
from datasets.procedural.body import Mesh, Shape, build_mesh, factors_to_shape, ramp
from datasets.procedural.camera import Camera, aim_camera, fill_triangles
from datasets.procedural.factors import Factors
from datasets.procedural.light import develop, shade, turn_light
from datasets.procedural.surface import hsv_to_linear, make_patch
from datasets.procedural.wheels import hit_mirror, hit_wheel, wheel_material, wheel_places


def render(factors: Factors, height: int, width: int, seed: int) -> np.ndarray:
    """uint8 (H, W, 3) RGB. `seed` drives backdrop, light and noise only."""
    return render_with_mask(factors, height, width, seed)[0]


def render_with_mask(factors: Factors, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 (H, W, 3), and where the car is, bool (H, W)."""
    scene = draw_scene(height, width, seed)
    colour, alpha, camera = render_car(factors, scene, height, width)
    picture = scene.picture * ground_light(factors, camera, scene, height, width)[..., None]
    picture = colour + picture * (1 - alpha[..., None])
    return finish(picture, seed), alpha > 0.5


def samples_per_side(height: int, width: int) -> int:
    """Each pixel is the mean of this number squared of samples."""
    size = max(height, width)
    return 2 if size > 96 else 3 if size > 48 else 4


def render_car(f: Factors, scene: Scene, height: int, width: int, centre=(0.5, 0.55)):
    """The car alone: premultiplied linear RGB (H, W, 3), alpha (H, W) and the camera (in pixels of this size)."""
    samples = samples_per_side(height, width)
    h, w = height * samples, width * samples
    shape = factors_to_shape(f)
    fine = max(h, w) > 160
    mesh = build_mesh(f, shape, 56 if fine else 40, 25 if fine else 19)
    outline = np.concatenate([mesh.points, _ground_points(f, shape)])
    camera = aim_camera(outline, f.yaw_deg, f.pitch_deg, f.distance, f.framing, h, w, centre)
    buffer = np.zeros((h * w, 4), np.float32)
    depth = np.full(h * w, np.inf, np.float32)
    _draw_body(f, shape, mesh, camera, scene, buffer, depth, h, w)
    _draw_solids(f, shape, camera, scene, buffer, depth, h, w)
    small = buffer.reshape(height, samples, width, samples, 4).mean((1, 3))
    at_size = Camera(camera.origin, camera.axes, camera.focal_px / samples,
                     (camera.centre_px[0] / samples, camera.centre_px[1] / samples))
    return small[..., :3], small[..., 3], at_size


def _ground_points(f: Factors, shape: Shape) -> np.ndarray:
    return np.array([[0.5 * shape.length - s, side * shape.half_width, 0] for s in shape.wheel_s for side in (-1, 1)], np.float32)


def _views(camera: Camera, points: np.ndarray) -> np.ndarray:
    views = points - camera.origin
    return views / np.sqrt((views**2).sum(1, keepdims=True))


def _draw_body(f, shape: Shape, mesh: Mesh, camera: Camera, scene: Scene, buffer, depth, h: int, w: int) -> None:
    seen = camera.project(mesh.points)
    pixels, corners, weights = fill_triangles(seen, mesh.triangles, h, w)
    packed = np.concatenate([mesh.points, mesh.normals, mesh.params, seen[:, 2:]], 1)
    mixed = sum(packed[corners[:, i]] * weights[:, i : i + 1] for i in range(3))
    points, normals, params = mixed[:, :3], mixed[:, 3:6], mixed[:, 6:8]
    normals /= np.sqrt((normals**2).sum(1, keepdims=True))
    patch = make_patch(f, shape, points, normals, params, f.distance / camera.focal_px)
    open_sky = 0.45 + 0.55 * ramp(points[:, 2], 0.5 * f.clearance, 0.55)
    flake = 0.5 if f.paint_saturation > 0.3 or f.paint_value < 0.8 else 0.1
    colour = shade(scene.light, turn_light(scene.light, f.yaw_deg), patch.normals, _views(camera, points),
                   patch.albedo, patch.mirror, open_sky, flake)
    colour = develop(colour + 1.3 * patch.glow)
    colour[patch.hollow] = 0.006
    buffer[pixels, :3], buffer[pixels, 3] = colour, 1.0
    depth[pixels] = mixed[:, 8] + 0.5 * patch.hollow


def _draw_solids(f, shape: Shape, camera: Camera, scene: Scene, buffer, depth, h: int, w: int) -> None:
    frame = turn_light(scene.light, f.yaw_deg)
    metres_per_px = f.distance / camera.focal_px

    def put(pixels, rays, distance, albedo, mirror, normals, glow, hidden):
        nearer = distance < depth[pixels]
        pixels, rays = pixels[nearer], rays[nearer]
        views = rays / np.sqrt((rays**2).sum(1, keepdims=True))
        colour = shade(scene.light, frame, normals[nearer], views, albedo[nearer], mirror[nearer], hidden[nearer])
        buffer[pixels, :3] = develop(colour + glow[nearer][:, None])
        buffer[pixels, 3], depth[pixels] = 1.0, distance[nearer]

    for number, place in enumerate(wheel_places(f, shape)):
        pixels, rays, distance, offset, on_face = hit_wheel(camera, place, shape.wheel_radius, h, w)
        if len(pixels):
            albedo, mirror, normals, glow = wheel_material(f, offset, on_face, place[2], shape.wheel_radius, 1.7 * number, metres_per_px)
            hidden = 0.25 + 0.75 * (1 - ramp(offset[:, 1], -0.2 * shape.wheel_radius, shape.wheel_radius)) * on_face
            put(pixels, rays, distance, albedo, mirror, normals, glow, hidden)
    for side in (-1, 1):
        hit = hit_mirror(f, shape, camera, side, h, w)
        if hit is not None and len(hit[0]):
            pixels, rays, distance, normals = hit
            n = len(pixels)
            paint = np.broadcast_to(hsv_to_linear(f.paint_hue, f.paint_saturation, f.paint_value), (n, 3))
            put(pixels, rays, distance, paint, np.full(n, 0.055, np.float32), normals, np.zeros(n, np.float32), np.full(n, 0.9, np.float32))


def ground_light(f: Factors, camera: Camera, scene: Scene, height: int, width: int) -> np.ndarray:
    """How much light reaches the ground in each pixel: float32 (H, W), 1 = all of it."""
    shape = factors_to_shape(f)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    rays = camera.rays(columns.ravel(), rows.ravel())
    below = rays[:, 2] < -0.02
    reach = np.where(below, -camera.origin[2] / np.minimum(rays[:, 2], -0.02), 1e3)
    x, y = camera.origin[0] + reach * rays[:, 0], camera.origin[1] + reach * rays[:, 1]
    half_x, half_y = 0.5 * shape.length - 0.30, shape.half_width - 0.12

    def outside(x, y, grow):
        return np.hypot(np.maximum(np.abs(x) - half_x + grow, 0), np.maximum(np.abs(y) - half_y + grow, 0))

    under = 1 - ramp(outside(x, y, 0.15), 0.0, 0.42)
    around = np.exp(-outside(x, y, 0.0) / 0.5)
    toward = scene.light.sun_to @ turn_light(scene.light, f.yaw_deg)
    shift = -0.55 * f.roof_height * toward[:2] / max(toward[2], 0.3)
    cast = 1 - ramp(outside(x - shift[0], y - shift[1], 0.1), 0.0, 0.55)
    sun = min(0.55, 0.5 * float(scene.light.sun_rgb.mean()))
    light = (1 - 0.90 * scene.shadow * under) * (1 - 0.35 * around) * (1 - sun * cast)
    return np.where(below, light, 1.0).reshape(height, width).astype(np.float32)


def finish(picture: np.ndarray, seed: int) -> np.ndarray:
    """Linear (H, W, 3) → uint8 sRGB with a trace of sensor noise."""
    rng = np.random.default_rng([seed, 2])
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    display = np.clip(picture, 0, 1) ** (1 / 2.2)
    return np.clip(255 * display + 1.2 * noise + 0.5, 0, 255).astype(np.uint8)
