"""N steps and then M more equal N + M steps bit for bit; which config changes a resume allows."""

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import harness.native.train
from harness.checkpoints.checkpoint import load_state, load_weights
from harness.errors import UserError
from harness.native.train import train_run
from tests.harness.native.evaluated_runs import LAST
from tests.harness.tiny_runs import (
    CONDITIONAL,
    ONE_UPDATE,
    RECONSTRUCTION,
    HarnessProcess,
    assert_same_checkpoint,
    assert_same_state,
    checkpoint_names,
    die_at_operation,
    file_hashes,
    rows_logged,
    run_harness,
    status,
    step_after,
    steps_logged,
    tiny_config,
)

ATTENTION = {"model__apply_attn": True, "model__attn_g_loc": 1, "model__g_conv_dim": 8, "model__d_conv_dim": 8}
# ---- exact resume -----------------------------------------------------------------------------------------------


@pytest.fixture
def whole(uninterrupted: Callable[..., Path]) -> Path:
    """The last checkpoint of a run that nothing happened to."""
    return uninterrupted() / "checkpoints/step-00000012"


def test_six_cuts_change_nothing(go_to, whole: Path, no_pictures) -> None:
    """Save every 5, samples every 4, a log line every 3 steps, 12 in all."""
    for cut in (1, 3, 4, 5, 7, 11):
        go_to(f"cut_{cut}")
        train_run(tiny_config(), limit_steps=cut)
        assert checkpoint_names()[-1] == f"step-{cut:08d}"
        train_run(tiny_config())
        assert_same_checkpoint(whole, LAST)
        assert steps_logged() == sorted({cut, 3, 6, 9, 12}), cut


