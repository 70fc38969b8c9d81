"""The view classifier's training pictures have the right labels and depend on seed and number alone."""

from collections import Counter

import numpy as np
import pytest

from datasets.clean.kinds import KINDS, MIRRORED, NO_CAR
from datasets.clean.manual_labels import VIEWS
from datasets.train_shipped.view_data import SHARES, WITH_VIEW, YAWS, draw_training_set, draw_views
from harness.features import load_reader


def test_tables_fit_together() -> None:
    assert list(SHARES) == list(KINDS) and sum(SHARES.values()) == pytest.approx(1)
    assert set(MIRRORED) == set(VIEWS) and all(MIRRORED[MIRRORED[view]] == view for view in VIEWS)
    assert {*YAWS, *(MIRRORED[view] for view in YAWS), "other"} == set(VIEWS)
    assert set(NO_CAR) | set(WITH_VIEW) < set(KINDS) and not set(NO_CAR) & set(WITH_VIEW)


def test_pictures_depend_on_seed_and_number_alone() -> None:
    drawn = draw_training_set(24, 5, 48)
    assert drawn.inputs.shape == (24, 48, 48, 3) and drawn.inputs.dtype == np.uint8
    later = draw_training_set(4, 5, 48, workers=2, first=20)
    np.testing.assert_array_equal(later.inputs, drawn.inputs[20:])
    np.testing.assert_array_equal(later.views, drawn.views[20:])
    assert (draw_training_set(4, 6, 48).inputs != drawn.inputs[:4]).any()


def test_all_kinds_occur_and_only_whole_cars_have_a_view() -> None:
    drawn = draw_training_set(90, 7, 32)
    counts = Counter(KINDS[kind] for kind in drawn.kinds)
    assert len(counts) >= 9 and 0.4 < counts["ok"] / 90 < 0.7
    seen = np.isin(drawn.kinds, [KINDS.index(kind) for kind in WITH_VIEW])
    assert (drawn.views[seen] >= 0).all() and (drawn.views[~seen] == -1).all()


def test_sides_agree_with_another_network() -> None:
    """The separately trained factor reader finds the nose on the same side."""
    reader = load_reader()
    for view, points_left in (("front_left", True), ("front_right", False), ("left", True), ("right", False)):
        nose = reader.read(draw_views(view, 16, 9, 64).inputs)["nose"]
        assert ((nose > 0.5) == points_left).mean() >= 0.7, view
