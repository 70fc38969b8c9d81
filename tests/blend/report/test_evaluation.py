"""The section with evaluations: its cards, its curve, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from blend.report.evaluation import evaluation
from blend.report.reading import RunFiles
from blend.report.run_facts import RunFacts, read_facts
from tests.blend.report.report_run import make_evaluations


def facts(folder: Path) -> RunFacts:
    found = read_facts(folder, RunFiles())
    assert found is not None
    return found


def card(folder: Path) -> dict[str, Any]:
    (found,) = evaluation(facts(folder), None)
    return found


def test_the_card_has_the_newest_figures_and_the_curve_all(tmp_path):
    make_evaluations(tmp_path, {2: 9.5, 4: 5.0, 6: 3.25})
    found = card(tmp_path)
    assert [(name, value) for name, _, value in found["rows"]][:2] == [("fd_reader", 3.25), ("kid_reader", 3.25 / 40)]
    assert (found["count"], found["real_count"], found["real"]) == (1500, 400, "held-out pictures of cars")
    assert "fd_reader of ordinary cars over the steps" in found["svg"]
    both = evaluation(facts(tmp_path), facts(tmp_path))
    assert [one["kind"] for one in both] == ["ordinary", "concept"]


@pytest.mark.parametrize(
    "changed", [{"data_sha256": "2"}, {"count": 99}, {"extractor_sha256": "2"}, {"split": "train"}]
)
def test_only_comparable_evaluations_make_a_curve(tmp_path, changed):
    make_evaluations(tmp_path, {2: 9.5})
    make_evaluations(tmp_path, {6: 2.0}, **changed)
    assert card(tmp_path)["svg"] is None
    make_evaluations(tmp_path, {8: 1.0}, **changed)
    assert card(tmp_path)["svg"] is not None


def test_two_evaluations_of_one_step_are_not_a_curve(tmp_path):
    make_evaluations(tmp_path, {2: 9.5})
    make_evaluations(tmp_path, {2: 9.5})
    assert card(tmp_path)["svg"] is None


def test_every_name_has_a_meaning(tmp_path):
    names = "fd kid is f8 f1_8 precision recall density coverage".split()
    figures = {f"{name}_inception-unverified": 1.0 for name in names}
    make_evaluations(tmp_path, {2: 1.0}, figures=figures, extractor="inception-unverified", remark="not a FID: why")
    assert all(meaning for _, meaning, _ in card(tmp_path)["rows"])
    make_evaluations(tmp_path, {4: 1.0}, figures={"fid": 1.0}, extractor="inception")
    assert "Fréchet Inception" in card(tmp_path)["rows"][0][1]


@pytest.mark.parametrize(
    "odd",
    [
        {"figures": {"fd_<b>": "x", "fid": None}, "left_out": 3, "extractor": 7, "count": "many", "remark": []},
        {"figures": 3},
        {},
        3,
        None,
    ],
)
def test_malformed_evaluations_are_left_out(tmp_path, odd):
    (tmp_path / "metrics.jsonl").write_text('{"evaluate": 3}\n[]\n{"half\n{"evaluate": {"figures": 4, "step": 2}}\n')
    (tmp_path / "metrics.json").write_text(json.dumps({"evaluate": odd}))
    found = evaluation(facts(tmp_path), None)
    if isinstance(odd, dict) and "left_out" in odd:
        assert found[0]["count"] is None and found[0]["rows"] == [("fd_<b>", "", None), ("fid", MEANING, None)]
    else:
        assert found == []


MEANING = "Fréchet Inception distance; 0 = the same"
