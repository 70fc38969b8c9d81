"""The classifier of brands: learns what real pictures show, is kept, and refuses what it cannot learn from."""

import numpy as np
import pytest

from harness.config.experiment import load_config
from harness.errors import UserError
from harness.metrics import class_net, classifier
from harness.metrics.class_evaluate import classes_to_text
from harness.metrics.classifier import load_classifier
from tests.harness.tiny_runs import BASE, pack_pictures

NAMES = ["across", "down", "blank"]


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes across, down or none, in any colour: uint8 (N, 32, 48, 3), labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pictures = np.empty((count, 32, 48, 3), np.uint8)
    stripe = (np.arange(48) // 3) % 2
    for k, label in enumerate(labels):
        shade = [stripe[:32, None] + 0 * stripe, stripe[None] + 0 * stripe[:32, None], np.ones((32, 48))][label]
        colours = rng.integers(0, 256, (2, 3))
        pictures[k] = np.where(shade[..., None] > 0, colours[0], colours[1])
    return pictures, labels


def pack(name: str, counts=(150, 60), names=NAMES) -> classifier.Data:
    data = load_config(BASE, [f"data.set={name}", "data.img_size=[32, 48]"]).data
    for seed, (split, count) in enumerate(zip(("train", "valid"), counts, strict=True)):
        if count:
            pictures, labels = draw(count, seed)
            pack_pictures(data.hdf5_path(split), pictures, labels % len(names), names)
    return data


@pytest.fixture(autouse=True)
def few_updates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(class_net, "MIN_UPDATES", 120)
    monkeypatch.setattr(class_net, "EPOCHS", 1)
    monkeypatch.setattr(class_net, "WIDTH", 6)


@pytest.mark.parametrize("name", ["auto", "reader"])
def test_it_learns_form_and_is_kept(name, monkeypatch):
    data = pack("stripes")
    found = load_classifier([data], name)
    assert found.name == ("pixels" if name == "auto" else "reader") and found.class_names == NAMES
    assert found.accuracy > 0.9 and found.held_out == 60 and found.chance == pytest.approx(1 / 3)
    pictures, labels = draw(30, 9)
    scores = found.scores(pictures)
    assert scores.shape == (30, 3) and (scores.argmax(1) == labels).mean() > 0.9
    monkeypatch.setattr(classifier, "_fit", None)  # not called again
    assert np.array_equal(load_classifier([data], name).scores(pictures), scores)


def test_another_set_or_damage_is_learnt_anew(monkeypatch):
    data = pack("stripes")
    (kept,) = [load_classifier([data]), *classifier.FOLDER.glob("*.safetensors")][1:]
    content = kept.read_bytes()
    kept.write_bytes(content[:100])
    load_classifier([data])
    assert kept.read_bytes() == content
    load_classifier([data, pack("more", (30, 9))])
    assert len(list(classifier.FOLDER.glob("*.safetensors"))) == 2


def test_what_cannot_be_learnt_from_is_told():
    with pytest.raises(UserError, match="custom_32x48_valid.hdf5: not there.*make dataset"):
        load_classifier([pack("no_valid", (30, 0))])
    with pytest.raises(UserError, match="found one class"):
        load_classifier([pack("one", (10, 4), names=["car"])])
    with pytest.raises(UserError, match="has the classes .*, allowed across, down, blank"):
        load_classifier([pack("stripes", (12, 6)), pack("others", (12, 6), names=["x", "y", "z"])])


def test_two_classes_by_regression():
    # Across and blank against down: three kinds in two classes.
    found = load_classifier([pack("two", (60, 30), names=["x", "y"])], "reader")
    assert found.scores(draw(4, 3)[0]).shape == (4, 2) and found.accuracy > 0.8


def test_the_table_has_a_line_a_brand_and_tells_why_it_is_missing():
    row = {"brand": "audi", "drawn": 8, "held_out": 3, "top1": 0.5, "top5": 1.0, "real_top1": None, "diversity": 2.0,
           "real_diversity": None, "copies": 0.0, "kid": None, "pooled": True}  # fmt: skip
    brands = {"rows": [row, row | {"brand": "b", "pooled": False, "kid": 0.25}], "count_each": 8, "top1": 0.5,
              "classifier": "pixels", "top5": 1.0, "real_accuracy": 0.9, "real_accuracy_top5": 1.0, "chance": 0.5,
              "chance_top5": 1.0, "kid_pooled": 0.125}  # fmt: skip
    text = classes_to_text(brands)
    assert "top-1 0.500, real held-out pictures 0.900, chance 0.500" in text
    assert "audi   0.500" in text and "pooled" in text and "0.2500" in text and "pooled: 0.1250" in text
    assert classes_to_text({"left_out": "because"}) == "brands: left out: because"
