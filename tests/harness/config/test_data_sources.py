"""configs/sources.yaml: the shipped file is valid, and every problem of a changed one is reported."""

from pathlib import Path

import pytest
import yaml

from harness.config.data_sources import SOURCES_PATH, CarConnectionRecipe, KaggleRecipe, change_recipe, load_sources
from harness.config.data_sources import recipe_to_changes as to_changes
from harness.config.experiment import load_config
from harness.errors import UserError
from tests.conftest import ROOT
from tests.harness.tiny_runs import BASE

SHIPPED = load_sources()


@pytest.fixture
def content() -> dict:
    return yaml.safe_load(SOURCES_PATH.read_text(encoding="utf-8"))


def problems_of(tmp_path, content: dict) -> list[str]:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    path = tmp_path / "sources.yaml"
    path.write_text(yaml.dump(content, Dumper=Plain))
    with pytest.raises(UserError) as raised:
        load_sources(path)
    head, *lines = str(raised.value).splitlines()
    assert head == f"{path}: {len(lines)} problem{'s' * (len(lines) > 1)}"
    return [line.strip() for line in lines]


def test_every_data_set_of_the_project_has_a_recipe_and_a_card():
    assert list(SHIPPED.sources) == ["brands50", "car_connection", "concept", "cifar10", "procedural", "folder"]
    for name, recipe in SHIPPED.sources.items():
        card = (ROOT / recipe.card).read_text(encoding="utf-8")
        assert card.startswith("# ") and f"SET={name}" in card, name
        for part in ("## Origin", "## Licence", "## Counts", "## Caveats", "## How to get it", "## What cleaning does"):
            assert part in card, f"{recipe.card} lacks {part}"


@pytest.mark.parametrize("name", list(SHIPPED.sources))
def test_a_recipe_makes_a_config_that_is_allowed(name):
    changes = {key: value for key, value in to_changes(SHIPPED.recipe(name)).items() if value is not None}
    config = load_config(BASE, [f"{key}={value}" for key, value in changes.items()])
    assert config.data.source == {"cifar10": "cifar10", "procedural": "procedural"}.get(name, "folder")


def test_what_a_recipe_says_of_a_build():
    recipe = SHIPPED.recipe("brands50")
    assert isinstance(recipe, KaggleRecipe) and recipe.handle == "yamaerenay/100-images-of-top-50-car-brands"
    assert to_changes(recipe) == {
        "data.source": "folder",
        "data.set": "brands50",
        "data.src": "data/raw/brands50",
        "data.img_size": [128, 224],
        "clean.views": ["left", "right", "front_left", "front_right", "rear_left", "rear_right"],
    }
    assert to_changes(SHIPPED.recipe("cifar10")) == {
        "data.source": "cifar10",
        "data.set": "cifar10",
        "data.img_size": [32, 32],
    }
    assert "data.src" not in to_changes(SHIPPED.recipe("folder")) and "data.set" not in to_changes(
        SHIPPED.recipe("folder")
    )
    assert to_changes(SHIPPED.recipe("car_connection"))["clean.views"] == ["left", "front_left", "front_right"]


def test_an_unknown_recipe_lists_the_others():
    with pytest.raises(UserError, match=r"SET: found 'cars196', allowed brands50, car_connection, concept.*yaml\)$"):
        SHIPPED.recipe("cars196")


def test_all_problems_are_told_at_once(tmp_path, content):
    sources = content["sources"]
    sources["brands50"] |= {"handle": 3, "colour": "red", "views": ["nose"]}
    sources["concept"]["source"] = "google"
    sources["car_connection"] |= {"picture_size": "huge", "img_size": "big"}
    del sources["folder"]["card"]
    problems = problems_of(tmp_path, content)
    assert [problem.partition(":")[0] for problem in problems] == [
        "sources.brands50.views.0",
        "sources.brands50.handle",
        "sources.brands50.colour",
        "sources.car_connection.img_size",
        "sources.car_connection.picture_size",
        "sources.concept.source",
        "sources.folder.card",
    ]
    assert "found 'huge', allowed 'sml', 'med' or 'lrg'" in problems[4]
    assert "found 'google', allowed kaggle, car_connection, concept" in problems[5]


@pytest.mark.parametrize("part", ["politeness", "sources"])
def test_a_part_that_is_missing_or_no_mapping(tmp_path, content, part):
    assert problems_of(tmp_path, {key: value for key, value in content.items() if key != part}) == [
        f"{part}: found nothing, allowed a value, see the recipes beside it"
    ]
    assert problems_of(tmp_path, {**content, part: [1]})[0].startswith(f"{part}: found [1]")


def test_a_recipe_with_other_values_is_checked_like_the_file():
    recipe = SHIPPED.recipe("car_connection")
    changed = change_recipe(recipe, {"picture_size": "sml"})
    assert isinstance(changed, CarConnectionRecipe) and changed.picture_size == "sml"
    with pytest.raises(UserError, match="picture_size: found 'huge'"):
        change_recipe(recipe, {"picture_size": "huge"})


def test_a_set_that_was_fetched_and_has_no_recipe_is_told_how_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/raw/my-cars").mkdir(parents=True)
    with pytest.raises(UserError, match="try make dataset SET=folder SRC=data/raw/my-cars NAME=my-cars$"):
        SHIPPED.recipe("my-cars")
    with pytest.raises(UserError, match=r"yaml\)$"):
        SHIPPED.recipe("../my-cars")
