"""README and docs: links lead to files, and the commands of the README's three ways run, with tiny settings."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import blend.demo.demo
import blend.studio.command
import harness.benchmarks.benchmark
import harness.studiogan.checkout
from blend.demo.stages import Stage
from blend.designs.design_recipe import DesignRecipe, Parent
from blend.designs.export import design_document
from blend.designs.session import open_session
from harness.config.experiment import load_config
from harness.images.decode import save_png
from harness.make import split_overrides, to_command
from tests.blend.tiny_blend import coarse_pictures, make_quick
from tests.commands import ROOT
from tests.harness.studiogan.engine_runs import make_stand_in, place_stand_in
from tests.test_shipped_configs import QUICK, STEPS, run_stage, tiny_overrides

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_below(heading: str) -> list[str]:
    """The first block of commands after this heading of the README."""
    section = (ROOT / "README.md").read_text().partition(f"### {heading}\n")[2]
    return section.split("```\n")[1].splitlines()


def run(command: str, *more: str) -> None:
    """A `make` command: what its recipe starts, in this process."""
    _, target, *given = shlex.split(command)
    values = dict(word.split("=", 1) for word in (*given, *more))
    words = [f"{name}={value}" for name, value in values.items()]
    recipe = subprocess.run(
        ["make", "-s", "-n", target, *words, "PYTHON=python"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for line in recipe.splitlines():
        _, starts, text = line.partition("-m harness.make ")
        if not starts or line.lstrip().startswith(("plan=", "&&")):  # finds a Python, or makes a benchmark's set
            continue
        for name, value in values.items():
            text = text.replace(f'"${name}"', shlex.quote(value))
        module, *rest = shlex.split(text)
        import_module(f"{module}.__main__").app(to_command(rest), standalone_mode=False)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    make_quick(monkeypatch)
    for place, what, value in QUICK:
        monkeypatch.setattr(place, what, value)
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    return tmp_path


def write_pictures(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(coarse_pictures(32, seed, 48, 96)):
        save_png(folder / f"{number}.png", picture)


def of_photos(config: str) -> str:
    """OVERRIDE for a short training on every picture of two folders."""
    changes = [line for line in tiny_overrides(load_config(config)) if "data" not in line.partition("=")[0]]
    settings: list[tuple[str, Any]] = [("clean.apply", False), ("data.img_size", [32, 32])]
    settings.append(("finetune.override.optim", {"total_steps": STEPS, "batch_size": 8}))
    return " ".join([*changes, *(f"{key}={json.dumps(value)}" for key, value in settings)])


def run_stages(config: Path, overrides: list[str], dry_run: bool, stages: Sequence[Stage]) -> None:
    """What `demo_run` does in processes of their own."""
    for stage in stages:
        run_stage(stage, config, overrides)


def test_photos_and_a_gpu(tiny, monkeypatch):
    write_pictures(Path("path/to/cars"), 1)
    write_pictures(Path("path/to/concept/cars"), 2)
    train, finetune, demo = commands_below("I have photos and a GPU")
    for command in (train, finetune):
        run(command, f"OVERRIDE={of_photos('configs/photos.yaml')} data.valid_fraction=0.25")
    monkeypatch.setattr(blend.demo.demo, "demo_run", run_stages)
    run(demo)
    assert Path("runs/photos/report.html").is_file() and len(list(Path("runs/photos/blends").glob("*/grid.png"))) == 2


def test_studiogan_configs(tiny, monkeypatch):
    prepare, compare = Mock(), Mock()  # they need the internet, and a checkout
    monkeypatch.setattr(harness.studiogan.checkout, "prepare", prepare)
    monkeypatch.setattr(harness.benchmarks.benchmark, "run_benchmark", compare)
    monkeypatch.setattr(harness.benchmarks.benchmark, "make_plan", Mock())
    write_pictures(Path("path/to/cars"), 1)
    config, overrides = "configs/cars128.yaml", of_photos("configs/cars128.yaml")
    studiogan, benchmark, train, evaluate, export = commands_below("I have StudioGAN configs")
    run(studiogan)
    prepare.assert_called_once_with("0.2.0")
    run(benchmark)
    compare.assert_called_once_with("CIFAR10/SNGAN", "both", 300, (), None)
    make_stand_in(tiny / "studiogan", load_config(config, [*split_overrides(overrides), "engine=studiogan"]), STEPS)
    place_stand_in(monkeypatch, tiny / "studiogan", tiny / "record.jsonl")
    run(train, f"OVERRIDE={overrides} engine=studiogan")
    run(evaluate)
    run(export)
    assert list(Path("weights").glob("**/*.pth"))


def test_designs(tiny, monkeypatch):
    pytest.importorskip("fastapi", reason="needs the ui extra: pip install fastapi uvicorn")
    serve = Mock()
    monkeypatch.setattr(blend.studio.command, "serve_page", serve)
    studio, blend_designs, sample, draw = commands_below("I want designs")
    run(studio)
    serve.assert_called_once()
    run(blend_designs, "OVERRIDE=inversion.count=2 inversion.steps=1")
    run(sample)
    session = open_session("pretrained")
    recipe = DesignRecipe((Parent("seed-3"),), (Parent("seed-5"),), 0.4)
    picture = session.draw(recipe).picture
    Path("design.json").write_text(json.dumps(design_document(session, recipe, session.measure(recipe, picture), "")))
    run(draw)
    assert Path("design-drawn.png").is_file() and list(Path("runs/pretrained/samples").glob("*.png"))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files_and_headings(page):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


LISTS = {
    "README.md",
    "glossary.md",
    "ablation.md",
    "brands_ablation.md",
}  # an index, words, and tables of `make ablate`


def test_every_page_of_the_docs_opens_with_a_command():
    for page in PAGES[2:]:
        if page.name not in LISTS:
            assert re.match(r"# [^\n]+\n\n```\n(?:make |\.venv/|CARFORGE_)", page.read_text()), page.name


def test_make_commands_of_the_docs_are_taken():
    """Target and variables of each; what they do is tested elsewhere."""
    for page in PAGES:
        for command in re.findall(r"^(make .*)$|`(make [a-z-]+[^`]*)`", page.read_text(), re.MULTILINE):
            words = [word for word in shlex.split(max(command), posix=True) if word not in ("…", "make")]
            given = [f"{name}=1" for name in re.findall(r"([A-Z_]+)=", " ".join(words[1:]))]
            result = subprocess.run(
                ["make", "-n", words[0], *dict.fromkeys(given), f"PYTHON={sys.executable}"],
                cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
            assert result.returncode == 0, (page.name, command, result.stderr)
