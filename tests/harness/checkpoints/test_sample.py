"""`make sample`: the requested class, mixes of classes, reproducible grids."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from harness.checkpoints.checkpoint import checkpoint_folder, save_checkpoint
from harness.checkpoints.sample import sample_run
from harness.config.experiment import config_to_dict, config_to_yaml
from harness.errors import UserError
from harness.networks.arch import ArchSpec
from harness.networks.build import build_networks, spec_to_networks
from harness.storage.rundir import RunDir
from tests.harness.tiny_runs import CONDITIONAL, RECONSTRUCTION, tiny_config

NAMES = ["audi", "b m/w", "porsche"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**changes) -> str:
        config = tiny_config(**changes)
        rundir = RunDir(tmp_path / "runs" / config.name)
        rundir.checkpoints.mkdir(parents=True)
        rundir.config_path.write_text(config_to_yaml(config))
        classes = len(NAMES) if config.model.conditional else 0
        generator, discriminator = build_networks(config, classes, torch.device("cpu"))
        with torch.no_grad():  # of the start, classes differ too little to be seen
            for name, weight in generator.named_parameters():
                weight.mul_(4 if "embed" in name else 1)
        facts = {"step": 4, "num_classes": classes, "config": config_to_dict(config), "class_names": NAMES}
        weights = {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}
        save_checkpoint(checkpoint_folder(rundir.checkpoints, 4), weights, {"step": 4}, facts)
        return config.name

    return write


def tiles(path, columns: int, rows: int) -> np.ndarray:
    """uint8 (rows, columns, 32, 32, 3) of a grid, counted from the right."""
    with Image.open(path) as image:
        grid = np.asarray(image)
    assert grid.shape[0] == rows * 34 - 2
    left = grid.shape[1] - (columns * 34 - 2)
    return np.stack([
        [grid[r * 34 : r * 34 + 32, left + c * 34 : left + c * 34 + 32] for c in range(columns)] for r in range(rows)
    ])  # fmt: skip


def test_a_class_by_name_and_number_and_in_all(run):
    name = run(**CONDITIONAL)
    every = tiles(sample_run(name, "all", 4), 4, 3)
    rows = [tiles(sample_run(name, brand, 4), 2, 2).reshape(4, 32, 32, 3) for brand in ("audi", "b m/w", "2")]
    assert np.array_equal(every, np.stack(rows))
    assert len({row.tobytes() for row in rows}) == 3
    assert np.array_equal(tiles(sample_run(name, "audi:3", 4), 2, 2).reshape(4, 32, 32, 3), rows[0])


def test_single_pictures_are_those_of_the_grid_and_say_where_they_come_from(run, tmp_path):
    name = run(**CONDITIONAL)
    grid = tiles(sample_run(name, "audi", 4), 2, 2).reshape(4, 32, 32, 3)
    folder = sample_run(name, "audi", 4, seed=0, out=tmp_path / "cars")
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"{name}-step-00000004-seed-0-0000{k}.png" for k in range(4)]
    for number, (path, tile) in enumerate(zip(paths, grid, strict=True)):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), tile)
            origin = json.loads(image.info["carforge"])
        assert (origin["run"], origin["seed"], origin["number"], origin["class"]) == (name, 0, number, "audi")
    mixed = sample_run(name, "audi:0.75,porsche:0.25", 1, out=tmp_path / "mixed")
    with Image.open(next(mixed.iterdir())) as image:
        assert json.loads(image.info["carforge"])["class"] == "audi:0.75,porsche:0.25"
    foreign = folder / paths[0].name
    foreign.write_bytes(b"mine")
    with pytest.raises(UserError, match="^OUT: found .*, a file that this command did not write"):
        sample_run(name, "audi", 4, seed=0, out=folder)
    assert foreign.read_bytes() == b"mine"
    sample_run(name, "audi", 4, seed=0, out=folder, force=True)
    sample_run(name, "audi", 4, seed=0, out=folder)
    with pytest.raises(UserError, match="^OUT: found .*, allowed a folder"):
        sample_run(name, "audi", 1, out=paths[0])


def test_truncation_draws_towards_the_mean_car(run):
    name = run()
    plain = sample_run(name, count=4)
    whole, half, none = (tiles(sample_run(name, count=4, truncation=share), 2, 2) for share in (1.0, 0.5, 0.0))
    assert np.array_equal(whole, tiles(plain, 2, 2)) and not np.array_equal(whole, half)
    assert np.ptp(none.reshape(4, -1), axis=0).max() <= 1, "the mean latent draws one car"
    spread = [pictures.reshape(4, -1).astype(float).std(axis=0).mean() for pictures in (whole, half, none)]
    assert spread[0] > spread[1] > spread[2]


def test_a_mix_lies_between_and_random_draws_several(run):
    name = run(**CONDITIONAL)
    one, other = (tiles(sample_run(name, brand, 4), 2, 2) for brand in ("audi", "porsche"))
    near, half = (tiles(sample_run(name, f"audi:{a},porsche:{b}", 4), 2, 2) for a, b in ((999, 1), (1, 1)))

    def distance(a, b):
        return np.abs(a.astype(float) - b).mean()

    assert distance(near, one) < 0.2 * distance(half, one) and distance(half, one) < distance(other, one)
    mixed = tiles(sample_run(name, "random", 9), 3, 3).reshape(9, 32, 32, 3)
    rows = tiles(sample_run(name, "all", 9), 9, 3)
    same = np.abs(rows.astype(int) - mixed).max(axis=(2, 3, 4)) <= 1  # drawn in batches of another size
    assert len({same[:, k].tolist().index(True) for k in range(9)}) > 1


def test_grids_repeat_are_named_and_told_apart_by_seed(run):
    name = run(**CONDITIONAL)
    first = sample_run(name, "audi:0.6,porsche:0.4", 2)
    content = first.read_bytes()
    assert first.name == "brand-audi-0.6_porsche-0.4-2-step-00000004-seed-0.png"
    assert sample_run(name, "porsche:0.4,audi:0.6", 2) != first
    assert sample_run(name, "audi:0.6,porsche:0.4", 2).read_bytes() == content
    other = sample_run(name, "audi:0.6,porsche:0.4", 2, seed=1)
    assert other.name.endswith("-seed-1.png") and other.read_bytes() != content
    assert sample_run(name, "b m/w", 2).name.startswith("brand-b_m_w-")  # and a hash, for what was left out


def test_a_run_without_classes_draws_cars_and_no_brand(run):
    name = run()
    assert tiles(sample_run(name, count=4), 2, 2).std() > 0
    with pytest.raises(UserError, match="BRAND: found 'audi', allowed none: the run was trained without classes"):
        sample_run(name, "audi")
    with pytest.raises(UserError, match="checkpoint: found no"):
        sample_run(name, checkpoint="step-00000009")


WAYS = [("resnet", "cBN"), ("resnet", "concat"), ("conv", "cBN"), ("conv", "concat")]


@pytest.mark.parametrize("sn", [False, True])
@pytest.mark.parametrize(("backbone", "way"), WAYS)
def test_one_hot_weights_equal_labels_bit_for_bit(backbone, way, sn):
    spec = ArchSpec(32, 32, backbone, 8, 4, 4, num_classes=5, g_cond_mtd=way, d_cond_mtd="PD", apply_g_sn=sn)
    generator = spec_to_networks(spec)[0].eval()
    z, y = torch.randn(6, 8), torch.tensor([0, 4, 2, 2, 1, 3])
    weights = torch.nn.functional.one_hot(y, 5).float()
    assert torch.equal(generator(z, y), generator(z, weights))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generator(z, y), generator(z, weights))
    assert not torch.equal(generator(z, y), generator(z, 0.9 * weights + 0.02))


def test_an_older_run_is_sampled_with_passes_that_its_config_does_not_have(run, monkeypatch):
    passes = []
    monkeypatch.setattr("harness.checkpoints.sample.load_sampler", lambda loaded: passes.append(loaded.sample_passes))
    name = run(**RECONSTRUCTION)
    for overrides in ((), ("reconstruction.sample_passes=2",)):
        with pytest.raises(AttributeError):  # nothing is drawn
            sample_run(name, count=4, overrides=overrides)
    assert passes == [0, 2]
