"""N steps and then M more are N + M steps, bit for bit; what may change on the way and what may not; FreezeD."""

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import (
    CONDITIONAL,
    ONE_UPDATE,
    HarnessProcess,
    assert_same_checkpoint,
    assert_same_state,
    die_at_operation,
    file_hashes,
    run_harness,
    tiny_config,
    write_set,
)

import harness.native.train
from harness.errors import UserError
from harness.native.checkpoint import load_state, load_weights, read_meta
from harness.native.train import finetune_run, train_run

ATTENTION = {"model__apply_attn": True, "model__attn_g_loc": 1, "model__g_conv_dim": 8, "model__d_conv_dim": 8}
LAST = Path("runs/tiny/checkpoints/step-00000012")
TUNED_LAST = Path("runs/tiny-freezed/checkpoints/step-00000006")


@pytest.fixture
def go_to(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    """Changes to a fresh folder with the same data: runs of one name (it stands in the files) side by side."""

    def change(name: str) -> Path:
        folder = workplace / name
        folder.mkdir()
        (folder / "data").symlink_to(workplace / "data")
        monkeypatch.chdir(folder)
        return folder

    return change


def rows_of(run: str = "tiny") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"runs/{run}/stats.jsonl").read_text().splitlines()]


# ---- exact resume -----------------------------------------------------------------------------------------------


def test_six_cuts_change_nothing(go_to, no_pictures) -> None:
    """Save every 5, samples every 4, a log line every 3 steps, 12 in all."""
    whole = go_to("whole") / LAST
    train_run(tiny_config())
    go_to("again")
    train_run(tiny_config())
    assert_same_checkpoint(whole, LAST)
    for cut in (1, 3, 4, 5, 7, 11):
        go_to(f"cut_{cut}")
        train_run(tiny_config(), limit_steps=cut)
        assert [p.name for p in sorted(Path("runs/tiny/checkpoints").iterdir())][-1] == f"step-{cut:08d}"
        train_run(tiny_config())
        assert_same_checkpoint(whole, LAST)
        steps = [row["step"] for row in rows_of()]
        assert steps == sorted({cut, 3, 6, 9, 12}), cut


