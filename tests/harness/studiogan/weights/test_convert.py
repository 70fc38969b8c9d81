"""Checkpoints to StudioGAN's files and back: every bit, by name; and the native engine goes on from them."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.checkpoints.checkpoint import load_state, load_weights, read_meta
from harness.config.experiment import Config
from harness.native.train import train_run
from harness.networks.build import build_networks
from harness.studiogan.weights.convert import export_checkpoint, import_checkpoint
from harness.studiogan.weights.names import parameter_names
from tests.harness.studiogan.weights.foreign_weights import CASES, STEP, Case, make_exported, pth, small_config
from tests.harness.tiny_runs import assert_same_state, write_set

VERSIONS = ("0.2.0", "0.4.0")
NETWORKS = {"G": "generator", "G_ema": "generator_ema", "D": "discriminator"}


def config_of(case: Case, **changes: Any) -> Config:
    return small_config(**{**case.changes, **changes})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_there_and_back_is_bit_for_bit(case: Case, version: str, tmp_path: Path) -> None:
    config = config_of(case)
    ours, files = make_exported(tmp_path, config, case.classes, version=version, run_name="a-run")
    facts = {key: read_meta(ours)[key] for key in ("data_sha256", "class_names")}
    back = import_checkpoint(files, config, tmp_path / "back", facts)

    assert back == tmp_path / "back" / f"step-{STEP:08d}"
    names = [name for name in NETWORKS.values() if (ours / f"{name}.safetensors").exists()]
    assert len(names) == (3 if config.model.apply_g_ema else 2)
    for name in names:  # equal names, order and bits: equal files
        assert (back / f"{name}.safetensors").read_bytes() == (ours / f"{name}.safetensors").read_bytes(), name
    one, other = load_state(ours), load_state(back)
    for optimizer in ("g_optimizer", "d_optimizer"):
        assert len(one[optimizer]["state"]) > 10
        assert_same_state(one[optimizer]["state"], other[optimizer]["state"], optimizer)
        mine, theirs = one[optimizer]["param_groups"][0], other[optimizer]["param_groups"][0]
        assert {k: mine[k] for k in ("lr", "betas", "eps", "params")} == {
            k: theirs[k] for k in ("lr", "betas", "eps", "params")
        }
    assert_same_state(one["lecam"], other["lecam"])
    kept = read_meta(back)
    assert {key: kept[key] for key in facts} == facts and kept["config"] == read_meta(ours)["config"]
    assert kept["num_classes"] == case.classes and kept["step"] == other["step"] == STEP
    assert kept["studiogan"] == {"run_name": "a-run", "seed": 42, "best_step": 0, "best_fid": None}
    assert "batch_norm_statistics" not in kept


def test_020_has_our_names_in_our_order_and_all_that_it_reads(tmp_path: Path) -> None:
    case = CASES[2]
    _, files = make_exported(tmp_path, config_of(case), case.classes, seed=3)
    generator, _ = build_networks(config_of(case), case.classes, torch.device("cpu"))
    contents = {letter: torch.load(pth(files, letter), weights_only=True) for letter in NETWORKS}
    assert list(contents["G"]["state_dict"]) == list(generator.state_dict())
    shared = {"seed", "run_name", "step", "best_step", "state_dict", "optimizer", "ada_p", "class_names"}
    assert set(contents["G"]) == shared and set(contents["G_ema"]) == {"state_dict", "class_names"}
    assert set(contents["D"]) == shared | {"best_fid", "best_fid_checkpoint_path"}
    assert (contents["G"]["seed"], contents["D"]["step"], contents["D"]["ada_p"]) == (3, STEP, "No")
    group = contents["G"]["optimizer"]["param_groups"][0]
    assert not group["fused"] and not group["capturable"]  # StudioGAN takes the group over as it stands
    assert all(t.is_contiguous() for t in contents["D"]["state_dict"].values())
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert statistics <= {key.rsplit(".", 1)[1] for key in contents["G"]["state_dict"]}
    assert sorted(p.name for p in files.glob("*.pt")) == [f"lecam-step={STEP}.pt"]


@pytest.mark.parametrize("spectral", [False, True])
def test_040_has_the_class_tables_as_linear_layers_of_the_same_function(spectral: bool, tmp_path: Path) -> None:
    case = CASES[2]
    config = config_of(case, **{"model.apply_g_sn": spectral})
    ours, files = make_exported(tmp_path, config, case.classes, version="0.4.0")
    content = torch.load(pth(files, "G"), weights_only=True)
    assert set(content) == {"state_dict", "optimizer", "class_names"}
    state = content["state_dict"]
    assert not any("embed" in key for key in state)
    generator, _ = build_networks(config, case.classes, torch.device("cpu"))
    generator.load_state_dict(load_weights(ours, "generator"))
    generator.eval()
    y = torch.tensor([2, 0, 1, 2])
    one_hot = torch.nn.functional.one_hot(y, case.classes).float()
    for theirs, embedding in (("gain", "embed0"), ("bias", "embed1")):
        where = f"blocks.1.0.bn2.{theirs}."
        if spectral:
            weight, u, v = (state[where + part] for part in ("weight_orig", "weight_u", "weight_v"))
            weight = weight / torch.dot(u, weight @ v)
        else:
            weight = state[where + "weight"]
        expected = generator.get_submodule(f"blocks.1.0.bn2.{embedding}")(y)
        torch.testing.assert_close(one_hot @ weight.t(), expected, atol=1e-6, rtol=1e-6)


def test_040_keeps_anchors_with_d_and_orders_its_batch_norms_its_own_way(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "32-no-sn")
    ours, files = make_exported(tmp_path, config_of(case), version="0.4.0")
    content = torch.load(pth(files, "D"), weights_only=True)
    assert content["lecam_emas"]["D_real"] == 0.25 and content["lecam_emas"]["D_fake"] == -0.125
    assert not list(files.glob("*.pt"))
    names = parameter_names(content["state_dict"])
    assert [n for n in names if n.startswith("blocks.0.0.bn0")] == names[6:8]
    assert names.index("blocks.1.0.bn0.weight") == names.index("blocks.1.0.conv2d0.bias") + 1
    # The optimiser's numbers follow that order, not ours.
    _, d = build_networks(config_of(case), 0, torch.device("cpu"))
    ours_by_name = dict(zip(dict(d.named_parameters()), load_state(ours)["d_optimizer"]["state"].values(), strict=True))
    for index, name in enumerate(names):
        assert torch.equal(content["optimizer"]["state"][index]["exp_avg"], ours_by_name[name]["exp_avg"]), name


@pytest.mark.parametrize("version", VERSIONS)
def test_frozen_blocks_have_no_moments_on_either_side(version: str, tmp_path: Path) -> None:
    config = small_config()
    ours, files = make_exported(tmp_path, config, frozen=2, version=version)
    there = torch.load(pth(files, "D"), weights_only=True)["optimizer"]
    kept = load_state(ours)["d_optimizer"]
    assert set(there["state"]) == set(kept["state"]) and 0 not in there["state"] and len(there["state"]) > 5
    assert len(there["param_groups"][0]["params"]) == len(kept["param_groups"][0]["params"])
    back = load_state(import_checkpoint(files, config, tmp_path / "back", {}))
    assert_same_state(back["d_optimizer"]["state"], kept["state"])


def test_best_fid_as_numpy_keeps_it_is_read(tmp_path: Path) -> None:
    _, files = make_exported(tmp_path, small_config(), when="best")
    content = torch.load(pth(files, "D", "best"), weights_only=True)
    torch.save({**content, "best_fid": np.float64(12.5), "best_step": 6}, pth(files, "D", "best"))
    with pytest.raises(Exception, match="numpy"):
        torch.load(pth(files, "D", "best"), weights_only=True)
    new = import_checkpoint(files, small_config(), tmp_path / "new", {}, when="best")
    assert read_meta(new)["studiogan"]["best_fid"] == 12.5
    _rename_in_pickle(pth(files, "D", "best"), b"numpy._core.multiarray", b"numpy.core.multiarray")
    old = import_checkpoint(files, small_config(), tmp_path / "old", {}, when="best")
    assert read_meta(old)["studiogan"]["best_fid"] == 12.5
    again = export_checkpoint(old, tmp_path / "again", version="0.2.0", seed=1, run_name="r")
    assert torch.load(pth(again, "D"), weights_only=True)["best_fid"] == 12.5


def _rename_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """As numpy 1 wrote it."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in records if name.endswith("data.pkl"))
    assert old in records[pickled]
    records[pickled] = records[pickled].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, record)


