"""Import of StudioGAN's checkpoints as runs, with or without a config; export of runs for StudioGAN."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoints.checkpoint import load_state, load_weights, read_meta
from harness.checkpoints.load import find_checkpoint, load_checkpoint
from harness.config.experiment import config_to_yaml
from harness.errors import UserError
from harness.storage.rundir import RunDir
from harness.studiogan.dialects.convert import config_to_text
from harness.studiogan.weights.runs import export_run, import_run
from tests.harness.studiogan.weights.foreign_weights import (
    ATTENTION,
    CASES,
    CONDITIONAL,
    STEP,
    make_exported,
    pth,
    small_config,
)

SHAPE_KEYS = (
    "z_dim", "g_conv_dim", "d_conv_dim", "g_cond_mtd", "d_cond_mtd", "apply_g_sn", "apply_d_sn", "apply_attn",
    "apply_g_ema",
)  # fmt: skip


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(version: str = "0.2.0", classes: int = 0, **changes: Any) -> Path:
    config = small_config(**changes)
    return make_exported(Path(), config, classes, version=version, seed=7, run_name="SNGAN_cars-train-2022")[1]


@pytest.mark.parametrize(
    ("case", "version"),
    [(case, "0.2.0") for case in CASES] + [(CASES[2], "0.4.0")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_folder_alone_says_what_the_networks_are(case: Any, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    files_of(version, case.classes, **case.changes)
    run = import_run(Path("files"), "foreign")
    assert run == Path("runs/foreign")
    original, config = small_config(**case.changes), RunDir.existing("foreign").read_config()
    for key in SHAPE_KEYS:
        assert getattr(config.model, key) == getattr(original.model, key), key
    if original.model.apply_attn:
        assert (config.model.attn_g_loc, config.model.attn_d_loc) == (2, 1)
    assert config.data.img_size == original.data.img_size
    optim = config.optim
    assert (optim.g_lr, optim.d_lr, optim.beta1, optim.beta2, optim.eps) == (1e-3, 1e-3, 0.0, 0.9, 1e-6)
    assert config.seed == 7 and optim.total_steps == STEP

    told = capsys.readouterr().err
    assert "taken from base.yaml" in told and "loss.adv_loss=hinge" in told and "data.set=cars" in told
    assert "g_conv_dim" not in told and "img_size" not in told and "g_lr" not in told

    loaded = load_checkpoint(find_checkpoint(run / "checkpoints"))
    assert loaded.step == STEP and loaded.class_names == [f"class {n}" for n in range(case.classes)]
    stored = "generator_ema" if original.model.apply_g_ema else "generator"
    one = load_weights(Path(f"ours/step-{STEP:08d}"), stored)
    assert all(torch.equal(one[name], value) for name, value in loaded.generator.state_dict().items())
    assert loaded.discriminator.spec.img_height == original.data.img_size[0]


def test_the_run_is_complete_and_done() -> None:
    files_of()
    run = RunDir(import_run(Path("files")))
    assert run.path == Path("runs/SNGAN_cars-train-2022")
    status = run.read_status()
    assert status and status["state"] == "done" and status["step"] == status["total_steps"] == STEP
    env = json.loads(run.env_path.read_text())
    assert env["imported_from"] == str(Path("files").resolve()) and env["packages"]["torch"]
    assert run.samples.is_dir() and "imported from files" in run.log_path.read_text()
    meta = read_meta(find_checkpoint(run.checkpoints))
    assert meta["data_sha256"] is None and meta["studiogan"]["seed"] == 7
    assert not list(Path("runs").glob(".tmp-*"))


def test_a_generator_alone_draws_and_what_needs_d_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    files_of(**ATTENTION)
    Path("files").rename("elsewhere")
    Path("alone").mkdir()
    pth(Path("elsewhere"), "G").rename("alone/weights.pth")
    run = import_run(Path("alone/weights.pth"), "alone")
    capsys.readouterr()
    loaded = load_checkpoint(find_checkpoint(run / "checkpoints"))
    assert not loaded.config.model.apply_g_ema and loaded.config.model.apply_attn and loaded.step == STEP
    with torch.no_grad():
        assert loaded.generator(torch.randn(2, 8)).isfinite().all()
    with pytest.raises(UserError, match="no discriminator"):
        _ = loaded.discriminator
    assert not (loaded.folder / "discriminator.safetensors").exists()
    assert load_state(loaded.folder)["d_optimizer"]["state"] == {}


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_that_were_saved_through_a_wrapper(wrapper: str) -> None:
    """As torch's DataParallel and torch.compile name them."""
    files_of(classes=2, **CONDITIONAL)
    for letter in ("G", "D", "G_ema"):
        content = torch.load(pth(Path("files"), letter), weights_only=True)
        content["state_dict"] = {f"{wrapper}{name}": value for name, value in content["state_dict"].items()}
        torch.save(content, pth(Path("files"), letter))
    loaded = load_checkpoint(find_checkpoint(import_run(Path("files"), "wrapped") / "checkpoints"))
    one = load_weights(Path(f"ours/step-{STEP:08d}"), "generator_ema")
    assert all(torch.equal(one[name], value) for name, value in loaded.generator.state_dict().items())
    assert load_state(loaded.folder)["g_optimizer"]["state"]


