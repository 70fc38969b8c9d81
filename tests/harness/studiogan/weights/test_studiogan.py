"""The real StudioGAN on exported files: strict loading, equal pictures and logits, an update, and back again."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.checkpoints.checkpoint import load_state, load_weights, read_meta
from harness.config.experiment import Config
from harness.errors import UserError
from harness.networks.build import build_networks
from harness.studiogan.checkout import find_checkout, find_python
from harness.studiogan.weights.convert import import_checkpoint
from harness.studiogan.weights.names import to_name_040
from tests.harness.studiogan.weights.foreign_weights import CASES, STEP, Case, make_exported, small_config

SCRIPT = Path(__file__).with_name("studiogan_networks.py")
TOLERANCE = 1e-5
pytestmark = pytest.mark.studiogan


def model_of(config: Config, classes: int) -> dict[str, Any]:
    m = config.model
    return {
        "size": config.data.img_size[0], "z_dim": m.z_dim, "g_conv_dim": m.g_conv_dim, "d_conv_dim": m.d_conv_dim,
        "classes": classes, "g_sn": m.apply_g_sn, "d_sn": m.apply_d_sn, "attention": m.apply_attn,
        "g_loc": m.attn_g_loc, "d_loc": m.attn_d_loc,
    }  # fmt: skip


Exported = tuple[Path, dict[str, Any]]  # the folder with ours, files and out; what StudioGAN got to draw and judge


def export_case(case: Case, version: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(job for StudioGAN's side, the inputs in it) of a fresh checkpoint in `folder`."""
    config, classes, count = small_config(**case.changes), case.classes, 3
    _, files = make_exported(folder, config, classes, version=version, run_name="a-run")
    torch.manual_seed(3)
    y = torch.tensor([i % classes for i in range(count)]) if classes else None
    size = config.data.img_size[0]
    given = {"z": torch.randn(count, config.model.z_dim), "y": y, "x": torch.rand(count, 3, size, size) * 2 - 1}
    (folder / "out").mkdir()
    torch.save(given, folder / "inputs.pt")
    paths = {"files": str(files), "out": str(folder / "out"), "inputs": str(folder / "inputs.pt")}
    return {"version": version, "model": model_of(config, classes), **paths}, given


@pytest.fixture(scope="module", params=["0.2.0", "0.4.0"])
def worked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Exported]]:
    """(version, {case: its folder and inputs}) after StudioGAN's own code has been at all of them, in one process."""
    version, folder = request.param, tmp_path_factory.mktemp("worked")
    try:
        checkout, python = find_checkout(version), find_python()
    except UserError as error:
        pytest.skip(f"no StudioGAN {version} here ({error})")
    jobs, exported = [], {}
    for case in CASES:
        job, given = export_case(case, version, folder / case.name)
        jobs.append(job)
        exported[case.name] = folder / case.name, given
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python), "-B", str(SCRIPT), str(folder / "jobs.json")]
    done = subprocess.run(command, cwd=checkout / "src", capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return version, exported


def networks_of(folder: Path, config: Config, classes: int, generator: str) -> tuple[nn.Module, nn.Module]:
    g, d = build_networks(config, classes, torch.device("cpu"))
    g.load_state_dict(load_weights(folder, generator))
    d.load_state_dict(load_weights(folder, "discriminator"))
    return g, d


def our_moments(folder: Path, network: nn.Module, optimizer: str, version: str) -> dict[str, Tensor]:
    """By StudioGAN's names; a class table's moments are turned as the table is in 0.4.0."""
    state, found = load_state(folder)[optimizer]["state"], {}
    for index, (name, _) in enumerate(network.named_parameters()):
        theirs = to_name_040(name) if version == "0.4.0" else name
        for key, value in state[index].items():
            found[f"{theirs}/{key}"] = value.t() if theirs != name and value.dim() == 2 else value
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_studiogan_loads_draws_judges_and_goes_on(case: Case, worked: tuple[str, dict[str, Exported]]) -> None:
    version, (folder, given) = worked[0], worked[1][case.name]
    config, y = small_config(**case.changes), given["y"]
    result = torch.load(folder / "out/result.pt", weights_only=True)
    ours = folder / "ours" / f"step-{STEP:08d}"

    expected = {"seed": 42, "run_name": "a-run", "step": STEP, "best_step": 0, "best_fid": None}
    assert {key: result["facts"][key] for key in expected} == expected
    if version == "0.4.0" and config.loss.apply_lecam:
        assert result["facts"]["lecam"] == {"D_real": 0.25, "D_fake": -0.125}

    # Same pictures and logits, of the moving average too.
    g, d = networks_of(ours, config, case.classes, "generator")
    with torch.no_grad():
        assert far(g.eval()(given["z"], y), result["pictures"]) <= TOLERANCE
        assert far(d.eval()(given["x"], y), result["logits"]) <= TOLERANCE
        if config.model.apply_g_ema:
            average, _ = networks_of(ours, config, case.classes, "generator_ema")
            assert far(average.eval()(given["z"], y), result["average"]) <= TOLERANCE
            assert far(result["average"], result["pictures"]) > 1e-3
    assert_same_moments(ours, g, d, version, result["moments"])

    # One update there, saved there, imported here: what stands in its networks stands in ours.
    back = import_checkpoint(folder / "out", config, folder / "back", {})
    meta = read_meta(back)
    assert meta["step"] == STEP + 1 and meta["studiogan"]["best_fid"] == (9.5 if version == "0.2.0" else None)
    assert (load_state(back)["lecam"] is None) == (version == "0.2.0" or not config.loss.apply_lecam)
    g, d = networks_of(back, config, case.classes, "generator")
    assert_same_moments(back, g, d, version, result["moments_after"])
    assert float(load_state(back)["g_optimizer"]["state"][0]["step"]) == 3
    for letter, network in (("G", g), ("D", d)):
        for name, value in network.state_dict().items():
            theirs = to_name_040(name) if version == "0.4.0" else name
            other = result["after"][letter][theirs]
            assert torch.equal(value, other.t() if theirs != name and other.dim() == 2 else other), name


def far(one: Tensor, other: Tensor) -> float:
    """Largest difference; of numbers beyond 1, relative to the largest."""
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def assert_same_moments(folder: Path, g: nn.Module, d: nn.Module, version: str, theirs: dict[str, Any]) -> None:
    """Every parameter has its own, bit for bit."""
    for letter, network, optimizer in (("G", g, "g_optimizer"), ("D", d, "d_optimizer")):
        mine = our_moments(folder, network, optimizer, version)
        assert set(mine) == set(theirs[letter])
        assert all(torch.equal(mine[key], theirs[letter][key]) for key in mine)
