"""Identity is 100 for the same car whatever its futurism, 0 for a different one, and linear in between."""

import numpy as np
import pytest

from blend.measures.identity import fit_identity
from blend.measures.probe import TrainValid, fit_probe

DIM = 12


def kinds(shift: np.ndarray, stretch: np.ndarray, seed: int = 0) -> tuple[TrainValid, TrainValid]:
    rng = np.random.default_rng(seed)
    ordinary, concept = (
        TrainValid(*(rng.normal(size=(count, DIM)) * stretch + k * shift for count in (300, 100))) for k in (0, 1)
    )
    return ordinary, concept


SHIFT = np.linspace(2, 0, DIM)
STRETCH = np.linspace(3, 0.3, DIM)  # the probe leans on the narrow directions, the shift is along the wide ones
ORDINARY, CONCEPT = kinds(SHIFT, STRETCH)
PROBE = fit_probe(ORDINARY, CONCEPT)
IDENTITY = fit_identity(ORDINARY, CONCEPT, PROBE)


def test_the_same_picture_keeps_all_and_another_car_nothing_half_of_the_time():
    cars = ORDINARY.valid
    assert np.allclose(IDENTITY.score(cars, cars), 100)
    others = IDENTITY.score(cars, np.roll(cars, 1, axis=0))
    assert others.min() == 0 and others.max() < 90
    assert 0.3 < (others == 0).mean() < 0.7


def test_a_change_of_futurism_alone_keeps_all():
    """Along the probe's direction and along that from the mean ordinary to the mean concept picture."""
    way = CONCEPT.train.mean(0) - ORDINARY.train.mean(0)
    cosine = way @ PROBE.weights / np.linalg.norm(way) / np.linalg.norm(PROBE.weights)
    assert abs(cosine) < 0.95, "one direction would do, so this test shows nothing"
    for direction in (PROBE.weights, way):
        moved = ORDINARY.valid + 5 * direction / np.linalg.norm(direction)
        assert np.allclose(IDENTITY.score(moved, ORDINARY.valid), 100, atol=1e-6)


def test_other_changes_count_by_their_length():
    aside = np.random.default_rng(1).normal(size=DIM)
    aside -= IDENTITY.directions @ (IDENTITY.directions.T @ aside)
    aside *= IDENTITY.unlike / np.linalg.norm(aside)
    for share in (0.25, 0.5, 1.5):
        kept = IDENTITY.score(ORDINARY.valid[:3] + share * aside, ORDINARY.valid[:3])
        assert kept == pytest.approx(100 * max(0, 1 - share))
