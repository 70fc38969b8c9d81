"""The cache of real features is keyed by all they depend on, and never used when stale or damaged."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from harness.metrics import real_features
from harness.metrics.frechet import statistics_of
from harness.metrics.real_features import RealKey, load_real_features

KEY = RealKey("a" * 64, "valid", "reader", "b" * 64, "bilinear 299", 12)
FEATURES = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


class Reading:
    """Counts how often features are really read."""

    def __init__(self, features: np.ndarray = FEATURES) -> None:
        self.features, self.count = features, 0

    def __call__(self) -> np.ndarray:
        self.count += 1
        return self.features


def test_read_once_and_the_same_ever_after(tmp_path: Path) -> None:
    reading, folder = Reading(), tmp_path / "cache" / "real"
    first = load_real_features(KEY, reading, folder)
    again = load_real_features(replace(KEY), reading, folder)
    assert reading.count == 1 and len(list(folder.iterdir())) == 1
    expected = statistics_of(FEATURES)
    for side in (first, again):
        np.testing.assert_array_equal(side.features, FEATURES)
        np.testing.assert_array_equal(side.statistics.cov, expected.cov)
        np.testing.assert_array_equal(side.statistics.mean, expected.mean)
        assert side.statistics.count == 12 and side.statistics.root is not None
        np.testing.assert_allclose(side.statistics.root.T @ side.statistics.root, expected.cov, atol=1e-12)


@pytest.mark.parametrize("field", [field.name for field in fields(RealKey)])
def test_another_set_extractor_resizer_or_count_is_read_anew(tmp_path: Path, field: str) -> None:
    load_real_features(KEY, Reading(), tmp_path)
    reading = Reading(FEATURES[:7] + 1 if field == "count" else FEATURES + 1)
    other = load_real_features(replace(KEY, **{field: 7 if field == "count" else "other"}), reading, tmp_path)
    assert reading.count == 1 and other.statistics.mean == pytest.approx(statistics_of(reading.features).mean)
    reading = Reading()
    np.testing.assert_array_equal(load_real_features(KEY, reading, tmp_path).features, FEATURES)
    assert reading.count == 0


def test_another_version_of_what_is_kept_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading()
    load_real_features(KEY, reading, tmp_path)
    monkeypatch.setattr(real_features, "VERSION", real_features.VERSION + 1)
    load_real_features(KEY, reading, tmp_path)
    assert reading.count == 2


def test_what_an_earlier_version_kept_goes(tmp_path: Path) -> None:
    load_real_features(KEY, Reading(), tmp_path)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_suffix(".npz"))
    reading = Reading()
    load_real_features(KEY, reading, tmp_path)
    assert reading.count == 1 and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_takes_nothing_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "cache").touch()
    np.testing.assert_array_equal(load_real_features(KEY, Reading(), tmp_path / "cache").features, FEATURES)
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: "))
    assert str(tmp_path / "cache") in warning
