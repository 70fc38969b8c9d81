"""A config of another size than the run of its name: every command refuses it before any work."""

from pathlib import Path

import pytest
import yaml

import blend.__main__
import datasets.__main__
import harness.__main__
from blend.designs.session import open_session
from harness.config.experiment import config_to_dict
from tests.blend.tiny_blend import tiny_config
from tests.harness.tiny_runs import file_hashes
from tests.refusals import refused

BLEND, DATASETS, HARNESS = blend.__main__.app, datasets.__main__.app, harness.__main__.app
COMMANDS = {
    "demo": (BLEND, "demo"),
    "demo --dry-run": (BLEND, "demo", "--dry-run"),
    "set of train": (DATASETS, "build", "--stage", "train"),
    "set of finetune": (DATASETS, "build", "--stage", "finetune"),
    "finetune": (HARNESS, "finetune"),
    "encoder": (BLEND, "encoder"),
    "invert": (BLEND, "invert"),
    "measure": (BLEND, "measure"),
    "blend": (BLEND, "blend", "--seeds", "0-3"),
    "gallery": (BLEND, "gallery"),
    "configs": (HARNESS, "configs"),
}


@pytest.fixture
def larger(run_folder) -> Path:
    """A config of runs/tiny's name, with pictures of 64 instead of 32 pixels and another backbone."""
    path = Path("larger.yaml")
    path.write_text(yaml.safe_dump(config_to_dict(tiny_config(data__img_size=64, model__backbone="subpixel"))))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_it_in_one_line(larger: Path, command: str):
    app, *words = COMMANDS[command]
    before = file_hashes(Path("."))
    with refused(
        "runs/tiny: found a run of 32x32 pictures, this config's are 64x64.", "rm -r runs/tiny runs/tiny-freezed"
    ):
        app([*words, "--config", str(larger)], standalone_mode=False)
    assert file_hashes(Path(".")) == before


def test_another_name_works_beside_it(larger: Path, capsys):
    DATASETS(["build", "--stage", "train", "--config", str(larger), "--set", "name=tiny-64", "--dry-run"],
             standalone_mode=False)  # fmt: skip
    assert "# set cars at 64: to be built" in capsys.readouterr().out
    BLEND(["gallery", "--config", "runs/tiny/config.yaml"], standalone_mode=False)
    assert capsys.readouterr().out == "runs/tiny/report.html\n"


def test_the_studio_opens_the_run_whatever_the_demo_is_now(larger: Path):
    pytest.importorskip("fastapi", reason="needs the ui extra: pip install fastapi uvicorn")
    from blend.studio.demo_job import DemoProcess
    from blend.studio.studio import Studio

    studio = Studio("tiny", DemoProcess(larger, ["true"]))
    try:
        assert studio.page_facts()["run"]["height"] == 32
    finally:
        studio.close()


def test_a_renamed_run_opens(run_folder):
    for name in ("tiny", "tiny-freezed"):
        Path("runs", name).rename(Path("runs", name.replace("tiny", "old")))
    session = open_session("old")
    assert (session.generator.base.name, session.missing) == ("old", {})
    assert session.generator.tuned is not None and session.generator.tuned.name == "old-freezed"
