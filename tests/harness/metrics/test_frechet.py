"""The Fréchet distance, against scipy's matrix root and closed forms."""

import numpy as np
import pytest
import scipy.linalg

from harness.errors import UserError
from harness.metrics.frechet import frechet_distance, frechet_name, statistics_of, trace_of_root, with_root


def features(count: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """As a network's: above 0, of very unequal variances, dimensions that go together."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((dim, dim)) * 0.7 ** (np.arange(dim) % 40)[:, None]
    return np.maximum(rng.standard_normal((count, dim)) @ mixing + 1 + shift, 0)


def sqrtm_distance(x: np.ndarray, y: np.ndarray) -> float:
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(cov_x @ cov_y))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root))


def nuclear_distance(x: np.ndarray, y: np.ndarray) -> float:
    """For singular covariances, where scipy's root loses digits: tr (A B)^1/2 is the nuclear norm of A^1/2 B^1/2."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = []
    for cov in (cov_x, cov_y):
        left, values, right = np.linalg.svd(cov)
        roots.append(left * np.sqrt(values) @ right)
    trace = np.sum(scipy.linalg.svdvals(roots[0] @ roots[1]))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y) - 2 * trace)


@pytest.mark.parametrize(("count_x", "count_y", "dim"), [(900, 700, 64), (700, 600, 256), (300, 300, 1)])
def test_as_with_scipys_matrix_root(count_x: int, count_y: int, dim: int) -> None:
    x, y = features(count_x, dim, 0), features(count_y, dim, 1, shift=0.2)
    if dim == 1:
        expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    else:
        expected = sqrtm_distance(x, y)
    a, b = statistics_of(x), statistics_of(y)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(with_root(a), b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, with_root(a)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("count_x", "count_y"), [(40, 30), (40, 700), (700, 40), (2, 2), (150, 150)])
def test_with_fewer_pictures_than_dimensions(count_x: int, count_y: int) -> None:
    x, y = features(count_x, 150, 0), features(count_y, 150, 1, shift=0.2)
    expected = nuclear_distance(x, y)
    for a in (statistics_of(x), with_root(statistics_of(x))):
        assert frechet_distance(a, statistics_of(y)) == pytest.approx(expected, rel=1e-6)
        assert frechet_distance(statistics_of(y), a) == pytest.approx(expected, rel=1e-6)


def test_the_root_is_a_root_and_no_longer_than_the_pictures() -> None:
    for count, rows in ((500, 64), (20, 20)):
        statistics = with_root(statistics_of(features(count, 64, 0)))
        assert statistics.root is not None and statistics.root.shape == (rows, 64)
        np.testing.assert_allclose(statistics.root.T @ statistics.root, statistics.cov, atol=1e-10)
        assert statistics.count == count


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(("count", "dead"), [(600, 0), (600, 90), (257, 0), (100, 0), (2, 0)])
def test_a_set_is_at_no_distance_from_itself(count: int, dead: int, rooted: bool) -> None:
    x = features(count, 256, 3)
    x[:, :dead] = 0.0  # units that never fire
    one, other = statistics_of(x), statistics_of(x[::-1])
    if rooted:
        one, other = with_root(one), with_root(other)
    whole = np.trace(one.cov)
    assert trace_of_root(one, other) == pytest.approx(whole, rel=1e-6)
    assert 0 <= frechet_distance(one, other) <= 1e-6 * whole


def test_no_digit_is_lost_to_small_variances_with_few_pictures() -> None:
    x = np.random.default_rng(0).standard_normal((60, 100)) * 10.0 ** -np.linspace(0, 9, 100)
    one = statistics_of(x)
    assert trace_of_root(one, statistics_of(x[::-1])) == pytest.approx(np.trace(one.cov), rel=1e-13)


def test_a_shift_alone_is_its_square_even_far_from_zero() -> None:
    x = features(500, 16, 0).astype(np.float32)
    far, farther = statistics_of(x + np.float32(1000)), statistics_of(x + np.float32(1003))
    assert frechet_distance(far, farther) == pytest.approx(16 * 9, rel=1e-5)
    assert frechet_distance(statistics_of(x), statistics_of(2 * x)) == pytest.approx(
        (x.astype(np.float64).mean(0) ** 2).sum() + x.astype(np.float64).var(0, ddof=1).sum(), rel=1e-5
    )


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(UserError, match="found 8 and 9 dimensions"):
        frechet_distance(statistics_of(features(20, 8, 0)), statistics_of(features(20, 9, 0)))


def test_only_the_published_network_makes_a_fid() -> None:
    names = [frechet_name(extractor) for extractor in ("inception", "inception-unverified", "reader")]
    assert names == ["fid", "fd_inception-unverified", "fd_reader"]
