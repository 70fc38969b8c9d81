"""The real StudioGAN under the shim, on a CPU: trains, saves, stops, goes on, fine-tunes, and in two processes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.harness.studiogan.shim.shim_jobs import OTHER_OPTIMIZER, Ran, make_job, run_shim, start_shim
from tests.harness.tiny_runs import file_hashes

pytestmark = [pytest.mark.studiogan, pytest.mark.slow]
HOMES = {
    "0.2.0": Path(os.environ.get("STUDIOGAN_HOME") or ROOT / "third_party" / "PyTorch-StudioGAN"),
    "0.4.0": ROOT / "third_party" / "PyTorch-StudioGAN-0.4.0",
}
VERSIONS = tuple(HOMES)


def home(version: str) -> Path:
    if not (HOMES[version] / "src" / "main.py").is_file():
        pytest.skip(f"no checkout of StudioGAN {version}")
    return HOMES[version]


def load(folder: Path, which: str) -> dict[str, Any]:
    (path,) = folder.glob(f"model={which}-current-weights-step=*.pth")
    return torch.load(path, weights_only=False)


def moved(before: dict[str, Any], after: dict[str, Any]) -> dict[str, bool]:
    """Per learnt tensor (not spectral norm's vectors), whether it has changed at all."""
    names = [name for name in before["state_dict"] if not name.endswith(("weight_u", "weight_v"))]
    return {name: not torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in names}


_trained: dict[str, tuple[Path, Ran]] = {}


@pytest.fixture(params=VERSIONS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, studiogan_python: Path) -> Any:
    """(version, working folder, what it said) of a run of 6 steps, made once per version."""
    version = request.param
    if version not in _trained:
        folder = make_job(tmp_path_factory.mktemp("trained") / version, home(version), version)
        _trained[version] = folder, run_shim(studiogan_python, folder)
    return version, *_trained[version]


def test_trains_and_ends_right_after_the_last_save(trained: Any) -> None:
    version, folder, ran = trained
    assert [line["step"] for line in ran.events("saved")] == ["4", "6"]
    assert ran.out.splitlines()[-1] == "carforge: finished step=6"
    assert list(ran.losses()) == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]
    saved = folder / "checkpoints" / "step-00000006"
    names = {f"model={which}-current-weights-step=6.pth" for which in ("G", "D", "G_ema")}
    assert {path.name for path in saved.iterdir()} == names | {"lecam-step=6.pt"}
    assert load(saved, "D")["step"] == 6
    anchors = torch.load(saved / "lecam-step=6.pt", weights_only=True)
    assert all(anchors[key].isfinite() for key in ("ema_real", "ema_fake"))
    if version == "0.4.0":
        assert load(saved, "D")["lecam_emas"]["D_real"] == pytest.approx(float(anchors["ema_real"]))