def test_names_of_classes_go_out_and_come_in_again_and_other_files_have_numbers() -> None:
    files_of(classes=2, **CONDITIONAL)
    for run in (import_run(Path("files"), "foreign"), import_run(pth(Path("files"), "G"), "alone")):
        assert load_checkpoint(find_checkpoint(run / "checkpoints")).class_names == ["class 0", "class 1"]
    for letter in ("G", "D", "G_ema"):
        content = torch.load(pth(Path("files"), letter), weights_only=True)
        torch.save({key: value for key, value in content.items() if key != "class_names"}, pth(Path("files"), letter))
    run = import_run(Path("files"), "theirs")
    assert load_checkpoint(find_checkpoint(run / "checkpoints")).class_names == ["0", "1"]


def test_a_bare_state_dict_is_step_0() -> None:
    files_of()
    torch.save(torch.load(pth(Path("files"), "G"), weights_only=True)["state_dict"], "bare.pth")
    run = import_run(Path("bare.pth"))
    assert run == Path("runs/imported") and [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000000"]


def test_our_config_and_overrides_win() -> None:
    files_of(classes=2, **CONDITIONAL)
    Path("mine.yaml").write_text(
        config_to_yaml(small_config("mine", **CONDITIONAL, **{"loss.adv_loss": "least_square"}))
    )
    run = import_run(Path("files"), config=Path("mine.yaml"), overrides=["data.set=others", "optim.total_steps=90"])
    config = RunDir(run).read_config()
    assert run.name == "mine" and config.data.set == "others" and config.loss.adv_loss == "least_square"
    assert config.optim.total_steps == 90 and read_meta(find_checkpoint(run / "checkpoints"))["num_classes"] == 2
    other = import_run(Path("files"), "renamed", Path("mine.yaml"))
    assert other.name == "renamed" and RunDir(other).read_config().name == "renamed"


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
def test_studiogans_own_config_is_understood(version: str) -> None:
    files_of(version)
    original = small_config(**{"studiogan.version": version, "loss.apply_lecam": version == "0.4.0"})
    name, text = config_to_text(original, 1)
    Path(name).write_text(text)
    config = RunDir(import_run(Path("files"), "theirs", Path(name))).read_config()
    assert config.model.g_conv_dim == 4 and config.optim.d_updates_per_step == original.optim.d_updates_per_step
    assert config.loss.adv_loss == "hinge" and config.data.img_size == (32, 32)


def test_a_refusal_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    files_of()
    Path("mine.yaml").write_text(config_to_yaml(small_config("mine", **{"model.z_dim": 9})))
    with pytest.raises(UserError, match="linear0.weight"):
        import_run(Path("files"), config=Path("mine.yaml"))
    with pytest.raises(UserError, match="name: found '../up'"):
        import_run(Path("files"), "../up")
    with pytest.raises(UserError, match="model=G-best-weights"):
        import_run(Path("files"), "x", when="best")
    assert not Path("runs").exists()
    import_run(Path("files"), "once")
    before = sorted(Path("runs").rglob("*"))
    with pytest.raises(UserError, match="found runs/once already"):
        import_run(Path("files"), "once")
    assert sorted(Path("runs").rglob("*")) == before


def test_networks_of_another_kind_are_told() -> None:
    files_of()
    content = torch.load(pth(Path("files"), "G"), weights_only=True)
    for edit, word in (
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.2.")], "2 residual blocks"),
        (lambda s: s.pop("linear0.weight"), "found no linear0.weight"),
        (lambda s: s.update({"shared.weight": torch.zeros(3, 4)}), "BigGAN's shared embedding"),
    ):
        state = dict(content["state_dict"])
        edit(state)
        torch.save({**content, "state_dict": state}, "other.pth")
        with pytest.raises(UserError, match=word):
            import_run(Path("other.pth"), "other")
    torch.save({"weight": torch.zeros(3)}, "other.pth")
    with pytest.raises(UserError, match="0 residual blocks"):
        import_run(Path("other.pth"), "other")


def test_an_optimiser_that_is_not_adam_is_left_out_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    files_of()
    content = torch.load(pth(Path("files"), "G"), weights_only=True)
    group = {"lr": 0.1, "params": content["optimizer"]["param_groups"][0]["params"]}
    content["optimizer"] = {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": [group]}
    torch.save(content, pth(Path("files"), "G"))
    run = import_run(Path("files"), "sgd")
    assert "is not Adam" in capsys.readouterr().err
    state = load_state(find_checkpoint(run / "checkpoints"))
    assert state["g_optimizer"]["state"] == {} and state["d_optimizer"]["state"]


def test_an_imported_run_goes_out_again_with_a_config_beside_it() -> None:
    files_of()
    import_run(Path("files"), "foreign", overrides=["loss.apply_lecam=false"])
    out = export_run("foreign", Path("out"))
    for letter in ("G", "D", "G_ema"):
        one, other = (
            torch.load(pth(folder, letter), weights_only=True)["state_dict"] for folder in (Path("files"), out)
        )
        assert list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
    assert json.loads((out / "config.json").read_text())["train"]["model"]["z_dim"] == 8
    assert (export_run("foreign", Path("out4"), "0.4.0", f"step-{STEP:08d}") / "config.yaml").is_file()
    with pytest.raises(UserError, match="version"):
        export_run("foreign", Path("out5"), "0.3.0")
    with pytest.raises(UserError, match="found no runs/none"):
        export_run("none", Path("out5"))
    with pytest.raises(UserError, match="step-00000001"):
        export_run("foreign", Path("out5"), checkpoint="step-00000001")