def test_a_checkpoint_that_is_there_stays(tmp_path: Path) -> None:
    config = small_config()
    ours, files = make_exported(tmp_path, config)
    before = (ours / "meta.json").read_bytes()
    assert import_checkpoint(files, config, tmp_path / "ours", {"data_sha256": "other"}) == ours
    assert (ours / "meta.json").read_bytes() == before


def test_the_newest_step_is_taken(tmp_path: Path) -> None:
    config = small_config()
    _, files = make_exported(tmp_path, config)
    for letter in NETWORKS:
        content = torch.load(pth(files, letter), weights_only=True)
        torch.save({**content, "step": 10} if "step" in content else content, pth(files, letter, step=10))
    assert import_checkpoint(files, config, tmp_path / "back", {}).name == "step-00000010"


def test_without_statistics_they_are_fresh_and_marked_and_exported_as_computed(tmp_path: Path) -> None:
    """The first seed's fork keeps none."""
    config = small_config(**{"model.apply_g_ema": False})
    ours, files = make_exported(tmp_path, config)
    content = torch.load(pth(files, "G"), weights_only=True)
    pattern = re.compile(r".*(running_mean|running_var|num_batches_tracked)")
    kept = {key: value for key, value in content["state_dict"].items() if not pattern.fullmatch(key)}
    assert len(kept) < len(content["state_dict"])
    torch.save({**content, "state_dict": kept}, pth(files, "G"))
    back = import_checkpoint(files, config, tmp_path / "back", {})
    assert read_meta(back)["batch_norm_statistics"] == "none"
    weights = load_weights(back, "generator")
    assert float(weights["bn4.running_mean"].abs().max()) == 0 and float(weights["bn4.running_var"].min()) == 1
    assert_same_state(load_state(back)["g_optimizer"]["state"], load_state(ours)["g_optimizer"]["state"])

    again = export_checkpoint(back, tmp_path / "again", version="0.2.0", seed=42, run_name="r")
    exported = torch.load(pth(again, "G"), weights_only=True)["state_dict"]
    assert float(exported["bn4.running_mean"].abs().max()) > 1e-4
    assert all(torch.equal(exported[key], kept[key]) for key in kept)