def test_lecam_acts_after_its_start_step_in_stock_0_2_0(trained: Any, tmp_path: Path, studiogan_python: Path) -> None:
    version, _, with_lecam = trained
    if version != "0.2.0":
        pytest.skip("0.4.0 has it of its own")
    folder = make_job(tmp_path / "without", home(version), lecam=None, last_step=4)
    without = run_shim(studiogan_python, folder)
    # start_iter is 2: iterations 0, 1, 2 (logged as 1, 2, 3) have no penalty, iteration 3 has one.
    assert [with_lecam.losses()[step] == without.losses()[step] for step in (1, 2, 3, 4)] == [True, True, True, False]
    assert not list(folder.glob("checkpoints/*/lecam*"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_signal_to_the_group_ends_it_saved_and_it_goes_on(
    version: str, tmp_path: Path, studiogan_python: Path
) -> None:
    changes: dict[str, Any] = {"last_step": 900, "save_every": 500, "num_workers": 1}
    folder = make_job(tmp_path / "stopped", home(version), version, **changes)
    process, lines = start_shim(studiogan_python, folder), []
    assert process.stdout is not None
    for line in process.stdout:
        if " > Step: " in line and not any(" > Step: " in earlier for earlier in lines):
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGINT)
        lines.append(line)
    ran = Ran("".join(lines), (folder / "stderr").read_text())
    assert process.wait() == 75, ran.err
    assert "Traceback" not in ran.err
    ((saved,), (stopped,)) = ran.events("saved"), ran.events("stopped")
    step = int(stopped["step"])
    assert step == int(saved["step"]) == max(ran.losses())

    again = make_job(
        tmp_path / "again", home(version), version, folder / saved["folder"], first_step=step, last_step=step + 2
    )
    before = file_hashes(again / "source")
    ran = run_shim(studiogan_python, again)
    assert ran.events("training") == [{"step": str(step)}]
    assert ran.events("lecam")[0]["restored"] == "1"
    assert list(ran.losses()) == [step + 1, step + 2]
    assert file_hashes(again / "source") == before


def test_freezed_with_its_own_rates_and_on_after_an_interruption(
    trained: Any, tmp_path: Path, studiogan_python: Path
) -> None:
    version, origin, _ = trained
    source = origin / "checkpoints" / "step-00000006"
    changes: dict[str, Any] = {"freeze_layers": 2, "optimizer": OTHER_OPTIMIZER}
    first = make_job(tmp_path / "first", home(version), version, source, last_step=3, **changes)
    ran = run_shim(studiogan_python, first)
    rates = {key: f"{value:.10g}" for key, value in OTHER_OPTIMIZER.items()}
    assert ran.events("optimizer") == [rates]
    assert ran.events("training") == [{"step": "0"}]
    assert file_hashes(first / "source") == file_hashes(source)
    between = first / "checkpoints" / "step-00000003"
    second = make_job(tmp_path / "second", home(version), version, between, first_step=3, last_step=5, **changes)
    ran = run_shim(studiogan_python, second)
    assert ran.events("training") == [{"step": "3"}] and ran.events("optimizer") == [rates]
    after = load(second / "checkpoints" / "step-00000005", "D")
    assert after["step"] == 5
    (group,) = after["optimizer"]["param_groups"]
    assert group["lr"] == OTHER_OPTIMIZER["d_lr"] and tuple(group["betas"]) == (0.5, 0.99)
    for begin in (load(source, "D"), load(between, "D")):
        changed = moved(begin, after)
        assert changed == {name: not name.startswith(("blocks.0.", "blocks.1.")) for name in changed}


def test_more_layers_than_can_be_frozen_are_refused(trained: Any, tmp_path: Path, studiogan_python: Path) -> None:
    version, origin, _ = trained
    source = origin / "checkpoints" / "step-00000006"
    folder = make_job(tmp_path / "all", home(version), version, source, freeze_layers=4)
    ran = run_shim(studiogan_python, folder, code=2)
    (line,) = [line for line in ran.err.splitlines() if line.startswith("carforge: ")]
    assert "freeze_layers: found 4, allowed 1 to 3" in line
    assert "Traceback" not in ran.err and not ran.events("training")


@pytest.mark.parametrize("version", VERSIONS)
def test_two_processes_train_and_each_has_its_lecam(version: str, tmp_path: Path, studiogan_python: Path) -> None:
    """StudioGAN's own -DDP over gloo: children are spawned, and begin without any patch."""
    folder = make_job(tmp_path / "two", home(version), version, processes=2, last_step=5, save_every=10)
    ran = run_shim(studiogan_python, folder)
    assert sorted(line["rank"] for line in ran.events("lecam")) == ["0", "1"]
    assert [line["step"] for line in ran.events("saved")] == ["5"]
    assert load(folder / "checkpoints" / "step-00000005", "D")["step"] == 5


def test_two_processes_fine_tune_with_frozen_layers(trained: Any, tmp_path: Path, studiogan_python: Path) -> None:
    """DDP waits for the gradient of every parameter that it was told of; frozen ones never have any."""
    version, origin, _ = trained
    source = origin / "checkpoints" / "step-00000006"
    changes: dict[str, Any] = {"processes": 2, "freeze_layers": 2, "last_step": 4, "save_every": 10}
    folder = make_job(tmp_path / "two", home(version), version, source, **changes)
    ran = run_shim(studiogan_python, folder)
    assert sorted(ran.losses()) == [1, 2, 3, 4]
    changed = moved(load(source, "D"), load(folder / "checkpoints" / "step-00000004", "D"))
    assert changed == {name: not name.startswith(("blocks.0.", "blocks.1.")) for name in changed}
