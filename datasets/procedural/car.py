"""Renders the car with an alpha channel: body, wheels and mirrors become fragments that are shaded together."""

import numpy as np

from datasets.procedural.body import Mesh, Shape, normalise, smoothstep
from datasets.procedural.camera import Camera, fill_triangles
from datasets.procedural.factors import Factors
from datasets.procedural.light import Fragments, Light, join_fragments, light_frame, shade, tone_map
from datasets.procedural.materials import hsv_to_linear
from datasets.procedural.surface import make_patch
from datasets.procedural.wheels import PLAIN, hit_mirror, hit_wheel, wheel_material, wheel_places


def render_car(
    f: Factors, shape: Shape, mesh: Mesh, camera: Camera, light: Light, height: int, width: int, samples: int
) -> np.ndarray:
    """float32 (H, W, 4): premultiplied linear RGB and alpha, the mean of `samples` squared in each pixel."""
    camera = camera.scaled(samples)
    h, w = height * samples, width * samples
    depth = np.full(h * w, np.inf, np.float32)
    buffer = np.zeros((h * w, 4), np.float32)
    layers = [_body_fragments(f, shape, mesh, camera, depth, buffer, h, w)]
    layers += _wheel_fragments(f, shape, camera, depth, h, w) + _mirror_fragments(f, shape, camera, depth, h, w)
    seen = join_fragments(layers)
    buffer[seen.pixels, :3] = tone_map(shade(light, light_frame(f.yaw_deg), seen))
    buffer[seen.pixels, 3] = 1.0
    return _average(buffer.reshape(h, w, 4), samples)


def _average(buffer: np.ndarray, samples: int) -> np.ndarray:
    """Box filter by sums of slices: NumPy's mean over short axes is many times slower."""
    if samples == 1:
        return buffer
    across = buffer[:, 0::samples].copy()
    for i in range(1, samples):
        across += buffer[:, i::samples]
    whole = across[0::samples].copy()
    for i in range(1, samples):
        whole += across[i::samples]
    return whole * np.float32(1 / samples**2)


def _body_fragments(
    f: Factors, shape: Shape, mesh: Mesh, camera: Camera, depth: np.ndarray, buffer: np.ndarray, h: int, w: int
) -> Fragments:
    seen = camera.project(mesh.points)
    pixels, corners, weights = fill_triangles(seen, mesh.triangles, h, w, camera.handed)
    packed = np.concatenate([mesh.points, mesh.normals, mesh.params, seen[:, 2:]], 1)
    mixed = packed[corners[:, 0]] * weights[:, :1]
    mixed += packed[corners[:, 1]] * weights[:, 1:2]
    mixed += packed[corners[:, 2]] * weights[:, 2:]
    patch = make_patch(f, shape, mixed[:, :3], normalise(mixed[:, 3:6]), mixed[:, 6:8], f.distance / camera.focal_px)
    depth[pixels] = mixed[:, 8] + 0.5 * patch.hollow
    buffer[pixels] = (0.006, 0.006, 0.006, 1.0)  # visible only inside the wheel arches
    kept = np.flatnonzero(~patch.hollow)
    points = patch.points[kept]
    open_sky = 0.45 + 0.55 * smoothstep(points[:, 2], 0.5 * f.clearance, 0.55)
    flake = 0.5 if f.paint_saturation > 0.3 or f.paint_value < 0.8 else 0.1
    return Fragments(
        pixels[kept],
        normalise(points - camera.origin),
        patch.normals[kept],
        patch.albedo[kept],
        patch.mirror[kept],
        1.3 * patch.glow[kept],
        open_sky,
        np.full(len(kept), flake, np.float32),
    )


def _wheel_fragments(f: Factors, shape: Shape, camera: Camera, depth: np.ndarray, h: int, w: int) -> list[Fragments]:
    layers = []
    radius = shape.wheel_radius
    for number, place in enumerate(wheel_places(f, shape)):
        pixels, rays, met, offset, on_face = hit_wheel(camera, place, radius, depth, h, w)
        if not len(pixels):
            continue
        depth[pixels] = met
        style = PLAIN if shape.brand is None else shape.brand.wheel
        metres_per_px = f.distance / camera.focal_px
        material = wheel_material(f, offset, on_face, place[2], radius, 1.7 * number, metres_per_px, style)
        albedo, mirror, normals, ring = material
        open_sky = 0.25 + 0.75 * (1 - smoothstep(offset[:, 1], -0.2 * radius, radius)) * on_face
        layers.append(
            Fragments(
                pixels,
                normalise(rays),
                normals,
                albedo,
                mirror,
                np.repeat(ring[:, None], 3, 1),
                open_sky,
                np.zeros_like(mirror),
            )
        )
    return layers


def _mirror_fragments(f: Factors, shape: Shape, camera: Camera, depth: np.ndarray, h: int, w: int) -> list[Fragments]:
    layers = []
    for side in (-1, 1):
        pixels, rays, met, normals = hit_mirror(f, shape, camera, side, depth, h, w)
        if n := len(pixels):
            depth[pixels] = met
            paint = np.tile(hsv_to_linear(f.paint_hue, f.paint_saturation, f.paint_value), (n, 1))
            plain = np.ones(n, np.float32)
            layers.append(
                Fragments(pixels, normalise(rays), normals, paint, 0.07 * plain, 0 * paint, 0.9 * plain, 0.3 * plain)
            )
    return layers
