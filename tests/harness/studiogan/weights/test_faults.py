"""Invalid weights files are refused with one clear line; nothing in them is run, nothing is left behind."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.experiment import Config
from harness.errors import UserError
from harness.studiogan.weights.convert import export_checkpoint, import_checkpoint
from harness.studiogan.weights.files import read_pth
from tests.harness.sabotage import Trap
from tests.harness.studiogan.weights.foreign_weights import (
    CONDITIONAL,
    STEP,
    make_checkpoint,
    make_exported,
    pth,
    small_config,
)
from tests.refusals import refusal_of

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("exported"), small_config())[1]


@pytest.fixture
def files(exported: Path, tmp_path: Path) -> Path:
    """A fresh copy of an export."""
    return shutil.copytree(exported, tmp_path / "files")


def refusal(files: Path, config: Config | None = None, facts: dict[str, Any] | None = None) -> str:
    """The one line of the refusal; no checkpoint is left."""
    checkpoints = files.parent / "checkpoints"
    text = refusal_of(import_checkpoint, files, config or small_config(), checkpoints, facts or {})
    assert not checkpoints.exists()
    return text


def change(files: Path, letter: str, edit: Change) -> None:
    content = torch.load(pth(files, letter), weights_only=True)
    edit(content)
    torch.save(content, pth(files, letter))


@pytest.mark.parametrize("letter", ["G", "D", "G_ema"])
def test_a_pickle_that_runs_something_is_refused_and_not_run(files: Path, letter: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    change(files, letter, lambda content: content.update(run_name=Trap(marker)))
    text = refusal(files)
    assert not marker.exists() and all(part in text for part in ("mkdir", pth(files, letter).name))
    assert "nothing in it was run" in text
    torch.load(pth(files, letter), weights_only=False)  # it does bite
    assert marker.exists()


def test_anchors_that_run_something_are_refused_and_not_run(files: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"ema_real": Trap(marker), "ema_fake": None}, files / f"lecam-step={STEP}.pt")
    assert "mkdir" in refusal(files) and not marker.exists()
    torch.save({"ema_real": 1.0}, files / f"lecam-step={STEP}.pt")
    assert "LeCam" in refusal(files)


@pytest.mark.parametrize("keep", [0, 10, 1000, -20])
def test_a_file_cut_off_is_refused(files: Path, keep: int) -> None:
    pth(files, "D").write_bytes(pth(files, "D").read_bytes()[:keep])
    assert "damaged" in refusal(files) and "model=D" in refusal(files)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content in (b"<html>", b"", b"\x80\x02."):
        path.write_bytes(content)
        assert "damaged" in refusal_of(read_pth, path)
    for value in ({"state_dict": {"a": 1}}, [torch.zeros(1)], {}, {"a": torch.zeros(1), "b": 3}, torch.zeros(2)):
        torch.save(value, path)
        assert "found no state_dict" in refusal_of(read_pth, path)
    assert "cannot be read" in refusal_of(read_pth, tmp_path / "nothing.pth")
    torch.save({"a": torch.zeros(1)}, path)
    assert list(read_pth(path)["state_dict"]) == ["a"]


def test_damage_anywhere_is_a_refusal_or_harmless(files: Path, tmp_path: Path) -> None:
    good, path, refused = pth(files, "G").read_bytes(), tmp_path / "x.pth", 0
    rng = random.Random(0)
    for _ in range(60):
        content = bytearray(good)
        # Half of them in the pickle, which stands at the start.
        place = rng.randrange(min(4000, len(content))) if rng.random() < 0.5 else rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            read_pth(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 12


def test_files_that_are_missing_are_named(files: Path, tmp_path: Path) -> None:
    pth(files, "G_ema").unlink()
    assert "G_ema" in refusal(files) and "apply_g_ema=false" in refusal(files)
    pth(files, "D").unlink()
    assert f"model=D-current-weights-step={STEP}.pth" in refusal(files)
    pth(files, "G").unlink()
    assert "no .pth file" in refusal(files)
    assert "no .pth file" in refusal(tmp_path / "nowhere")


def test_another_shape_is_told_with_both(files: Path) -> None:
    text = refusal(files, small_config(**{"model.z_dim": 9}))
    assert "linear0.weight: found 256x8 float32, allowed 256x9 float32" in text
    assert "lacks blocks.3.0." in refusal(files, small_config(**{"data.img_size": 64}))


def test_another_type_of_number_is_refused(files: Path) -> None:
    change(files, "G", lambda content: content["state_dict"].update({"bn4.bias": torch.zeros(16, dtype=torch.float64)}))
    assert "bn4.bias: found 16 float64, allowed 16 float32" in refusal(files)


def test_keys_that_are_missing_or_unknown_are_named(files: Path) -> None:
    change(files, "D", lambda content: content["state_dict"].pop("linear1.weight_u"))
    assert "lacks linear1.weight_u" in refusal(files)
    change(files, "D", lambda content: content["state_dict"].update({"linear4.bias": torch.zeros(3)}))
    assert "linear4.bias (ACGAN's classifier)" in refusal(files)


def test_one_missing_statistic_is_not_taken_for_a_fork_without_any(files: Path) -> None:
    change(files, "G", lambda content: content["state_dict"].pop("bn4.running_var"))
    assert "lacks bn4.running_var" in refusal(files)


def test_classes_that_do_not_fit_are_told(files: Path, tmp_path: Path) -> None:
    assert "without classes" in refusal(files, small_config(**CONDITIONAL))
    config = small_config(**CONDITIONAL)
    _, conditional = make_exported(tmp_path / "three", config, 3)
    assert "has 3 classes, allowed the 2" in refusal(conditional, config, {"class_names": ["a", "b"]})
    assert "blocks.0.0.bn1." in refusal(conditional)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["optimizer"]["state"].update({0: {"momentum_buffer": torch.zeros(1)}}), "momentum_buffer"),
        (lambda c: c["optimizer"]["param_groups"][0]["params"].pop(), "other parameters"),
        (lambda c: c["optimizer"]["param_groups"].append({"params": []}), "other parameters"),
        (lambda c: c["optimizer"]["state"][3].update(exp_avg=torch.zeros(2)), "does not fit blocks.0.0.bn1.bias"),
        (lambda c: c["optimizer"]["state"][0].update(step="many"), "non-numeric values"),
        (lambda c: c["optimizer"]["param_groups"][0].update(betas=0.9), "non-numeric values"),
        (lambda c: c["optimizer"]["param_groups"][0].pop("betas"), "allowed Adam"),
        (lambda c: c.update(optimizer=[1]), "without state and param_groups"),
        (lambda c: c.update(step=8), "different steps"),
        (lambda c: c.update(step="many"), "found step 'many'"),
    ],
)
def test_an_optimiser_or_step_that_does_not_fit_is_refused(files: Path, edit: Change, words: str) -> None:
    change(files, "G", edit)
    assert words in refusal(files)


def test_an_export_beside_another_one_is_refused(files: Path, tmp_path: Path) -> None:
    """StudioGAN takes the first file that it finds."""
    ours = make_checkpoint(tmp_path / "ours", small_config())
    pth(files, "G").rename(pth(files, "G", step=99))
    with pytest.raises(UserError, match="step=99.*another save"):
        export_checkpoint(ours, files, version="0.2.0", seed=42, run_name="r")


def test_sizes_that_studiogan_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="32x48"):
        make_exported(tmp_path, small_config(**{"data.img_size": [32, 48]}))
    assert not (tmp_path / "files").exists()


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    ours = make_checkpoint(tmp_path / "ours", small_config())
    with open(ours / "discriminator.safetensors", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    with pytest.raises(UserError, match="discriminator.safetensors is damaged"):
        export_checkpoint(ours, tmp_path / "files", version="0.2.0", seed=42, run_name="r")
