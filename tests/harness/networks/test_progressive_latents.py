"""Progressive latents: nothing jumps at a switch, Adam's first steps are of the usual length, and runs resume there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoints.checkpoint import load_weights
from harness.config.experiment import epochs_to_steps, finetune_config
from harness.errors import UserError
from harness.native.train import finetune_run, train_run
from harness.networks.build import build_networks
from harness.networks.progressive_latents import active_size, init_new_columns, zero_unused_columns
from tests.harness.tiny_runs import SHORT, assert_same_checkpoint, tiny_config

SCHEDULE = {
    **SHORT,
    "optim__total_steps": 9,
    "optim__z_schedule": [[0, 2], [3, 5], [6, 8]],
    "train__save_every_steps": 1,
    "train__keep_last": 99,
    "model__backbone": "conv",
    "model__apply_g_sn": True,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_columns_open_one_after_the_other(workplace: Path, spectral_norm: bool) -> None:
    config = tiny_config(**{**SCHEDULE, "model__apply_g_sn": spectral_norm})
    run = train_run(config)
    name = "linear0.weight_orig" if spectral_norm else "linear0.weight"
    for step in range(1, 10):
        weights = load_weights(run / "checkpoints" / f"step-{step:08d}", "generator")[name]
        used = int((weights.abs().sum(0) > 0).sum())
        assert used == active_size(config.optim, 8, step - 1) == {0: 2, 1: 5, 2: 8}[(step - 1) // 3]


def test_the_same_latent_draws_the_same_picture_across_a_switch(workplace: Path) -> None:
    """The checkpoint at a switch draws what it drew, whatever the components are that begin to count there."""
    config = tiny_config(**SCHEDULE)
    run = train_run(config, limit_steps=3)
    generator = build_networks(config, 0, CPU)[0].eval()
    generator.load_state_dict(load_weights(run / "checkpoints/step-00000003", "generator"))
    generator.requires_grad_(False)
    z = torch.randn(4, 8)
    assert float((generator(z) - generator(torch.nn.functional.pad(z[:, :2], (0, 6)))).abs().max()) <= 1e-6
    assert float((generator(z) - generator(torch.randn(4, 8))).abs().max()) > 1e-3


def test_a_run_that_is_cut_at_every_step_is_the_same(go_to: Callable[..., Any], workplace: Path, no_pictures) -> None:
    go_to("whole")
    whole = train_run(tiny_config(**SCHEDULE)).resolve() / "checkpoints/step-00000009"
    go_to("cut")
    for step in range(1, 10):
        train_run(tiny_config(**SCHEDULE), limit_steps=step)
    assert_same_checkpoint(whole, Path("runs/tiny/checkpoints/step-00000009"))


def test_first_steps_of_new_columns_are_of_the_usual_length() -> None:
    """Without the moments that init_new_columns gives them they would be 1 / sqrt(1 - beta2) times too long."""
    generator = build_networks(tiny_config(model__g_conv_dim=16), 0, CPU)[0]
    weight = generator.linear0.get_parameter("weight")
    zero_unused_columns(generator, 4)
    adam = torch.optim.Adam([weight], 1e-3, (0.5, 0.999), fused=True)
    rng = torch.Generator().manual_seed(0)

    def step(columns: int) -> torch.Tensor:
        before = weight.detach().clone()
        weight.grad = torch.randn(weight.shape, generator=rng)
        weight.grad[:, columns:] = 0
        adam.step()
        return (weight.detach() - before).abs().mean(0)

    for _ in range(200):
        moved = step(4)
    assert float(moved[4:].max()) == 0
    init_new_columns(generator, adam, 4, 8)
    moved = step(8)
    assert 0.3 < float(moved[4:].mean() / moved[:4].mean()) < 1.5


def test_epochs_are_steps_that_hold_all_pictures() -> None:
    changes = {"optim__batch_size": 4, "optim__acml_steps": 2, "optim__total_epochs": 10}
    schedule = {"optim__z_schedule": [[0, 4], [5, 8]], "optim__z_schedule_unit": "epochs"}
    optim = epochs_to_steps(tiny_config(**changes, **schedule), 41).optim  # 8 at a time: 6 steps
    assert optim.total_steps == 60 and optim.z_schedule == ((0, 4), (30, 8)) and optim.z_schedule_unit == "steps"
    assert epochs_to_steps(tiny_config(), 41) == tiny_config()


def test_a_run_of_so_many_epochs(workplace: Path) -> None:
    changes = {**SHORT, "optim__total_epochs": 1, "optim__batch_size": 16}  # 40 pictures
    run = train_run(tiny_config(**changes))
    assert (run / "checkpoints/step-00000003").is_dir() and len(list((run / "checkpoints").iterdir())) == 2
    train_run(tiny_config(**changes))  # done: nothing has changed


def test_a_fine_tuning_run_uses_all_components(workplace: Path) -> None:
    config = tiny_config(**SCHEDULE)
    train_run(config, limit_steps=2)
    assert finetune_config(config).optim.z_schedule is None
    run = finetune_run(config, limit_steps=1)
    weights = load_weights(run / "checkpoints/step-00000001", "generator")["linear0.weight_orig"]
    assert bool((weights.abs().sum(0) > 0).all())


@pytest.mark.parametrize(
    "schedule",
    [[[1, 2], [3, 8]], [[0, 2], [3, 9]], [[0, 8], [3, 8]], [[0, 2], [0, 8]], [[0, 0], [2, 8]], [], [[0, 8, 1]]],
)
def test_schedules_that_cannot_be(schedule: list[Any]) -> None:
    with pytest.raises(UserError, match=r"optim\.z_schedule: found .*, allowed .*, try "):
        tiny_config(optim__z_schedule=schedule)
