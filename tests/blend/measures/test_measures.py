"""Every design gets all measures; fits are cached and need no packed sets; unusable sets are refused."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from blend.generator.styled_generator import load_generator
from blend.measures.measures import load_measures
from blend.measures.novelty import FeatureSpace
from harness.checkpoints.origin import accept_training_sets
from harness.config.experiment import Config, finetune_config
from harness.storage.hdf5 import open_packed
from harness.storage.splits import open_evaluation_rows
from tests.blend.tiny_blend import make_tiny_runs, tiny_config, write_packed
from tests.refusals import refused

MEASURES = Path("runs/tiny/measures")


@pytest.fixture
def config(tmp_path) -> Config:
    return make_tiny_runs(tmp_path)


@pytest.fixture
def extracted(monkeypatch) -> list[str]:
    """The spaces of which features were computed, one entry a call."""
    calls, features = [], FeatureSpace.features
    monkeypatch.setattr(FeatureSpace, "features", lambda space, x: (calls.append(space.name), features(space, x))[1])
    return calls


def measured(config: Config):
    return load_measures(config, load_generator(config, need_tuned=False))


def rows(config: Config, split: Literal["train", "valid"] = "train", count: int = 4) -> np.ndarray:
    with open_packed(config.data.hdf5_path(split)) as packed:
        return packed.read(np.arange(count))


def test_every_design_gets_all_measures(config):
    measures, cars, concepts = measured(config), rows(config), rows(finetune_config(config))
    found = measures.measure(np.concatenate([cars, concepts]), np.concatenate([cars, cars]))
    assert json.loads(json.dumps(found)) == found
    assert [entry["identity"] for entry in found[:4]] == pytest.approx([100] * 4)
    assert all(entry["identity"] < 60 for entry in found[4:])
    assert [entry["futurism"] for entry in found] == pytest.approx(
        measures.futurism(np.concatenate([cars, concepts])).tolist()
    )
    assert np.mean([e["futurism"] for e in found[:4]]) < np.mean([e["futurism"] for e in found[4:]])
    for k, entry in enumerate(found):
        assert entry["novelty"]["verdict"] == "WARN"
        for space in ("reader", "discriminator"):
            near = entry["novelty"][space]
            assert (near["set"], near["row"]) == (("cars", "concept")[k // 4], k % 4) and near["percentile"] == 0
    assert [entry["identity"] for entry in measures.measure(cars)] == [None] * 4


def test_medians_of_held_out_pictures_are_the_ends_of_the_scale(config):
    measures = measured(config)
    for part, end in ((config, 0), (finetune_config(config), 100)):
        with open_packed(part.data.hdf5_path("valid")) as packed:
            assert np.median(measures.futurism(packed.read())) == pytest.approx(end, abs=1.0)


def test_features_are_cached(config, extracted):
    first = measured(config)
    assert set(extracted) == {"reader", "discriminator"}
    extracted.clear()
    again, held_out = measured(config), rows(config, "valid", 16)
    assert extracted == [] and again.figures == first.figures
    assert again.measure(held_out, held_out) == first.measure(held_out, held_out)
    for one, two in zip(first.novelty.references, again.novelty.references, strict=True):
        assert (one.real_percentiles() == two.real_percentiles()).all()


def test_cached_features_do_not_need_their_sets(config, extracted):
    first, pictures = measured(config), rows(config)
    for part in (config, finetune_config(config)):
        for split in ("train", "valid"):
            part.data.hdf5_path(split).unlink()
    extracted.clear()
    again = measured(config)
    assert extracted == [] and again.figures == first.figures
    assert again.measure(pictures, pictures) == first.measure(pictures, pictures)
    (MEASURES / "reader.safetensors").unlink()
    with refused("make dataset"):
        measured(config)


def test_cached_distances_belong_to_their_pictures(config):
    """Such as an array saved with the memory layout of another."""
    found = measured(config)
    fresh = [entry["reader"]["distance"] for entry in found.novelty.check(rows(config, "valid", 16))]
    assert found.novelty.references[0].real_distances[:16] == pytest.approx(fresh)


def test_damage_and_other_pictures_are_detected(config, extracted):
    before = measured(config).figures
    for path in MEASURES.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    extracted.clear()
    assert measured(config).figures == before and set(extracted) == {"reader", "discriminator"}
    write_packed(Path(), config, "train", 41, seed=77)
    assert_refused(config, "found the set")
    accept_training_sets("tiny")
    extracted.clear()
    assert measured(config).figures["training_pictures"] == before["training_pictures"] + 1
    assert set(extracted) == {"reader", "discriminator"}


def test_figures_are_written_once(config):
    figures = measured(config).figures
    assert json.loads(Path("runs/tiny/metrics.json").read_text())["measures"] == figures
    assert all(0 <= figures[name] <= 1 for name in ("probe_auc", "background_auc", "warn_rate"))
    lines = Path("runs/tiny/metrics.jsonl").read_text()
    measured(config)
    assert Path("runs/tiny/metrics.jsonl").read_text() == lines


def test_the_warn_rate_is_that_of_the_verdicts(config):
    measures = measured(config)
    held_out = np.concatenate([rows(part, "valid", 16) for part in (config, finetune_config(config))])
    verdicts = [entry["verdict"] for entry in measures.novelty.check(held_out)]
    assert measures.figures["warn_rate"] == pytest.approx(verdicts.count("WARN") / 32)


def test_without_a_fine_tuned_run_the_config_says_what_concepts_are(tmp_path):
    assert measured(make_tiny_runs(tmp_path, tuned=False)).figures["training_pictures"] == 80


def assert_refused(config: Config, *words: str) -> None:
    with refused(*words) as lines:
        measured(config)
    assert "try" in lines[0] or "make dataset" in lines[0]


def test_sets_that_cannot_be_measured_with_are_refused(config):
    path = config.data.hdf5_path("valid")
    content = path.read_bytes()
    write_packed(Path(), tiny_config(data__img_size=64), "valid", 8, seed=1)
    Path("data/hdf5/cars/custom_64_valid.hdf5").replace(path)
    assert_refused(config, "64x64", "32x32")
    path.unlink()
    assert_refused(config, "not there")
    write_packed(Path(), config, "valid", 1, seed=1)
    assert_refused(config, "found 1 picture to measure with, allowed 2 or more; try more pictures")
    path.write_bytes(content)
    for split in ("train", "valid"):
        finetune_config(config).data.hdf5_path(split).write_bytes(config.data.hdf5_path(split).read_bytes())
    accept_training_sets("tiny-freezed")
    assert_refused(config, "found the same set")


def test_sets_that_hold_nothing_back_are_measured_on_a_sample_that_no_probe_learned_from(tmp_path, extracted):
    config = make_tiny_runs(tmp_path, data__valid_fraction=0)
    measures, figures = measured(config), json.loads(Path("runs/tiny/metrics.json").read_text())["measures"]
    assert set(extracted) == {"reader"} and figures == measures.figures
    assert set(figures) == {
        "probe_auc", "background_auc", "training_pictures", "held_out_pictures", "measured_on", "left_out",
    }  # fmt: skip
    assert (figures["training_pictures"], figures["held_out_pictures"]) == (2 * 38, 0)
    assert figures["measured_on"].endswith("training pictures: 2 of the 40 of cars, 2 of the 40 of concept")
    assert "held out from training" in figures["left_out"]["novelty"]
    for part, end in ((config, 0), (finetune_config(config), 100)):
        with open_evaluation_rows(part.data) as sample:
            assert np.median(measures.futurism(sample.read())) == pytest.approx(end, abs=1.0)
    (design,) = measures.measure(rows(config, count=1), rows(config, count=1))
    assert design["identity"] == pytest.approx(100)
    assert design["novelty"] == {"left_out": figures["left_out"]["novelty"]}


def test_one_set_without_held_out_pictures_leaves_novelty_out(tmp_path):
    override = {"data": {"set": "concept", "kind": "concept", "valid_fraction": 0.1}}
    figures = measured(make_tiny_runs(tmp_path, data__valid_fraction=0, finetune__override=override)).figures
    assert figures["held_out_pictures"] == 16 and "concept" not in figures["measured_on"]
    assert "warn_rate" not in figures and "novelty" in figures["left_out"]
