"""Renders repeat, are antialiased, place the car correctly, and have a backdrop independent of the car."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from datasets.procedural.backdrop import draw_scene
from datasets.procedural.body import build_mesh, factors_to_shape
from datasets.procedural.camera import Camera, aim_camera, fill_triangles
from datasets.procedural.car import render_car
from datasets.procedural.factors import Kind, draw_factors
from datasets.procedural.render import mesh_resolution, render, render_with_mask, samples_per_side
from datasets.procedural.wheels import wheel_places


def car(seed: int, kind: Kind = "ordinary", **changed):
    return replace(draw_factors(kind, np.random.default_rng(seed)), **changed)


def sha(picture: np.ndarray) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def test_same_arguments_give_the_same_bytes():
    for size in (32, 64, 128):
        first, again = render(car(1), size, size, 5), render(car(1), size, size, 5)
        assert first.dtype == np.uint8 and first.shape == (size, size, 3)
        assert sha(first) == sha(again)
        assert sha(first) != sha(render(car(1), size, size, 6)) and sha(first) != sha(render(car(2), size, size, 5))


@pytest.mark.parametrize("height,width", [(32, 32), (64, 64), (128, 128), (128, 224), (96, 64), (50, 131)])
def test_the_car_fills_the_framed_part_of_any_picture(height, width):
    for seed in range(6):
        for kind in ("ordinary", "concept"):
            factors = car(seed, kind)
            picture, mask = render_with_mask(factors, height, width, seed)
            assert picture.shape == (height, width, 3) and mask.shape == (height, width) and mask.dtype == bool
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            across = (columns[-1] - columns[0] + 1) / width
            assert across < factors.framing + 3 / width and rows[-1] - rows[0] + 1 < 0.97 * height
            if height >= 0.6 * width:  # the width limits
                assert across > factors.framing - 3 / width
                assert 0.10 < mask.mean() * max(1, height / width) < 0.60
            assert rows[0] > 0 and rows[-1] < height - 1 and columns[0] > 0 and columns[-1] < width - 1


def test_nose_is_on_the_left():
    """The foremost point of the car is seen at the left edge and the rearmost at the right."""
    factors = car(3, yaw_deg=80.0)
    shape = factors_to_shape(factors)
    mesh = build_mesh(factors, shape)
    camera = aim_camera(mesh.points, 80.0, 5.0, 8.0, 0.9, 128, 128)
    nose, tail = mesh.points[mesh.points[:, 0].argmax()], mesh.points[mesh.points[:, 0].argmin()]
    seen = camera.project(np.stack([nose, tail]))
    assert seen[0, 0] < 20 < 108 < seen[1, 0]


def test_futurism_lowers_the_silhouette():
    flatter = 0
    for seed in range(8):
        sides = []
        for futurism in (0.0, 0.5, 1.0):
            drawn = draw_factors("ordinary", np.random.default_rng(seed), (futurism, futurism))
            mask = render_with_mask(drawn, 96, 96, 1)[1]
            sides.append(np.ptp(np.flatnonzero(mask.any(1))) / np.ptp(np.flatnonzero(mask.any(0))))
        flatter += sides[0] > sides[1] > sides[2]
    assert flatter >= 7


def test_backdrop_depends_on_the_seed_alone():
    for seed in range(14):
        pictures = [render(car(1), 64, 64, seed), render(car(2, "concept", pitch_deg=13.0, yaw_deg=40.0), 64, 64, seed)]
        assert np.array_equal(pictures[0][:9], pictures[1][:9])
        corner = np.abs(pictures[0][-3:, :3].astype(int) - pictures[1][-3:, :3])
        assert corner.max() <= 12  # a trace of shadow or of the floor's mirror image at most
        assert sha(draw_scene(64, 64, seed).picture) == sha(draw_scene(64, 64, seed).picture)
    assert len({sha(draw_scene(32, 32, seed).picture) for seed in range(40)}) == 40


def test_backdrops_are_in_range_and_of_several_kinds():
    scenes = [draw_scene(48, 64, seed) for seed in range(60)]
    for scene in scenes:
        assert scene.picture.dtype == np.float32 and scene.picture.shape == (48, 64, 3)
        assert scene.picture.min() >= 0 and scene.picture.max() < 1.6 and np.isfinite(scene.picture).all()
    means = np.array([scene.picture.mean() for scene in scenes])
    assert means.std() > 0.05 and {scene.gloss > 0 for scene in scenes} == {True, False}


def test_edges_are_antialiased():
    factors = car(4)
    shape = factors_to_shape(factors)
    mesh = build_mesh(factors, shape)
    camera = aim_camera(mesh.points, factors.yaw_deg, factors.pitch_deg, factors.distance, 0.9, 64, 64)
    light = draw_scene(64, 64, 0).light
    alpha = render_car(factors, shape, mesh, camera, light, 64, 64, samples_per_side(64, 64))[..., 3]
    solid = alpha == 1
    edge = solid & ~(np.roll(solid, 1, 0) & np.roll(solid, -1, 0) & np.roll(solid, 1, 1) & np.roll(solid, -1, 1))
    partial = (alpha > 0) & (alpha < 1)
    assert partial.sum() > 0.5 * edge.sum() > 20
    assert len(np.unique(alpha)) >= 5


def test_no_holes_inside_the_car():
    for seed in range(6):
        mask = render_with_mask(car(seed, "concept" if seed % 2 else "ordinary"), 128, 128, 0)[1]
        middle = mask[:, 40:88]
        runs = np.abs(np.diff(middle.astype(int), axis=0)).sum(0)
        assert (runs <= 4).all()  # one stretch of car, or two where the ground shows beneath the sill


def test_filling_covers_each_pixel_of_a_square_once_and_nearest_wins():
    near = np.array([[2, 2, 1.0], [2, 8, 1.0], [8, 8, 1.0], [8, 2, 1.0]], np.float32)
    far = near + np.array([3, 0, 4.0], np.float32)
    # seen with rows downwards, (top left, top right, bottom right) faces the viewer
    faces = np.array([[0, 3, 2], [0, 2, 1], [4, 7, 6], [4, 6, 5]])
    pixels, corners, weights = fill_triangles(np.concatenate([near, far]), faces, 12, 12)
    assert len(pixels) == len(set(pixels.tolist())) == 6 * 9
    inside = np.isin(pixels % 12, range(2, 8))
    assert (corners[inside] < 4).all() and (corners[~inside] >= 4).all()
    assert np.allclose(weights.sum(1), 1, atol=1e-5) and weights.min() > -0.02
    back, _, _ = fill_triangles(np.concatenate([near, far]), faces[:, ::-1], 12, 12)
    assert len(back) == 0


def test_rays_go_through_the_points_they_show():
    camera = Camera(np.array([9, 3, 1.5], np.float32), np.eye(3, dtype=np.float32)[[1, 2, 0]] * -1, 50.0, (32.0, 30.0))
    points = np.array([[0, 1, 0.5], [1, -1, 1.0], [-2, 0.3, 0.2]], np.float32)
    seen = camera.project(points)
    rays = camera.rays(seen[:, 0], seen[:, 1])
    assert np.allclose(camera.origin + rays * seen[:, 2:], points, atol=1e-4)


def test_work_is_bounded():
    """Counts samples and triangles, not seconds."""
    assert [samples_per_side(size, size) for size in (32, 64, 128)] == [3, 3, 2]
    for size, most in ((32, 2800), (64, 4300), (128, 8000)):
        factors = car(0)
        mesh = build_mesh(factors, factors_to_shape(factors), *mesh_resolution(size * samples_per_side(size, size)))
        assert len(mesh.triangles) <= most


def test_near_wheels_show_rims_and_tyres_in_their_arches():
    for seed in range(6):
        factors = car(seed, "concept" if seed % 2 else "ordinary", yaw_deg=65.0)
        shape = factors_to_shape(factors)
        mesh = build_mesh(factors, shape)
        camera = aim_camera(mesh.points, 65.0, factors.pitch_deg, factors.distance, 0.9, 128, 128)
        drawn = render_car(factors, shape, mesh, camera, draw_scene(128, 128, 2).light, 128, 128, 1)[..., :3].mean(-1)
        turns = np.linspace(0, 2 * np.pi, 40)
        for x, y, _ in wheel_places(factors, shape)[2:]:
            brightness = []
            for r in (0.4 * shape.wheel_radius, 0.95 * shape.wheel_radius):
                ring = np.stack([x + r * np.cos(turns), 0 * turns + y, shape.wheel_radius + r * np.sin(turns)], 1)
                columns, rows = camera.project(ring.astype(np.float32))[:, :2].astype(int).T
                brightness.append(drawn[rows, columns])
            rim, tyre = brightness
            assert rim.max() > 0.10 and np.median(tyre) < 0.5 * rim.max()
            assert np.median(tyre) > 0.008  # rubber in the light, not the arch's inside
