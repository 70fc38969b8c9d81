"""The ready-made model: packed, opened, trained further, and what it draws."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blend.designs.session import open_session
from blend.generator.styled_generator import load_generator
from blend.measures.measures import load_measures
from blend.studio import server
from blend.studio.command import first_run, open_studio
from harness.checkpoints.checkpoint import load_weights, read_meta
from harness.checkpoints.load import load_run
from harness.checkpoints.pack_pretrained import DRAWN_FILE, draw_for_comparison, measures, weights
from harness.checkpoints.pretrained import (
    BASE,
    FACTS_FILE,
    PRETRAINED,
    TUNED,
    copy_pretrained,
    cut_sheet,
    open_pretrained,
    pretrained_changes,
    pretrained_facts,
)
from harness.config.experiment import Config, check_kept_config, config_to_dict, finetune_config, load_config
from harness.native.train import pretrained_source, train_run
from harness.storage.hdf5 import open_packed
from harness.storage.rundir import RunDir
from harness.web.page import page_environment
from tests.blend.tiny_blend import make_quick, make_tiny_runs, write_packed
from tests.commands import ROOT
from tests.refusals import refused

CHANGES: dict[str, Any] = {"model__backbone": "subpixel", "reconstruction__apply": True, "model__g_ema_decay": 0.9}
CHANGES |= {"loss__apply_lecam": False, "optim__d_updates_per_step": 1, "reconstruction__encoder_width": 8}
MAX_BYTES, MAX_FILE_BYTES, MAX_FLOPS = 20e6, 8e6, 3e9


@pytest.fixture
def packed(tmp_path, monkeypatch) -> Path:
    """A tiny ready-made model; the working directory has no run and no set."""
    make_quick(monkeypatch)
    made, out = tmp_path / "made", tmp_path / "package"
    config = make_tiny_runs(made, name=BASE, **CHANGES)
    monkeypatch.chdir(made)
    weights(out=out)
    shutil.move("runs", "trained")
    open_pretrained(folder=out)
    load_measures(config, load_generator(config))
    measures(out=out)
    pretrained_facts.cache_clear()
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    return out


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_opened_it_draws_and_measures_without_its_sets(packed):
    before = contents(packed)
    open_pretrained(folder=packed)
    trained = packed.parent / "made" / "trained"
    for name in (BASE, TUNED):
        stored = next((trained / name / "checkpoints").iterdir())
        mine, theirs = load_run(name).generator.state_dict(), load_weights(stored, "generator_ema")
        for key, value in mine.items():
            assert value.dtype == theirs[key].dtype
            assert torch.allclose(value, theirs[key], rtol=1e-3, atol=1e-6), key
        assert "ready-made" in (RunDir.existing(name).read_status() or {})["message"]
    session = open_session(BASE)
    assert session.missing == {} and session.open_measures() is not None
    assert all(len(session.parent_store.held_out[side].names) == 4 for side in ("ordinary", "concept"))
    assert session.measures is not None and session.measures.figures == RunDir.existing(BASE).read_metrics()["measures"]
    assert contents(packed) == before


def test_existing_runs_are_left_alone(packed):
    Path("runs", TUNED).mkdir(parents=True)
    (mine := Path("runs", TUNED, "mine.txt")).write_text("mine")
    open_pretrained(folder=packed)
    before = contents(Path("runs"))
    open_pretrained(folder=packed)
    assert contents(Path("runs")) == before and list(Path("runs", TUNED).iterdir()) == [mine]


def test_a_damaged_file_is_refused(packed):
    path = packed / BASE / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refused(str(path), "git checkout"):
        open_pretrained(folder=packed)
    assert not Path("runs").exists()
    (packed / FACTS_FILE).unlink()
    pretrained_facts.cache_clear()
    with refused("no ready-made model"):
        open_pretrained(folder=packed)


def test_its_training_cannot_resume(packed):
    open_pretrained(folder=packed)
    config = RunDir.existing(BASE).read_config()
    write_packed(Path(), config, "train", 24, seed=1)
    more = config.model_copy(update={"optim": config.optim.model_copy(update={"total_steps": 50_000})})
    with refused("without the optimisers' state", "PRETRAINED=1"):
        train_run(more, limit_steps=5)


def test_a_copy_is_fine_tuned_under_another_name(packed):
    mine = config_of("mine", **{"finetune.freeze_layers": 1, "blend.latent_share": 0.25})
    copy_pretrained(mine, folder=packed)
    found = RunDir.existing("mine").read_config()
    assert (found.name, found.data.set, found.finetune.freeze_layers) == ("mine", "cars", 1)
    assert found.blend.latent_share == 0.25 and found.model == load_run("mine").config.model
    assert load_generator(found, need_tuned=False).tuned is None


def config_of(name: str, path: str = "configs/demo.yaml", **changes: Any) -> Config:
    values = {"name": name, **changes}
    return load_config(ROOT / path, [f"{key}={json.dumps(value)}" for key, value in values.items()])


# ---- the one of the repository ------------------------------------------------------------------------------------


@pytest.fixture
def new_clone(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_draws_what_it_drew(new_clone):
    assert first_run() == BASE
    drawn = np.concatenate([draw_for_comparison(load_run(name)) for name in (BASE, TUNED)])
    with Image.open(PRETRAINED / DRAWN_FILE) as kept:
        before = cut_sheet(np.asarray(kept), *drawn.shape[1:3])
    assert np.abs(drawn.astype(int) - before.astype(int)).max() <= 2


def test_it_is_small_and_quick():
    sizes = [path.stat().st_size for path in PRETRAINED.rglob("*") if path.is_file()]
    assert sum(sizes) <= MAX_BYTES and max(sizes) <= MAX_FILE_BYTES
    from torch.utils.flop_counter import FlopCounterMode

    generator = load_run(BASE).generator
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(*generator.latents.draw_by_seed("flops", [0]))
    assert 0 < counter.get_total_flops() <= MAX_FLOPS


def test_it_records_how_it_was_made():
    for made in pretrained_facts()["runs"].values():
        assert made["seconds"] > 600 and made["machine"] and len(made["data_sha256"]) == 64
        assert made["step"] == made["config"]["optim"]["total_steps"] and len(made["commit"]) == 40


def test_its_config_is_that_of_the_repository():
    config, made = config_of(BASE, "configs/pretrained.yaml"), pretrained_facts()["runs"]
    for part, name in ((config, BASE), (finetune_config(config), TUNED)):
        kept = config_to_dict(check_kept_config(made[name]["config"], name))
        for section in ("data", "model", "optim", "reconstruction", "augment", "loss"):
            assert kept[section] == json.loads(getattr(part, section).model_dump_json()), (name, section)


def test_training_starts_from_it(new_clone, one_thread):
    sets = ["name=mine", "optim.batch_size=2", "train.precision=fp32", "train.threads=1"]
    config = load_config(ROOT / "configs/demo.yaml", [*pretrained_changes(), *sets])
    write_packed(Path(), config, "train", 4, seed=1)
    source = pretrained_source(config)
    train_run(config, limit_steps=1, source=source)
    folder = next((Path("runs/mine/checkpoints")).iterdir())
    assert read_meta(folder)["finetuned_from"] == str(source)
    # One step moves a weight by no more than its rate.
    before, after = load_weights(source, "generator"), load_weights(folder, "generator")
    assert all((after[key] - before[key]).abs().max() < 0.1 for key in before if before[key].is_floating_point())
    with open_packed(Path("data/hdf5/loose/custom_128x256_valid.hdf5")) as parents:
        assert parents.count == 24


def test_networks_of_another_shape_cannot_start_from_it(new_clone):
    with refused("data.img_size", "ready-made model's picture size"):
        pretrained_source(config_of("mine", "configs/sngan_demo.yaml"))
    assert not Path("runs").exists()


def test_the_studio_says_what_it_is_and_offers_the_demo(new_clone):
    Path("configs").symlink_to(ROOT / "configs")
    studio = open_studio(first_run())
    try:
        facts = studio.page_facts()
        page = page_environment(Path(server.__file__).parent / "templates").get_template("studio.html.j2").render(facts)
    finally:
        studio.close()
    assert "ready-made model that comes with Carforge" in facts["run"]["origin"]
    assert facts["run"]["missing"]["encoder"] == "" and len(facts["offer"]["plan"]) == 8
    assert page.count("Train my own model") == 1 and "demo_offer.js" in page and "main.js" in page
