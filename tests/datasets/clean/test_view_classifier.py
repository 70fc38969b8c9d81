"""The pretrained view classifier reaches its figures on procedural pictures, and few-shot fits improve it.

Nothing here needs a download.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from datasets.clean import view_classifier as view_classifier
from datasets.clean.few_shot import fit_few_shot
from datasets.clean.kinds import KINDS
from datasets.clean.manual_labels import VIEWS
from datasets.clean.view_classifier import (
    DEFAULT_VIEWS,
    SWAPPED,
    ViewClassifier,
    add_to_usable_logit,
    load_view_classifier,
)
from datasets.train_shipped.measure_view_classifier import drawn_messy_balance
from datasets.train_shipped.view_data import draw_training_set, draw_views
from harness.errors import UserError
from harness.features.view_features import load_view_features

SEED = 4321  # no seed that training, calibration or measuring draws from


@pytest.fixture(scope="module")
def classifier() -> ViewClassifier:
    return load_view_classifier("reader")


@pytest.fixture(scope="module")
def drawn(classifier: ViewClassifier):
    return draw_training_set(180, SEED, classifier.input_px)


@pytest.fixture(scope="module")
def features(classifier: ViewClassifier, drawn) -> np.ndarray:
    return classifier.features(drawn.inputs)


# ---- pretrained -------------------------------------------------------------------------------------------------


def test_scores_views_and_reasons_have_their_shapes(classifier: ViewClassifier, features: np.ndarray) -> None:
    predictions = classifier.predict(features)
    assert features.shape == (180, classifier.dim) and features.dtype == np.float32
    assert predictions.ok_score.shape == (180,) and predictions.ok_score.dtype == np.float32
    assert predictions.ok_score.min() >= 0 and predictions.ok_score.max() <= 1
    assert predictions.view_probs.shape == (180, len(VIEWS))
    np.testing.assert_allclose(predictions.view_probs.sum(1), 1, atol=1e-5)
    assert len(predictions.reasons) == 180 and set(predictions.reasons) <= {"view", *KINDS[1:]}
    assert 0 < classifier.threshold < 1 and len(classifier.sha256) == 64
    empty = classifier.predict(features[:0])
    assert empty.ok_score.shape == (0,) and empty.reasons == [] and empty.view_probs.shape == (0, len(VIEWS))


def test_half_precision_features_are_oned_alike(classifier: ViewClassifier, features: np.ndarray) -> None:
    whole, half = classifier.predict(features), classifier.predict(features.astype(np.float16))
    np.testing.assert_allclose(half.ok_score, whole.ok_score, atol=0.01)


def test_usable_cars_pass_and_others_do_not(classifier: ViewClassifier, drawn, features: np.ndarray) -> None:
    scores = classifier.predict(features).ok_score
    usable = (drawn.kinds == 0) & np.isin(drawn.views, [VIEWS.index(view) for view in DEFAULT_VIEWS])
    assert roc_auc_score(usable, scores) >= 0.97
    passed = scores >= classifier.threshold  # lenient, for photos
    assert passed[usable].mean() >= 0.97 and passed[~usable].mean() <= 0.3


def test_messy_files_are_classified(classifier: ViewClassifier) -> None:
    kept, dropped, _ = drawn_messy_balance(classifier, 96, SEED)
    assert 0.5 * (kept + dropped) >= 0.95


def test_reasons_name_what_is_wrong(classifier: ViewClassifier, drawn, features: np.ndarray) -> None:
    reasons = np.array(classifier.predict(features).reasons)
    wrong = drawn.kinds > 0
    named = reasons[wrong] == np.array(KINDS)[drawn.kinds[wrong]]
    assert named.mean() >= 0.7


@pytest.mark.parametrize("view", ["left", "front_right", "front", "rear", "rear_left"])
def test_views_of_renders_are_recognised(classifier: ViewClassifier, view: str) -> None:
    found = classifier.predict(classifier.features(draw_views(view, 24, SEED, classifier.input_px).inputs), None)
    assert (found.view_probs.argmax(1) == VIEWS.index(view)).mean() >= 0.85


def test_a_mirror_image_is_oned_alike_but_for_left_and_right(
    classifier: ViewClassifier, drawn, features: np.ndarray
) -> None:
    predictions, mirrored = (
        classifier.predict(features),
        classifier.predict(classifier.features(drawn.inputs[:, :, ::-1])),
    )
    np.testing.assert_allclose(mirrored.ok_score, predictions.ok_score, atol=1e-3)
    np.testing.assert_allclose(mirrored.view_probs[:, SWAPPED], predictions.view_probs, atol=1e-3)
    assert VIEWS[SWAPPED[VIEWS.index("rear_left")]] == "rear_right"


def test_the_score_depends_on_the_wanted_views(classifier: ViewClassifier) -> None:
    features = classifier.features(draw_views("front", 24, SEED, classifier.input_px).inputs)
    usual, fronts, all_views = (classifier.predict(features, views) for views in (DEFAULT_VIEWS, ("front",), None))
    assert np.median(usual.ok_score) < 0.2 < 0.7 < np.median(fronts.ok_score)
    assert (all_views.ok_score >= fronts.ok_score - 1e-6).all()
    assert usual.reasons.count("view") >= 17


def test_pictures_without_a_car_have_the_view_other(classifier: ViewClassifier, drawn, features: np.ndarray) -> None:
    predictions, logos = classifier.predict(features), drawn.kinds == KINDS.index("logo")
    found = predictions.view_probs[logos].argmax(1)
    assert logos.sum() >= 5 and (found == VIEWS.index("other")).mean() >= 0.8


def test_add_to_usable_logit_moves_a_logit_and_keeps_the_others_shares() -> None:
    kinds = np.array([[0.5, 0.1, 0.4], [0.2, 0.8, 0.0]])
    moved = add_to_usable_logit(kinds, np.array([np.log(3.0), 0.0]))
    np.testing.assert_allclose(moved, [[0.75, 0.05, 0.2], [0.2, 0.8, 0.0]], atol=1e-9)


# ---- loading ----------------------------------------------------------------------------------------------------


def test_auto_falls_back_to_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier) -> None:
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert load_view_classifier("auto").sha256 == classifier.sha256
    (tmp_path / "mobilenet_v2_1.0_224_imagenet_folded.pt").write_bytes(b"damaged")
    assert load_view_classifier("auto").name == "reader"


def test_unknown_and_untrained_features_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="clean.features: found 'vgg', allowed auto, reader, mobilenet_v2"):
        load_view_classifier("vgg")
    monkeypatch.setattr(view_classifier, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match="missing; try `python -m datasets sorter train --features reader`"):
        load_view_classifier("reader")


def test_heads_for_other_weights_are_refused() -> None:
    featurizer = replace(load_view_features("reader"), sha256="0" * 64)
    with pytest.raises(UserError, match="found heads for other weights than reader's on this machine"):
        view_classifier.open_view_classifier(featurizer)


# ---- few-shot ---------------------------------------------------------------------------------------------------


def test_few_labels_teach_a_new_criterion(classifier: ViewClassifier, drawn, features: np.ndarray) -> None:
    """Only cars before a light background are wanted, which pretraining knows nothing about."""
    light = drawn.inputs[:, :10].mean((1, 2, 3)) > 140
    ok = light.astype(np.int8)
    unknown = np.full(180, -1, np.int8)
    fitted = classifier.fit_labels(features[:120], ok[:120], unknown[:120])

    def gap(one: ViewClassifier) -> float:
        score = one.predict(features[120:], None).ok_score
        return float(score[light[120:]].mean() - score[~light[120:]].mean())

    assert gap(fitted) > gap(classifier) + 0.1
    np.testing.assert_array_equal(fitted.predict(features).view_probs.argmax(1) >= 0, True)
    assert fitted.sha256 != classifier.sha256 and 0 < fitted.threshold < 1


def test_labelled_views_also_teach_their_mirror_images(classifier: ViewClassifier) -> None:
    """Labels for one side change predictions for the other; the labels are wrong on purpose."""
    parts = [draw_views(view, 16, SEED + 1, classifier.input_px) for view in ("front_left", "rear_right")]
    features = np.concatenate([classifier.features(part.inputs) for part in parts])
    views = np.repeat([VIEWS.index("rear_right"), VIEWS.index("front_left")], 16).astype(np.int8)
    fitted = classifier.fit_labels(features, np.full(32, -1, np.int8), views)
    fresh = classifier.features(draw_views("front_right", 16, SEED + 2, classifier.input_px).inputs)
    rear_left = VIEWS.index("rear_left")
    before, after = (one.predict(fresh, None).view_probs[:, rear_left].mean() for one in (classifier, fitted))
    assert after > before + 0.3


def test_fits_repeat_and_start_from_pretrained_heads(classifier: ViewClassifier, drawn, features: np.ndarray) -> None:
    ok = (drawn.kinds == 0).astype(np.int8)
    first, second = (classifier.fit_labels(features, ok, drawn.views.astype(np.int8)) for _ in range(2))
    again = first.fit_labels(features, ok, drawn.views.astype(np.int8))
    for other in (second, again):
        assert other.sha256 == first.sha256 and other.threshold == first.threshold
        np.testing.assert_array_equal(other.predict(features).ok_score, first.predict(features).ok_score)


def test_too_few_labels_change_nothing(classifier: ViewClassifier, features: np.ndarray) -> None:
    ok, views = np.full(180, -1, np.int8), np.full(180, -1, np.int8)
    ok[:5], ok[5:8], views[:4] = 1, 0, 2
    fitted = classifier.fit_labels(features, ok, views)
    np.testing.assert_array_equal(fitted.predict(features).ok_score, classifier.predict(features).ok_score)
    np.testing.assert_array_equal(fitted.predict(features).view_probs, classifier.predict(features).view_probs)


def test_two_labelled_views_are_a_binary_choice() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(-1, 0.3, (10, 6)), rng.normal(1, 0.3, (10, 6))]).astype(np.float32)
    views = np.repeat([4, 5], 10).astype(np.int8)  # front and rear are their own mirror images
    few_shot = fit_few_shot(rows, np.full(20, -1), rows, rows, views, SWAPPED)
    assert few_shot.ok is None and few_shot.view is not None and few_shot.classes.tolist() == [4, 5]
    assert (few_shot.view(rows).argmax(1) == views - 4).all() and 0 < few_shot.trust[4] < 1 and few_shot.trust[0] == 0
