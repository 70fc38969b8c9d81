"""Figures by brand: on scores and features whose answers are known."""

import numpy as np
import pytest

from harness.metrics.class_figures import class_rows, copy_shares, hit_rate, hits_by_class, kid_by_class, spread
from harness.metrics.distances import kid


def test_hits_count_the_label_among_the_highest():
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [2, 3, 1], [9, 8, 7]])
    labels = np.array([0, 0, 0, 1])
    assert [hit_rate(scores, labels, k) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]
    found = hits_by_class(scores, labels, 3)
    assert found[:2].tolist() == [pytest.approx(1 / 3), 0.0] and np.isnan(found[2])


def test_spread_is_the_mean_distance_of_pairs():
    assert spread(np.array([[0.0, 0], [3, 4], [0, 0]])) == pytest.approx(10 / 3)
    assert spread(np.zeros((1, 2))) is None


def test_copies_are_nearer_to_training_than_nearly_all_real_pictures_are():
    rng = np.random.default_rng(0)
    train, held_out, fresh = rng.normal(size=(3, 300, 6))
    near, limit = copy_shares(np.concatenate([train[:50] + 1e-3, fresh]), held_out, train)
    assert near[:50].all() and near[50:].mean() < 0.05 and limit > 0


def test_brands_with_few_held_out_pictures_are_pooled():
    rng = np.random.default_rng(1)
    real_labels = np.repeat([0, 1, 2, 3], [40, 25, 6, 3])
    real, fake_labels = rng.normal(size=(74, 4)), np.repeat(np.arange(4), 30)
    fake = rng.normal(size=(120, 4)) + fake_labels[:, None]
    own, together, pooled = kid_by_class(fake, fake_labels, real, real_labels, 4)
    assert pooled == [2, 3] and own[2] is None and own[3] is None
    assert own[1] == pytest.approx(kid(fake[30:60], real[40:65]))
    assert together == pytest.approx(kid(fake[60:], real[65:]))
    assert kid_by_class(fake[:60], fake_labels[:60], real[:65], real_labels[:65], 2)[1:] == (None, [])


def test_rows_tell_a_generator_that_ignores_the_brand():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 40)
    features = rng.normal(size=(80, 3)) + 4 * labels[:, None]
    real, train = (rng.normal(size=(80, 3)) + 4 * labels[:, None] for _ in range(2))

    def rows(seen: np.ndarray) -> tuple:
        scores = np.stack([-seen[:, 0], seen[:, 0] - 4], 1)
        return class_rows(["a", "b"], scores, labels, seen, (real, labels), train, np.array([1.0, np.nan]))

    steered, whole = rows(features)
    assert whole["top1"] > 0.95 and whole["top5"] == 1.0 and abs(whole["diversity_ratio"] - 1) < 0.2
    assert [row["real_top1"] for row in steered] == [1.0, None] and steered[0]["kid"] < 1
    ignored, whole = rows(features[rng.permutation(80)])
    assert 0.35 < whole["top1"] < 0.65 and ignored[1]["kid"] > 5 * abs(steered[1]["kid"])
