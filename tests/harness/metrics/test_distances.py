"""Distances between sets of features, against plain loops and known cases."""

import numpy as np
import pytest

from harness.errors import UserError
from harness.metrics import distances
from harness.metrics.distances import kid, nearest_distances, pairwise_distances


def features(count: int, seed: int, shift: float = 0.0, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32) + np.float32(shift)


def kid_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / len(x) + 1) ** 3

    aa = np.mean([kernel(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j])
    bb = np.mean([kernel(b[i], b[j]) for i in range(len(b)) for j in range(len(b)) if i != j])
    return float(aa + bb - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def test_kid_is_the_unbiased_estimate_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK_ROWS", 7)  # several blocks, the last one short
    a, b = features(23, 0), features(17, 1, shift=0.3)
    assert kid(a, b) == pytest.approx(kid_by_loops(a, b), rel=1e-10)


def test_kid_is_zero_on_average_for_one_distribution_and_grows_with_the_shift() -> None:
    same = [kid(features(60, 2 * k), features(60, 2 * k + 1)) for k in range(60)]
    error = np.std(same) / len(same) ** 0.5
    assert abs(np.mean(same)) < 4 * error and min(same) < 0  # a biased one is never below 0
    shifted = [kid(features(200, 0), features(200, 1, shift)) for shift in (0.2, 0.4, 0.8)]
    assert 5 * error < shifted[0] < shifted[1] < shifted[2]


def test_kid_keeps_float64_precision_for_large_features() -> None:
    a, b = features(50, 0) + 1000.0, features(50, 1) + 1000.0
    assert kid(a, b) == pytest.approx(kid_by_loops(a, b), rel=1e-3)
    assert kid(a, b) == pytest.approx(kid(b, a), rel=1e-6)


def test_pairwise_distances_are_those_of_every_pair_once() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert sorted(pairwise_distances(x)) == pytest.approx([1.0, 18**0.5, 5.0])
    x = features(40, 3).astype(np.float64)
    expected = [np.linalg.norm(x[i] - x[j]) for i in range(40) for j in range(i + 1, 40)]
    np.testing.assert_allclose(pairwise_distances(x), expected, rtol=1e-9)


def test_nearest_distance_leaves_a_picture_itself_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK_ROWS", 2)
    x = np.array([[0.0], [1.0], [5.0], [5.5], [20.0]])
    assert nearest_distances(x) == pytest.approx([1.0, 1.0, 0.5, 0.5, 14.5])
    assert nearest_distances(x, np.array([[0.0], [6.0]])) == pytest.approx([0.0, 1.0, 1.0, 0.5, 14.0])


def test_copies_show_in_the_distances() -> None:
    varied = features(60, 0)
    copies = np.repeat(features(6, 1), 10, axis=0)
    assert np.median(nearest_distances(copies)) < 1e-3 < np.median(nearest_distances(varied))
    assert np.quantile(pairwise_distances(copies), 0.05) < 1e-3 < np.quantile(pairwise_distances(varied), 0.05)


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        (features(1, 0), features(5, 1), "N >= 2"),
        (features(5, 0), features(5, 1, dim=9), "one d"),
        (features(5, 0)[0], features(5, 1), r"\(N, d\)"),
        (np.full((5, 8), np.nan), features(5, 1), "5 rows with NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: np.ndarray, b: np.ndarray, word: str) -> None:
    with pytest.raises(UserError, match=word):
        kid(a, b)