def test_a_cut_before_the_first_step_changes_nothing(workplace: Path, whole: Path, no_pictures, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(harness.native.train, "train_step", lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_run(tiny_config())
    assert status()["state"] == "failed"
    train_run(tiny_config())
    assert_same_checkpoint(whole, LAST)


@pytest.mark.parametrize(
    "changes",
    [
        CONDITIONAL,
        {"loss__adv_loss": "wasserstein", "loss__apply_gp": True, "train__numerics": "studiogan", **ATTENTION},
        {"loss__lecam_type": "gsrgan", "train__precision": "bf16", "train__fused_adam": False},
        {**RECONSTRUCTION, "model__g_cond_mtd": "concat", "model__d_cond_mtd": "PD", "optim__cosine_from": 0.5},
    ],
    ids=["conditional", "penalty-attention-studiogan", "gsrgan-bf16-loop", "reconstruction"],
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
    harness.native.train.train_step = step_after(lambda done: time.sleep(0.1))


def test_a_real_sigterm_changes_nothing(workplace: Path, whole: Path, no_pictures) -> None:
    child = HarnessProcess(workplace, "train", before=slowly)
    stats, deadline = Path("runs/tiny/stats.jsonl"), time.monotonic() + 60
    while not stats.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.process.terminate()
    assert child.wait() == 75, child.stderr
    assert "Traceback" not in child.stderr and "SIGTERM: finishing this step and saving" in child.stderr
    assert status()["state"] == "interrupted" and 3 <= status()["step"] < 12
    assert not Path("runs/tiny/lock.json").exists()
    train_run(tiny_config())
    assert_same_checkpoint(whole, LAST)


def test_kills_spread_over_a_whole_run_change_nothing(go_to) -> None:
    """A fresh process is killed at the next file operation of a list, until one gets through."""
    changes = {"optim__total_steps": 6, "train__save_every_steps": 2, "train__log_every_steps": 1, **ONE_UPDATE}
    whole = go_to("whole") / "runs/tiny/checkpoints/step-00000006"
    assert run_harness(Path.cwd(), "train", **changes).process.exitcode == 0
    folder, codes = go_to("killed"), []
    for point in (3, 20, 45, 70, 100, 130, 160, 200, 10_000):
        child = run_harness(folder, "train", before=partial(die_at_operation, point), **changes)
        codes.append(child.process.exitcode)
        assert "Traceback" not in child.stderr, child.stderr
    assert codes.count(9) >= 6 and codes[-1] == 0, codes
    assert_same_checkpoint(whole, Path("runs/tiny/checkpoints/step-00000006"))
    assert steps_logged() == [1, 2, 3, 4, 5, 6]
    assert not [p for p in Path("runs/tiny").rglob("*") if ".tmp-" in p.name]
    assert file_hashes(Path("runs/tiny/samples")) == file_hashes(whole.parents[1] / "samples")


# ---- what a run leaves ------------------------------------------------------------------------------------------


def test_what_a_run_leaves(workplace: Path) -> None:
    config = tiny_config(optim__total_steps=7, train__save_every_steps=2, train__keep_last=2)
    assert train_run(config) == Path("runs/tiny")
    assert steps_logged() == [3, 6, 7]
    names = ("d_loss", "g_loss", "lecam", "sec_per_step")
    assert all(row[name] is not None for row in rows_logged() for name in names)
    assert checkpoint_names() == ["step-00000006", "step-00000007"]
    samples = sorted(p.name for p in Path("runs/tiny/samples").iterdir())
    assert samples == ["reals.png", "step-00000000.png", "step-00000004.png", "step-00000007.png"]
    assert Image.open("runs/tiny/curves.png").width > 300
    assert [status()[key] for key in ("state", "step", "total_steps")] == ["done", 7, 7]
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
    assert steps_logged() == [1, 2, 3, 4, 5, 6]
    assert events.Scalars("g_loss")[-1].value == pytest.approx(rows_logged()[-1]["g_loss"], rel=1e-5)


def test_samples_are_a_function_of_the_weights(workplace: Path, monkeypatch) -> None:
    monkeypatch.setattr(harness.native.train, "save_curves", lambda *_: None)
    train_run(tiny_config(), limit_steps=4)
    first = Path("runs/tiny/samples/step-00000004.png").read_bytes()
    noise = Path("runs/tiny/noise.pt").read_bytes()
    shutil.rmtree("runs/tiny/checkpoints/step-00000004")
    Path("runs/tiny/samples/step-00000004.png").unlink()
    stats = Path("runs/tiny/stats.jsonl").read_bytes()
    with pytest.raises(UserError, match="found no checkpoint, but status.json says that step 4 was saved"):
        train_run(tiny_config(), limit_steps=4)
    assert stats and Path("runs/tiny/stats.jsonl").read_bytes() == stats
    Path("runs/tiny/status.json").unlink()
    train_run(tiny_config(), limit_steps=4)
    assert Path("runs/tiny/samples/step-00000004.png").read_bytes() == first
    assert Path("runs/tiny/noise.pt").read_bytes() == noise
    Path("runs/tiny/noise.pt").write_bytes(noise[:20])
    with pytest.raises(UserError, match="noise.pt: is damaged; remove it"):
        train_run(tiny_config(), limit_steps=5)
    Path("runs/tiny/noise.pt").unlink()

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
    assert [name[-1] for name in checkpoint_names()] == ["3", "4", "5"]


def test_a_run_killed_after_its_last_save_is_done(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(optim__total_steps=2))
    Path("runs/tiny/status.json").write_text(json.dumps(status() | {"state": "running"}))
    train_run(tiny_config(optim__total_steps=2))
    assert status()["state"] == "done"


def test_a_replaced_set_is_refused(workplace: Path, no_pictures) -> None:
    train_run(tiny_config(), limit_steps=2)
    shutil.copy("data/hdf5/other/custom_32_train.hdf5", "data/hdf5/tiny/custom_32_train.hdf5")
    before = file_hashes(Path("runs/tiny/checkpoints"))
    with pytest.raises(UserError, match="not the training set of runs/tiny "):
        train_run(tiny_config(), limit_steps=3)
    assert file_hashes(Path("runs/tiny/checkpoints")) == before
