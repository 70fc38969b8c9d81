"""Labelled photos are read and measured correctly; on real ones, if present, the classifier reaches its figures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.clean.manual_labels import VIEWS
from datasets.clean.view_classifier import ViewClassifier, load_view_classifier
from datasets.procedural.render import render
from datasets.procedural.sets import draw_picture_factors
from datasets.train_shipped.labelled_photos import (
    Labelled,
    find_copies,
    read_messy_photos,
    read_view_photos,
    sample_good_photos,
)
from datasets.train_shipped.measure_view_classifier import (
    Estimate,
    bootstrap,
    confusion,
    cross_validated_scores,
    cross_validated_views,
    few_shot_auc,
    pretrained_auc,
    view_figures,
)
from harness.errors import UserError
from harness.features.view_features import has_weights


def draw(index: int, height: int = 96, width: int = 128) -> np.ndarray:
    factors, seed = draw_picture_factors("ordinary", 31, index)
    return render(factors, height, width, seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "messy").mkdir()
    (tmp_path / "dealer").mkdir()
    for index in range(4):
        Image.fromarray(draw(index)).save(tmp_path / "messy" / f"{index}.png")
        Image.fromarray(draw(10 + index)).save(tmp_path / "dealer" / f"{index}.jpg")
    lines = ["file,verdict,label,reason", "0.png,ok,good,", "1.png,outlier,logo,", "2.png,ok,good,", "3.png,ok,good,"]
    (tmp_path / "messy" / "labels.csv").write_text("\n".join(lines))
    views = ["file,view,whole,confidence", "messy/0.png,front_left,yes,high", "messy/1.png,rear,yes,low"]
    (tmp_path / "views.csv").write_text("\n".join(views))
    return tmp_path


def test_labels_are_read_with_their_features(folder: Path) -> None:
    classifier = load_view_classifier("reader")
    messy, views = read_messy_photos(folder, classifier), read_view_photos(folder, classifier)
    assert messy.ok.tolist() == [1, 0, 1, 1] and messy.labels[1] == "logo" and (messy.views == -1).all()
    assert messy.features.shape == (4, classifier.dim) and len(set(messy.groups.tolist())) == 4
    assert [VIEWS[view] for view in views.views] == ["front_left", "rear"] and views.sure.tolist() == [True, False]
    assert sample_good_photos(folder, 2) == {"dealer": ["dealer/0.jpg", "dealer/2.jpg"]}


def test_missing_and_unsuitable_tables_are_refused(tmp_path: Path, folder: Path) -> None:
    classifier = load_view_classifier("reader")
    with pytest.raises(UserError, match="views.csv: cannot be read .*CARFORGE_PHOTOS"):
        read_view_photos(tmp_path / "nowhere", classifier)
    (folder / "views.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="found columns a, b, allowed file, view, confidence"):
        read_view_photos(folder, classifier)


def test_copies_and_mirrored_copies_are_one_group() -> None:
    first, second = draw(1, 96, 96), draw(2, 96, 96)
    smaller = np.asarray(Image.fromarray(first).resize((48, 48)).resize((96, 96)))
    groups = find_copies(np.stack([first, second, smaller, first[:, ::-1]]))
    assert groups[0] == groups[2] == groups[3] != groups[1]


def test_view_figures_by_side_exact_and_balanced() -> None:
    truth = np.array([VIEWS.index(v) for v in ("front_left", "front_left", "front_right", "rear_left", "rear_right")])
    predicted = truth.copy()
    predicted[1] = VIEWS.index("rear_right")  # still the right side of the nose
    unknown, names = np.full(5, -1), [""] * 5
    photos = Labelled(names, np.zeros((5, 1)), unknown, truth, np.ones(5, bool), names, np.arange(5))
    figures = view_figures(photos, np.eye(len(VIEWS))[predicted][None], np.arange(5))
    assert figures["nose side"].value == 1 and figures["exact"].value == pytest.approx(0.8)
    assert figures["balanced, three-quarter views"].value == pytest.approx(0.875)
    table = confusion(truth, predicted)
    assert table[2] == "| front_left | . | . | 1 | . | . | . | . | 1 | . |" and len(table) == 6


def test_an_interval_holds_the_value_and_narrows_with_more_pictures() -> None:
    few, many = (bootstrap(n, lambda rows, n=n: float((rows % 2 == 0).mean() + 0 * n)) for n in (20, 2000))
    assert few.low < few.value < few.high and many.high - many.low < 0.3 * (few.high - few.low)
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.500 (0.250 to 0.750)"


# ---- real photos ------------------------------------------------------------------------------------------------


@pytest.mark.photos
def test_the_reader_classifies_real_photos(photos: Path) -> None:
    classifier = load_view_classifier("reader")
    messy = read_messy_photos(photos, classifier)
    assert pretrained_auc(classifier, messy).value >= 0.60
    assert few_shot_auc(messy, cross_validated_scores(classifier, messy, seeds=2)[0]).value >= 0.72


@pytest.fixture
def mobilenet() -> ViewClassifier:
    if not has_weights("mobilenet_v2"):
        pytest.skip("MobileNetV2's weights are not at hand (CARFORGE_WEIGHTS)")
    return load_view_classifier("mobilenet_v2")


@pytest.mark.photos
def test_mobilenet_classifies_real_photos(photos: Path, mobilenet: ViewClassifier) -> None:
    messy = read_messy_photos(photos, mobilenet)
    assert pretrained_auc(mobilenet, messy).value >= 0.87
    assert few_shot_auc(messy, cross_validated_scores(mobilenet, messy, seeds=2)[0]).value >= 0.95


@pytest.mark.photos
@pytest.mark.slow
def test_mobilenet_recognises_views_of_real_photos(photos: Path, mobilenet: ViewClassifier) -> None:
    labelled = read_view_photos(photos, mobilenet)
    figures = view_figures(labelled, cross_validated_views(mobilenet, labelled, 0)[None], np.flatnonzero(labelled.sure))
    assert figures["nose side"].value >= 0.97 and figures["exact"].value >= 0.95
    assert figures["balanced, three-quarter views"].value >= 0.80
