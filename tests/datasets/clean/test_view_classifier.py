"""The sorter as shipped, judged on procedural pictures, and what labels teach it. Nothing here needs a download."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from datasets.clean import view_classifier as sorter_module
from datasets.clean.few_shot import learn
from datasets.clean.kinds import KINDS
from datasets.clean.manual_labels import VIEWS
from datasets.clean.view_classifier import DEFAULT_VIEWS, SWAPPED, Sorter, heads_path, load_sorter, more_ok
from datasets.train_shipped.measure_view_classifier import drawn_messy_balance
from datasets.train_shipped.view_data import draw_for_sorting, draw_views
from harness.errors import UserError
from harness.features.view_features import load_view_features

SEED = 4321  # no seed that training, calibration or measuring draws from


@pytest.fixture(scope="module")
def sorter() -> Sorter:
    return load_sorter("reader")


@pytest.fixture(scope="module")
def drawn(sorter: Sorter):
    return draw_for_sorting(180, SEED, sorter.input_px)


@pytest.fixture(scope="module")
def features(sorter: Sorter, drawn) -> np.ndarray:
    return sorter.features(drawn.looks)


# ---- as shipped -------------------------------------------------------------------------------------------------


def test_scores_views_and_reasons_have_their_shapes(sorter: Sorter, features: np.ndarray) -> None:
    judged = sorter.judge(features)
    assert features.shape == (180, sorter.dim) and features.dtype == np.float32
    assert judged.ok_score.shape == (180,) and judged.ok_score.dtype == np.float32
    assert judged.ok_score.min() >= 0 and judged.ok_score.max() <= 1
    assert judged.view_probs.shape == (180, len(VIEWS))
    np.testing.assert_allclose(judged.view_probs.sum(1), 1, atol=1e-5)
    assert len(judged.reason) == 180 and set(judged.reason) <= {"view", *KINDS[1:]}
    assert 0 < sorter.threshold < 1 and len(sorter.sha256) == 64
    empty = sorter.judge(features[:0])
    assert empty.ok_score.shape == (0,) and empty.reason == [] and empty.view_probs.shape == (0, len(VIEWS))


def test_half_precision_features_are_judged_alike(sorter: Sorter, features: np.ndarray) -> None:
    whole, half = sorter.judge(features), sorter.judge(features.astype(np.float16))
    np.testing.assert_allclose(half.ok_score, whole.ok_score, atol=0.01)


def test_usable_cars_pass_and_others_do_not(sorter: Sorter, drawn, features: np.ndarray) -> None:
    scores = sorter.judge(features).ok_score
    usable = (drawn.kinds == 0) & np.isin(drawn.views, [VIEWS.index(view) for view in DEFAULT_VIEWS])
    assert roc_auc_score(usable, scores) >= 0.97
    passed = scores >= sorter.threshold  # which is lenient, for the sake of photos
    assert passed[usable].mean() >= 0.97 and passed[~usable].mean() <= 0.3


def test_messy_files_are_told_apart(sorter: Sorter) -> None:
    kept, dropped, _ = drawn_messy_balance(sorter, 96, SEED)
    assert 0.5 * (kept + dropped) >= 0.95


def test_reasons_name_what_is_wrong(sorter: Sorter, drawn, features: np.ndarray) -> None:
    reasons = np.array(sorter.judge(features).reason)
    wrong = drawn.kinds > 0
    named = reasons[wrong] == np.array(KINDS)[drawn.kinds[wrong]]
    assert named.mean() >= 0.7


@pytest.mark.parametrize("view", ["left", "front_right", "front", "rear", "rear_left"])
def test_views_of_renders_are_told(sorter: Sorter, view: str) -> None:
    found = sorter.judge(sorter.features(draw_views(view, 24, SEED, sorter.input_px).looks), None)
    assert (found.view_probs.argmax(1) == VIEWS.index(view)).mean() >= 0.85


def test_a_mirror_image_is_judged_alike_but_for_left_and_right(sorter: Sorter, drawn, features: np.ndarray) -> None:
    judged, mirrored = sorter.judge(features), sorter.judge(sorter.features(drawn.looks[:, :, ::-1]))
    np.testing.assert_allclose(mirrored.ok_score, judged.ok_score, atol=1e-3)
    np.testing.assert_allclose(mirrored.view_probs[:, SWAPPED], judged.view_probs, atol=1e-3)
    assert VIEWS[SWAPPED[VIEWS.index("rear_left")]] == "rear_right"


def test_the_score_is_about_the_views_that_are_wanted(sorter: Sorter) -> None:
    features = sorter.features(draw_views("front", 24, SEED, sorter.input_px).looks)
    usual, fronts, all_views = (sorter.judge(features, views) for views in (DEFAULT_VIEWS, ("front",), None))
    assert np.median(usual.ok_score) < 0.2 < 0.7 < np.median(fronts.ok_score)
    assert (all_views.ok_score >= fronts.ok_score - 1e-6).all()
    assert usual.reason.count("view") >= 17


def test_what_shows_no_car_has_no_view(sorter: Sorter, drawn, features: np.ndarray) -> None:
    judged, logos = sorter.judge(features), drawn.kinds == KINDS.index("logo")
    told = judged.view_probs[logos].argmax(1)
    assert logos.sum() >= 5 and (told == VIEWS.index("other")).mean() >= 0.8


def test_more_ok_moves_a_logit_and_keeps_the_others_shares() -> None:
    kinds = np.array([[0.5, 0.1, 0.4], [0.2, 0.8, 0.0]])
    moved = more_ok(kinds, np.array([np.log(3.0), 0.0]))
    np.testing.assert_allclose(moved, [[0.75, 0.05, 0.2], [0.2, 0.8, 0.0]], atol=1e-9)


# ---- loading ----------------------------------------------------------------------------------------------------


def test_auto_falls_back_to_what_is_always_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sorter) -> None:
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert load_sorter("auto").sha256 == sorter.sha256
    (tmp_path / "mobilenet_v2_1.0_224_imagenet_folded.pt").write_bytes(b"damaged")
    assert load_sorter("auto").name == "reader"


def test_unknown_and_untrained_features_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="clean.features: found 'vgg', allowed auto, reader, mobilenet_v2"):
        load_sorter("vgg")
    monkeypatch.setattr(sorter_module, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match="missing; try `python -m datasets sorter train --features reader`"):
        load_sorter("reader")


def test_heads_for_other_weights_are_refused() -> None:
    featurizer = replace(load_view_features("reader"), sha256="0" * 64)
    with pytest.raises(UserError, match="found heads for other weights than those of reader"):
        sorter_module.open_sorter(featurizer)


def test_shipped_heads_are_small() -> None:
    for name in ("reader", "mobilenet_v2"):
        assert heads_path(name).stat().st_size <= 300_000


# ---- taught by labels -------------------------------------------------------------------------------------------


def test_labels_teach_a_person_s_taste(sorter: Sorter, drawn, features: np.ndarray) -> None:
    """Someone wants only cars before a light ground: nothing that was learned says so."""
    light = drawn.looks[:, :10].mean((1, 2, 3)) > 140
    ok = light.astype(np.int8)
    unknown = np.full(180, -1, np.int8)
    taught = sorter.refit(features[:120], ok[:120], unknown[:120])

    def gap(judge: Sorter) -> float:
        score = judge.judge(features[120:], None).ok_score
        return float(score[light[120:]].mean() - score[~light[120:]].mean())

    assert gap(taught) > gap(sorter) + 0.1
    np.testing.assert_array_equal(taught.judge(features).view_probs.argmax(1) >= 0, True)
    assert taught.sha256 != sorter.sha256 and 0 < taught.threshold < 1


def test_labelled_views_teach_views_on_both_sides(sorter: Sorter) -> None:
    """Labels of cars whose noses point left teach those that point right; front and rear are confused on purpose."""
    parts = [draw_views(view, 16, SEED + 1, sorter.input_px) for view in ("front_left", "rear_right")]
    features = np.concatenate([sorter.features(part.looks) for part in parts])
    views = np.repeat([VIEWS.index("rear_right"), VIEWS.index("front_left")], 16).astype(np.int8)
    taught = sorter.refit(features, np.full(32, -1, np.int8), views)
    fresh = sorter.features(draw_views("front_right", 16, SEED + 2, sorter.input_px).looks)
    rear_left = VIEWS.index("rear_left")
    before, after = (judge.judge(fresh, None).view_probs[:, rear_left].mean() for judge in (sorter, taught))
    assert after > before + 0.3


def test_lessons_are_repeatable_and_start_afresh(sorter: Sorter, drawn, features: np.ndarray) -> None:
    ok = (drawn.kinds == 0).astype(np.int8)
    first, second = (sorter.refit(features, ok, drawn.views.astype(np.int8)) for _ in range(2))
    again = first.refit(features, ok, drawn.views.astype(np.int8))
    for other in (second, again):
        assert other.sha256 == first.sha256 and other.threshold == first.threshold
        np.testing.assert_array_equal(other.judge(features).ok_score, first.judge(features).ok_score)


def test_too_few_labels_change_nothing(sorter: Sorter, features: np.ndarray) -> None:
    ok, views = np.full(180, -1, np.int8), np.full(180, -1, np.int8)
    ok[:5], ok[5:8], views[:4] = 1, 0, 2
    taught = sorter.refit(features, ok, views)
    np.testing.assert_array_equal(taught.judge(features).ok_score, sorter.judge(features).ok_score)
    np.testing.assert_array_equal(taught.judge(features).view_probs, sorter.judge(features).view_probs)


def test_a_lesson_of_two_views_is_a_choice_between_them() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(-1, 0.3, (10, 6)), rng.normal(1, 0.3, (10, 6))]).astype(np.float32)
    views = np.repeat([4, 5], 10).astype(np.int8)  # front and rear are their own mirror images
    lesson = learn(rows, np.full(20, -1), rows, rows, views, SWAPPED)
    assert lesson.ok is None and lesson.view is not None and lesson.classes.tolist() == [4, 5]
    assert (lesson.view(rows).argmax(1) == views - 4).all() and 0 < lesson.trust[4] < 1 and lesson.trust[0] == 0