def test_a_cut_before_the_first_step_changes_nothing(go_to, no_pictures, monkeypatch) -> None:
    whole = go_to("whole") / LAST
    train_run(tiny_config())
    go_to("cut")
    with monkeypatch.context() as patch:
        patch.setattr(harness.native.train, "train_step", lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_run(tiny_config())
    assert json.loads(Path("runs/tiny/status.json").read_text())["state"] == "failed"
    train_run(tiny_config())
    assert_same_checkpoint(whole, LAST)


@pytest.mark.parametrize(
    "changes",
    [
        CONDITIONAL,
        {"loss__adv_loss": "wasserstein", "loss__apply_gp": True, "train__d_call": "separate", **ATTENTION},
        {"loss__lecam_type": "gsrgan", "train__precision": "bf16", "train__fused_adam": False},
    ],
    ids=["conditional", "penalty-attention-separate", "gsrgan-bf16-loop"],
)
def test_other_models_resume_exactly(go_to, no_pictures, changes: dict[str, Any]) -> None:
    whole = go_to("whole") / "runs/tiny/checkpoints/step-00000005"
    changes = {"optim__total_steps": 5, **changes}
    train_run(tiny_config(**changes))
    go_to("cut")
    train_run(tiny_config(**changes), limit_steps=3)
    train_run(tiny_config(**changes))
    assert_same_checkpoint(whole, Path("runs/tiny/checkpoints/step-00000005"))


def test_lazy_reading_gives_the_same_weights(go_to, no_pictures) -> None:
    state = {}
    for where in ("resident", "lazy"):
        go_to(where)
        train_run(tiny_config(train__pictures=where), limit_steps=4)
        state[where] = load_weights(Path("runs/tiny/checkpoints/step-00000004"), "generator")
    assert_same_state(state["resident"], state["lazy"])
    train_run(tiny_config(train__pictures="resident"), limit_steps=5)  # a free key: may change on the way


def slowly() -> None:
    """Steps that take a while, so that a signal finds the run in the middle of them."""
    real = harness.native.train.train_step

    def step(run):
        time.sleep(0.1)
        return real(run)

    harness.native.train.train_step = step


def test_a_real_sigterm_changes_nothing(go_to, no_pictures) -> None:
    whole = go_to("whole") / LAST
    train_run(tiny_config())
    folder = go_to("cut")
    child = HarnessProcess(folder, "train", before=slowly)
    stats, deadline = Path("runs/tiny/stats.jsonl"), time.monotonic() + 60
    while not stats.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.process.terminate()
    assert child.wait() == 75, child.stderr
    assert "Traceback" not in child.stderr and "SIGTERM: finishing this step and saving" in child.stderr
    status = json.loads(Path("runs/tiny/status.json").read_text())
    assert status["state"] == "interrupted" and 3 <= status["step"] < 12
    assert not Path("runs/tiny/lock.json").exists()
    train_run(tiny_config())
    assert_same_checkpoint(whole, LAST)


def test_kills_spread_over_a_whole_run_change_nothing(go_to) -> None:
    """A fresh process is killed at the next file operation of a list, until one gets through."""
    changes = {"optim__total_steps": 6, "train__save_every_steps": 2, "train__log_every_steps": 1, **ONE_UPDATE}
    whole = go_to("whole") / "runs/tiny/checkpoints/step-00000006"
    assert run_harness(Path.cwd(), "train", **changes).process.exitcode == 0
    folder = go_to("killed")
    codes = []
    for point in (3, 20, 45, 70, 100, 130, 160, 200, 10_000):
        child = run_harness(folder, "train", before=partial(die_at_operation, point), **changes)
        codes.append(child.process.exitcode)
        assert "Traceback" not in child.stderr, child.stderr
    assert codes.count(9) >= 6 and codes[-1] == 0, codes
    assert_same_checkpoint(whole, Path("runs/tiny/checkpoints/step-00000006"))
    assert [row["step"] for row in rows_of()] == [1, 2, 3, 4, 5, 6]
    assert not [p for p in Path("runs/tiny").rglob("*") if ".tmp-" in p.name]
    whole_samples = file_hashes(whole.parents[1] / "samples")
    assert file_hashes(Path("runs/tiny/samples")) == whole_samples


# ---- what a run leaves ------------------------------------------------------------------------------------------


def test_what_a_run_leaves(workplace: Path) -> None:
    config = tiny_config(optim__total_steps=7, train__save_every_steps=2, train__keep_last=2)
    assert train_run(config) == Path("runs/tiny")
    assert [row["step"] for row in rows_of()] == [3, 6, 7]
    assert all(row[name] is not None for row in rows_of() for name in ("d_loss", "g_loss", "lecam", "sec_per_step"))
    assert [p.name for p in sorted(Path("runs/tiny/checkpoints").iterdir())] == ["step-00000006", "step-00000007"]
    samples = sorted(p.name for p in Path("runs/tiny/samples").iterdir())
    assert samples == ["reals.png", "step-00000000.png", "step-00000004.png", "step-00000007.png"]
    assert Image.open("runs/tiny/curves.png").width > 300
    status = json.loads(Path("runs/tiny/status.json").read_text())
    assert (status["state"], status["step"], status["total_steps"]) == ("done", 7, 7)
    env = json.loads(Path("runs/tiny/env.json").read_text())
    assert env["device"].startswith("cpu, 1 thread") and len(env["data_sha256"]) == 64
    assert "fp32" in Path("runs/tiny/log.txt").read_text()

    # Nothing to do: nothing changes.
    before = file_hashes(Path("runs/tiny"))
    train_run(config)
    assert file_hashes(Path("runs/tiny")) == before


def test_tensorboard_reads_the_events_and_forgets_what_was_taken_back(workplace: Path, no_pictures) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_run(tiny_config(train__log_every_steps=1), limit_steps=5)
    train_run(tiny_config(train__log_every_steps=1), limit_steps=8)
    shutil.rmtree("runs/tiny/checkpoints/step-00000008")  # the next start goes on from step 5
    train_run(tiny_config(train__log_every_steps=1), limit_steps=6)
    events = EventAccumulator("runs/tiny/tensorboard").Reload()
    assert [event.step for event in events.Scalars("d_loss")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows_of()] == [1, 2, 3, 4, 5, 6]
    assert events.Scalars("g_loss")[-1].value == pytest.approx(rows_of()[-1]["g_loss"], rel=1e-5)


def test_samples_are_a_function_of_the_weights(workplace: Path, monkeypatch) -> None:
    monkeypatch.setattr(harness.native.train, "save_curves", lambda *_: None)
    train_run(tiny_config(), limit_steps=4)
    first = Path("runs/tiny/samples/step-00000004.png").read_bytes()
    noise = Path("runs/tiny/noise.pt").read_bytes()
    shutil.rmtree("runs/tiny/checkpoints/step-00000004")
    Path("runs/tiny/samples/step-00000004.png").unlink()
    train_run(tiny_config(), limit_steps=4)
    assert Path("runs/tiny/samples/step-00000004.png").read_bytes() == first
    assert Path("runs/tiny/noise.pt").read_bytes() == noise

    # More pictures are asked for: new noise, a larger grid.
    train_run(tiny_config(train__sample_count=9), limit_steps=5)
    sizes = [Image.open(f"runs/tiny/samples/step-0000000{n}.png").size for n in (4, 5)]
    assert sizes[1][0] > sizes[0][0]


# ---- another config, another set --------------------------------------------------------------------------------


def test_a_changed_config_is_refused_unless_allowed(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    before = file_hashes(Path("runs/tiny/checkpoints"))
    changed = tiny_config(optim__d_lr=1e-3, optim__beta2=0.99, loss__lecam_lambda=0.1)
    with pytest.raises(UserError, match=r"(?s)--allow-config-change.*lecam_lambda.*beta2.*d_lr: run has 0.0004"):
        train_run(changed, limit_steps=3)
    assert file_hashes(Path("runs/tiny/checkpoints")) == before
    train_run(changed, limit_steps=3, allow_config_change=True)
    group = load_state(Path("runs/tiny/checkpoints/step-00000003"))["d_optimizer"]["param_groups"][0]
    assert (group["lr"], group["betas"]) == (1e-3, (0.0, 0.99))
    train_run(changed, limit_steps=4)  # is now the run's config


@pytest.mark.parametrize("fused", [True, False])
def test_the_other_adam_goes_on_where_it_is_allowed(workplace: Path, no_pictures, fused: bool) -> None:
    train_run(tiny_config(train__fused_adam=fused), limit_steps=2)
    train_run(tiny_config(train__fused_adam=not fused), limit_steps=3, allow_config_change=True)
    assert load_state(Path("runs/tiny/checkpoints/step-00000003"))["g_optimizer"]["state"][0]["step"] == 3


def test_more_steps_go_on(workplace: Path, no_pictures, capsys) -> None:
    train_run(tiny_config(optim__total_steps=3))
    train_run(tiny_config(optim__total_steps=3))
    assert "already at step 3 of 3" in capsys.readouterr().err
    train_run(tiny_config(optim__total_steps=5, train__save_every_steps=1, train__keep_last=3))
    assert [p.name[-1] for p in sorted(Path("runs/tiny/checkpoints").iterdir())] == ["3", "4", "5"]


def test_a_run_killed_after_its_last_save_is_done(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(optim__total_steps=2))
    status = json.loads(Path("runs/tiny/status.json").read_text())
    Path("runs/tiny/status.json").write_text(json.dumps(status | {"state": "running"}))
    train_run(tiny_config(optim__total_steps=2))
    assert json.loads(Path("runs/tiny/status.json").read_text())["state"] == "done"


def test_a_replaced_set_is_refused(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    shutil.copy("data/hdf5/other/custom_32_train.hdf5", "data/hdf5/tiny/custom_32_train.hdf5")
    before = file_hashes(Path("runs/tiny/checkpoints"))
    with pytest.raises(UserError, match="not the training set that runs/tiny began with"):
        train_run(tiny_config(), limit_steps=3)
    assert file_hashes(Path("runs/tiny/checkpoints")) == before


# ---- FreezeD ----------------------------------------------------------------------------------------------------


def test_freezed_run(go_to, no_pictures) -> None:
    """Frozen blocks stay bitwise, vectors too; the source stays as it was; cut and resumed it is the same."""
    whole = go_to("whole")
    train_run(tiny_config(), limit_steps=3)
    source = Path("runs/tiny/checkpoints/step-00000003")
    before = file_hashes(Path("runs/tiny"))
    assert finetune_run(tiny_config()) == Path("runs/tiny-freezed")
    assert file_hashes(Path("runs/tiny")) == before

    was, now = load_weights(source, "discriminator"), load_weights(TUNED_LAST, "discriminator")
    frozen = [key for key in was if key.startswith(("blocks.0.", "blocks.1."))]
    assert {key.rsplit("_", 1)[1] for key in frozen if "weight" in key} == {"orig", "u", "v"}
    assert all(torch.equal(was[key], now[key]) for key in frozen)
    free = [key for key in was if key not in frozen and key != "linear1.weight_u"]  # a vector of one number
    assert all(not torch.equal(was[key], now[key]) for key in free)
    moved = load_weights(source, "generator"), load_weights(TUNED_LAST, "generator")
    assert all(not torch.equal(moved[0][key], moved[1][key]) for key in moved[0] if "weight" in key)
    state, meta = load_state(TUNED_LAST), read_meta(TUNED_LAST)
    rates = [state[name]["param_groups"][0]["lr"] for name in ("g_optimizer", "d_optimizer")]
    assert rates == [1e-3, 4e-4]
    assert meta["finetuned_from"] == str(source)
    assert meta["finetuned_from_sha256"] == read_meta(source)["sha256"]

    folder = go_to("cut")
    shutil.copytree(whole / "runs/tiny", folder / "runs/tiny")
    finetune_run(tiny_config(), limit_steps=2)
    shutil.rmtree("runs/tiny")  # what it started from is in its own checkpoints now
    finetune_run(tiny_config())
    assert_same_checkpoint(whole / TUNED_LAST, TUNED_LAST)
    assert read_meta(TUNED_LAST)["finetuned_from"] == str(source)


def test_finetuning_starts_from_the_named_checkpoint(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(train__save_every_steps=1), limit_steps=3)
    finetune_run(tiny_config(), checkpoint="step-00000002", limit_steps=1)
    meta = read_meta(Path("runs/tiny-freezed/checkpoints/step-00000001"))
    assert meta["finetuned_from"] == "runs/tiny/checkpoints/step-00000002"
    with pytest.raises(UserError, match="step-00000009: cannot be fine-tuned"):
        finetune_run(tiny_config(), checkpoint="step-00000009")
    with pytest.raises(UserError, match="began from .*step-00000002, now .*step-00000003 is asked for"):
        finetune_run(tiny_config(), checkpoint="step-00000003")
    finetune_run(tiny_config(), checkpoint="step-00000002", limit_steps=2)


def test_a_source_without_average_starts_one(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(model__apply_g_ema=False), limit_steps=2)
    finetune_run(tiny_config(), limit_steps=1)
    assert (Path("runs/tiny-freezed/checkpoints/step-00000001") / "generator_ema.safetensors").exists()


def test_finetuning_refuses_what_cannot_be(workplace: Path, no_pictures) -> None:
    with pytest.raises(UserError, match="no checkpoint to start from"):
        finetune_run(tiny_config())
    train_run(tiny_config(), limit_steps=1)
    for count in (4, 9):  # 0 is refused by the config
        with pytest.raises(UserError, match=f"finetune.freeze_layers: found {count}, allowed 1 to 3"):
            finetune_run(tiny_config(finetune__freeze_layers=count))
    finetune_run(tiny_config(), limit_steps=1)  # a mended number goes on in the same folder
    shutil.rmtree("runs/tiny-freezed")
    with pytest.raises(UserError) as caught:
        finetune_run(tiny_config(model__g_conv_dim=8, model__z_dim=16, model__g_ema_decay=0.5))
    assert "model.g_conv_dim: the run has 4, this config 8" in str(caught.value)
    assert "model.z_dim: the run has 8, this config 16" in str(caught.value)
    assert "g_ema_decay" not in str(caught.value)
    write_set("large", size=64)
    large = {"data": {"set": "large"}}
    with pytest.raises(UserError, match=r"data.img_size: the run has \[32, 32\], this config \[64, 64\]"):
        finetune_run(tiny_config(data__img_size=64, finetune__override=large))
    assert not Path("runs/tiny-freezed").exists()
