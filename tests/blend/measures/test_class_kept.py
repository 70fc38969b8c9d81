"""Brands from evaluation and inversion to the dial and the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from blend.designs.commands import measure_command
from blend.designs.design_recipe import text_to_recipe
from blend.designs.export import design_document, document_to_picture, draw_command
from blend.designs.session import open_session
from blend.encoder.train import train_encoder
from blend.measures.class_kept import kept_along
from blend.report.evaluation import brand_kept
from blend.report.report import make_report
from harness.errors import UserError
from harness.metrics import class_evaluate, class_net, classifier
from harness.metrics.classifier import Classifier
from harness.metrics.evaluate import evaluate_run, evaluation_to_text
from harness.storage.rundir import RunDir
from tests.blend.tiny_blend import CLASS_NAMES, CONDITIONAL, make_tiny_runs

NAMES = ["red", "green", "blue"]


def stand_in() -> Classifier:
    """Reads the brand from the strongest colour."""
    return Classifier(
        "pixels", NAMES, lambda p: p.reshape(len(p), -1, 3).mean(1), "0" * 64, 0.9, 1.0, np.array([1.0, 1, 0.7]), 30
    )


def coloured(brand: int) -> np.ndarray:
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[..., brand] = 200
    return picture


def test_kept_is_the_share_classified_as_requested():
    asked = np.array([0, 0, 2])
    shown = [[0, 0], [0, 1], [1, 1]]  # brands of the designs at two intensities
    sweep = np.stack([np.stack([coloured(b) for b in row]) for row in shown])
    parents = np.stack([coloured(b) for b in (0, 2, 2)])
    found = kept_along(stand_in(), sweep, parents, asked, [0.0, 1.0])
    assert found["kept"] == [pytest.approx(2 / 3, abs=1e-3), pytest.approx(1 / 3, abs=1e-3)]
    assert found["kept_mean"] == pytest.approx(0.5) and found["parent"] == pytest.approx(2 / 3)
    assert found["same_as_ordinary"] == [1.0, pytest.approx(2 / 3, abs=1e-3)]
    assert found["first_and_last_by_brand"] == {"red": [1.0, 0.5], "blue": [0.0, 0.0]}
    assert found["real_accuracy"] == 0.9 and found["chance"] == pytest.approx(1 / 3)
    chart = brand_kept({"blend": {"brand": found}})
    assert chart is not None and (chart["first"], chart["last"]) == tuple(found["kept"]) and "<svg" in chart["svg"]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"blend": 3},
        {"blend": {"brand": {"left_out": "why"}}},
        {"blend": {"brand": {"kept": [1], "intensity": [0]}}},
    ],
)
def test_without_figures_there_is_no_chart(odd):
    assert brand_kept(odd) is None


def test_a_conditional_run_goes_all_the_way(tmp_path, monkeypatch, quick):
    monkeypatch.setattr(class_net, "MIN_UPDATES", 10)
    monkeypatch.setattr(class_net, "EPOCHS", 1)
    config = make_tiny_runs(
        tmp_path, **CONDITIONAL, evaluate__brand_count=5, evaluate__brand_classifier="pixels", encoder__width=16
    )
    for run in ("tiny", "tiny-freezed"):
        evaluation = evaluate_run(run)
        brands = evaluation["brands"]
        assert [row["brand"] for row in brands["rows"]] == CLASS_NAMES and brands["rows"][0]["drawn"] == 5
        assert all(row["pooled"] and row["held_out"] == 8 for row in brands["rows"])  # fewer than it needs
        assert brands["kid_pooled"] is not None and brands["kid_mean"] is None
        assert f"brands, 5 drawn of each, read by pixels: top-1 {brands['top1']:.3f}" in evaluation_to_text(evaluation)
        assert {path.name for path in Path(f"runs/{run}/brands").iterdir()} == set(class_evaluate.GRIDS.values())
        assert json.loads(Path(f"runs/{run}/metrics.json").read_text())["evaluate"]["brands"] == brands
    assert len(list(classifier.FOLDER.iterdir())) == 2  # one for each set
    train_encoder(config)
    measure_command(config)
    kept = RunDir(Path("runs/tiny")).read_metrics()["blend"]["brand"]
    assert len(kept["kept"]) == len(kept["intensity"]) == 11 and kept["pairs"] == 3
    page = make_report(config).read_text()
    assert "Are the brands recognisable?" in page and "The brand along the dial" in page
    assert page.count('alt="Generated concept"') == 2 * 5 and page.count('alt="A real ordinary"') == 2 * 5
    # A design between two brands is exported, and drawn again from its file.
    session = open_session("tiny")
    document = design_document(
        session, text_to_recipe(f"o=seed-1&c=seed-2&l={CLASS_NAMES[0]}:0.6,{CLASS_NAMES[1]}:0.4"), None, ""
    )
    assert document["class"][:2] == pytest.approx([0.6, 0.4]) and sum(document["class"][2:]) == 0
    Path("design.json").write_text(json.dumps(document))
    assert draw_command(Path("design.json"), Path("again.png")) == [Path("again.png")]
    for spoiled in (99, None, "a", [1.0], [float("inf")] * len(CLASS_NAMES), 10**400):
        with pytest.raises(UserError, match="design: is incomplete"):
            document_to_picture(session, {**document, "class": spoiled})
    Path("runs/tiny/brands/drawn.png").unlink()
    assert make_report(config).read_text().count('alt="Generated concept"') == 5


def test_copies_are_left_out_with_training_pictures(tmp_path, monkeypatch, quick):
    monkeypatch.setattr(class_net, "MIN_UPDATES", 10)
    monkeypatch.setattr(class_net, "EPOCHS", 1)
    config = make_tiny_runs(tmp_path, **CONDITIONAL, data__valid_fraction=0, evaluate__brand_count=5)
    evaluation = evaluate_run("tiny")
    brands, text = evaluation["brands"], evaluation_to_text(evaluation)
    assert (evaluation["split"], evaluation["real_count"], brands["real_held_out"]) == ("train", 2, 2)
    assert evaluation["measured_on"] == "a seeded sample of the training pictures: 2 of the 40 of cars"
    assert evaluation["measured_on"] == brands["measured_on"] in text
    assert set(brands["left_out"]) == {"copies", "copy_distance"} and "copies: left out: it needs" in text
    assert [row["copies"] for row in brands["rows"]] == [None, None] and "copies" not in brands
    page = make_report(config).read_text()
    assert "Copies are left out: it needs" in page and f"The real ones are {evaluation['measured_on']}." in page


def test_a_run_without_classes_has_no_brands(tmp_path, quick):
    config = make_tiny_runs(tmp_path, tuned=False)
    assert "brands" not in evaluate_run("tiny")
    assert "Are the brands recognisable?" not in make_report(config).read_text()
