"""Every shipped config from `dataset` to `gallery`, by the commands of `make`: few steps, small drawn pictures."""

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blend.designs.commands
import blend.inversion.figures
import blend.measures.sweep
import datasets.pack.build_set
import harness.checkpoints.sampling
import harness.native.train
from blend.demo.stages import STAGES, Stage, page_path, run_folder
from blend.designs.session import open_session
from blend.generator.kinds import KINDS
from harness.config.experiment import Config, load_config
from harness.images.decode import decode_picture
from harness.metrics import class_net
from harness.storage.json_files import read_json_lines
from harness.storage.rundir import RunDir
from tests.blend.tiny_blend import make_quick
from tests.conftest import ROOT
from tests.harness.studiogan.engine_runs import make_stand_in, place_stand_in

EXPERIMENTS = sorted({path.stem for path in (ROOT / "configs").glob("*.yaml")} - {"base", "sources"})
COUNT, HEIGHT, BATCH, STEPS = 32, 32, 8, 2
QUICK = (
    (datasets.pack.build_set, "count_cores", lambda: 0),  # draws in this process
    (harness.native.train, "save_curves", lambda *_: None),
    (class_net, "EPOCHS", 1),
    (class_net, "MIN_UPDATES", 10),
    (blend.inversion.figures, "RANDOM_SAMPLES", 16),
    (blend.designs.commands, "ANIMATION_FRAMES", 2),
    (blend.measures.sweep, "TARGET_SCORES", (50,)),
    (harness.checkpoints.sampling, "STANDING_BATCH_SIZE", 16),
)


def tiny_overrides(config: Config) -> list[str]:
    """What makes any experiment short. Its sets are drawn: of brands where its networks have classes."""
    height, width = config.data.img_size
    ordinary, concept = ("brands", "brand_concepts") if config.model.conditional else ("ordinary", "concept")
    drawn = {"source": "procedural", "src": None, "count": COUNT}
    optim = {"batch_size": BATCH, "total_steps": STEPS, "total_epochs": None}
    encoder = {"width": 8, "head_dims": [16], "skip_pictures": 64, "batch_size": BATCH, "valid_count": 16}
    changes: dict[str, dict[str, Any]] = {
        "data": {**drawn, "kind": ordinary, "img_size": [HEIGHT, HEIGHT * width // height]},
        "model": {"g_conv_dim": 8, "d_conv_dim": 8},
        "optim": optim,
        "reconstruction": {"features": "reader", "encoder_width": 8, "warmup_steps": 1},
        "train": {"device": "cpu", "precision": "fp32", "threads": 1, "sample_count": 4},
        "finetune.override": {"data": {**drawn, "kind": concept}, "optim": optim},
        "encoder": {**encoder, "total_steps": 1, "polish_steps": STEPS},
        "inversion": {"count": 3, "steps": STEPS},
        "blend": {"pairs": 2},
    }
    if config.data.valid_fraction:  # a few for sure
        changes["data"]["valid_fraction"] = 0.25
    return [f"{part}.{key}={json.dumps(value)}" for part, keys in changes.items() for key, value in keys.items()]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_goes_the_whole_way(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    make_quick(monkeypatch)
    for place, what, value in QUICK:
        monkeypatch.setattr(place, what, value)
    monkeypatch.chdir(tmp_path)
    path = ROOT / "configs" / f"{name}.yaml"
    overrides = tiny_overrides(load_config(path))
    config = load_config(path, overrides)
    if config.engine == "studiogan":
        make_stand_in(tmp_path / "studiogan", config, STEPS)
        place_stand_in(monkeypatch, tmp_path / "studiogan", tmp_path / "record.jsonl")
    for stage in STAGES:
        run_stage(stage, path, overrides)
        assert all(left.exists() for left in stage.outputs(config)), stage.name
    assert_designs(config)
    assert_says_what_it_was_measured_on(config)
    assert_studio_can_open_it(config)


def run_stage(stage: Stage, config: Path, overrides: list[str]) -> None:
    """Its command, in this process."""
    _, module, *words = stage.full_command(config, overrides)[1:]
    import_module(f"{module}.__main__").app(words, standalone_mode=False)


def assert_designs(config: Config) -> None:
    """Pictures of the right size, none of them flat as one of nothing but nan would be, and their measures."""
    for rows in sorted(run_folder(config).glob("blends/*/designs.jsonl")):
        designs = [row for row in read_json_lines(rows) if row]
        assert designs
        for design in designs:
            picture = decode_picture(rows.parent / design["file"])
            assert picture.shape == (*config.data.img_size, 3) and np.ptp(picture) > 0
            assert math.isfinite(design["futurism"]) and 0 <= design["identity"] <= 100
            assert ("verdict" in design["novelty"]) == (config.data.valid_fraction > 0)


def assert_says_what_it_was_measured_on(config: Config) -> None:
    metrics, page = RunDir(run_folder(config)).read_metrics(), page_path(config).read_text()
    assert {"encoder", "inversion", "measures", "blend"} <= set(metrics)
    held_out = config.data.valid_fraction > 0
    for stage in ("inversion", "measures", "blend"):
        assert ("measured_on" in metrics[stage]) == (not held_out)
    assert ("encoder_error" in metrics["inversion"]) == ("warn_rate" in metrics["measures"]) == held_out
    assert ("Measured on held-out or newly generated cars" in page) == held_out
    assert ("Novelty is left out" in page) == ("the encoder's error is left out" in page) == (not held_out)


def assert_studio_can_open_it(config: Config) -> None:
    session = open_session(run_folder(config).name)
    assert session.open_measures() is not None and session.missing == {}
    for side in KINDS:
        first = session.parent_store.held_out[side].names[0]
        assert session.parent_store.find(side, first) is not None
