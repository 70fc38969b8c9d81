"""Drawn factors keep to their ranges, and ordinary and concept cars differ in shape alone."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from datasets.procedural.body import build_mesh, factors_to_shape
from datasets.procedural.factors import FACTOR_NAMES, FUTURISM_RANGES, RANGES, draw_factors


def draw(seed: int, futurism: float):
    return draw_factors("ordinary", np.random.default_rng(seed), (futurism, futurism))


def test_ranges_describe_every_factor():
    assert set(RANGES) == set(FACTOR_NAMES)
    assert all(low < high and normalise for low, high, normalise in RANGES.values())


@pytest.mark.parametrize("kind", ["ordinary", "concept"])
def test_drawn_factors_keep_to_their_ranges(kind):
    drawn = [asdict(draw_factors(kind, np.random.default_rng(seed))) for seed in range(300)]
    for name, (low, high, _) in RANGES.items():
        values = [car[name] for car in drawn]
        assert all(type(value) is float for value in values)
        assert low <= min(values) and max(values) <= high, name
    low, high = FUTURISM_RANGES[kind]
    futurism = [car["futurism"] for car in drawn]
    assert low <= min(futurism) < low + 0.02 and high - 0.02 < max(futurism) <= high
    assert abs(np.mean(futurism) - (low + high) / 2) < 0.02


def test_few_draws_are_clipped_to_a_range():
    """Clipping would distort the distribution."""
    for kind in ("ordinary", "concept"):
        drawn = [asdict(draw_factors(kind, np.random.default_rng(seed))) for seed in range(300)]
        for name, (low, high, _) in RANGES.items():
            assert np.mean([car[name] in (low, high) for car in drawn]) < 0.03, (kind, name)


def test_view_and_paint_do_not_depend_on_the_kind():
    same = ("yaw_deg", "pitch_deg", "distance", "framing", "spokes", "paint_hue", "paint_saturation", "paint_value")
    for seed in range(50):
        today = draw_factors("ordinary", np.random.default_rng(seed))
        show = draw_factors("concept", np.random.default_rng(seed))
        assert all(getattr(today, name) == getattr(show, name) for name in same)
        assert today.futurism < show.futurism


def test_futurism_moves_the_visible_traits_together():
    steps = np.linspace(0, 1, 9)
    for seed in range(12):
        cars = [draw(seed, float(step)) for step in steps]
        shapes = [factors_to_shape(car) for car in cars]
        meshes = [build_mesh(car, shape, 40, 19) for car, shape in zip(cars, shapes, strict=True)]
        falling = {
            "roof": [mesh.points[:, 2].max() for mesh in meshes],
            "nose": [shape.nose_top for shape in shapes],
            "sill": [car.clearance for car in cars],
            "lamps": [car.lights for car in cars],
            "bonnet": [car.bonnet for car in cars],
            "windscreen": [car.windscreen_deg for car in cars],
        }
        rising = {
            "wheels": [shape.wheel_radius for shape in shapes],
            "width": [np.ptp(mesh.points[:, 1]) for mesh in meshes],
            "wheelbase": [shape.wheel_s[1] - shape.wheel_s[0] for shape in shapes],
        }
        for name, values in falling.items():
            assert np.all(np.diff(values) < 1e-6) and values[-1] < values[0], (seed, name, values)
        for name, values in rising.items():
            assert np.all(np.diff(values) > -1e-6) and values[-1] > values[0], (seed, name, values)


@pytest.mark.parametrize("kind", ["ordinary", "concept"])
def test_the_mesh_has_the_factors_size(kind):
    for seed in range(20):
        car = draw_factors(kind, np.random.default_rng(seed))
        shape = factors_to_shape(car)
        mesh = build_mesh(car, shape)
        x, y, z = mesh.points.T
        assert np.isfinite(mesh.points).all()
        assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
        assert abs(np.ptp(y) - car.width) < 0.10 and abs(z.max() - car.roof_height) < 0.07
        assert abs(np.ptp(x) - shape.length) < 0.30 and z.min() > 0.5 * car.clearance
        # normals point outwards on the left flank, on the right one and on the roof
        assert mesh.normals[y > 0.45 * car.width, 1].mean() > 0.5 > -0.5 > mesh.normals[y < -0.45 * car.width, 1].mean()
        assert mesh.normals[z > 0.97 * z.max(), 2].mean() > 0.7


def test_wings_clear_the_wheels():
    for seed in range(40):
        car = draw_factors("concept", np.random.default_rng(seed))
        shape = factors_to_shape(replace(car, futurism=1.0))
        for wheel in shape.wheel_s:
            assert np.interp(wheel, shape.profile_s, shape.top) > 2 * shape.wheel_radius