def test_the_native_engine_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    """Two steps, to StudioGAN's files and back, two more: as four in one go."""
    monkeypatch.chdir(tmp_path)
    write_set("tiny", count=12)
    changes = {
        "data.set": "tiny", "optim.batch_size": 2, "optim.d_updates_per_step": 1, "optim.total_steps": 4,
        "model.g_ema_start": 0, "loss.lecam_ema_start_iter": 1,
        "model.g_cond_mtd": "cBN", "model.d_cond_mtd": "PD", "train.precision": "fp32",
    }  # fmt: skip
    whole = train_run(small_config("whole", **changes))
    config = small_config("halves", **changes)
    halves = train_run(config, limit_steps=2)
    half = halves / "checkpoints/step-00000002"
    meta = read_meta(half)
    files = export_checkpoint(half, tmp_path / "files", version="0.2.0", seed=42, run_name="r")
    half.rename(tmp_path / "away")
    facts = {key: meta[key] for key in ("data_sha256", "class_names")}
    assert import_checkpoint(files, config, halves / "checkpoints", facts) == half
    train_run(config)
    one, other = (run / "checkpoints/step-00000004" for run in (whole, halves))
    for name in NETWORKS.values():
        assert_same_state(load_weights(one, name), load_weights(other, name), name)
    assert_same_state(load_state(one), load_state(other))
    assert json.loads((other / "meta.json").read_text())["config"]["name"] == "halves"
