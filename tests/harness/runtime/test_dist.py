"""Two gloo processes against one: equal steps, identical ranks, one run folder, and a rank that dies."""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.checkpoints.sampling
import harness.native.step
import harness.native.train
import harness.runtime.device
import harness.runtime.precision
from harness.checkpoints.checkpoint import load_state
from harness.errors import UserError
from harness.native.reconstruction import reconstruction_step
from harness.native.state import lecam_state, networks_of
from harness.native.step import Training, d_update, g_update, train_step
from harness.native.train import train_run
from harness.runtime.dist import World, average_gradients, join_world, leave_world
from tests.golden.parity_case import gradients_of
from tests.harness.tiny_runs import (
    CONDITIONAL,
    ONE_UPDATE,
    RECONSTRUCTION,
    assert_same_checkpoint,
    assert_same_state,
    checkpoint_names,
    start_forkserver,
    status,
    step_after,
    steps_logged,
    tiny_config,
    training,
)

# Everything that could differ between ranks is on.
FULL = {**CONDITIONAL, "optim__batch_size": 8, "loss__lecam_ema_start_iter": 1}
FEWER = {**FULL, **ONE_UPDATE}


def run_ranks(action: Callable[..., None], *words: Any, size: int = 2) -> list[int | None]:
    """`action(rank, folder, *words)` in `size` processes with torchrun's environment. Returns their exit codes."""
    start_forkserver()
    context = multiprocessing.get_context("forkserver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, size, port, os.getcwd(), action, words)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]


def _rank(rank: int, size: int, port: int, folder: str, action: Callable[..., None], words: tuple) -> None:
    os.chdir(folder)
    os.environ |= {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    harness.checkpoints.sampling.STANDING_BATCHES = 1
    with open(f"rank_{rank}.txt", "w") as file:
        os.dup2(file.fileno(), 2)
    from harness.cli import run_command

    run_command(lambda: action(rank, *words))


# ---- the same steps ---------------------------------------------------------------------------------------------


def in_float64(run: Training) -> None:
    """Weights, pictures and latents in double precision."""
    networks = list(networks_of(run).values())
    if (rec := run.reconstruction) is not None:
        rec.share, rec.correlation = rec.share.double(), rec.correlation.double()
        networks.append(rec.maps)
    for network in networks:
        network.double()
    batch, generator = run.source.batch, run.generator
    run.g_call = lambda z, y: generator(z.double(), y)

    def doubled(k: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, labels = batch(k)
        return x.double(), labels

    run.source.batch = doubled  # type: ignore[method-assign]


@contextmanager
def joined_run(changes: dict[str, Any]) -> Iterator[Training]:
    world = join_world("cpu")
    with training(world, **changes) as run:
        yield run
    leave_world(world)


def steps_to_file(rank: int, changes: dict[str, Any], dtype: str) -> None:
    """Five steps; the state of this rank goes to `<world size>_<rank>.pt`."""
    with joined_run(changes) as run:
        if dtype == "float64":
            in_float64(run)
        for _ in range(5):
            (train_step if run.reconstruction is None else reconstruction_step)(run)
        assert run.generator_ema is not None and run.lecam is not None
        state = {name: dict(network.state_dict()) for name, network in networks_of(run).items()}
        state |= {"lecam": lecam_state(run), "optimizer": run.d_optimizer.state_dict()}
        torch.save(state, f"{run.world.size}_{rank}.pt")


def load(name: str) -> dict[str, Any]:
    return torch.load(name, weights_only=True)


def largest_difference(one: Any, other: Any) -> float:
    if isinstance(one, dict):
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    return (one.double() - other.double()).abs().max().item() if isinstance(one, torch.Tensor) else 0.0


@pytest.mark.parametrize(
    "changes",
    [
        FULL,
        {**FEWER, "loss__lecam_type": "gsrgan", "train__numerics": "studiogan"},
        {**FEWER, "model__apply_d_sn": False, "train__pictures": "lazy", "loss__apply_gp": True},
        {**FULL, **RECONSTRUCTION, "model__g_cond_mtd": "concat"},
    ],
    ids=["standard-fast", "gsrgan-studiogan", "batch-norm-in-D", "reconstruction"],
)
def test_two_ranks_are_one_process_in_float64(workplace: Path, changes: dict[str, Any]) -> None:
    assert run_ranks(steps_to_file, changes, "float64") == [0, 0], Path("rank_0.txt").read_text()
    steps_to_file(0, changes, "float64")
    one, first, second = load("1_0.pt"), load("2_0.pt"), load("2_1.pt")
    assert_same_state(first, second)
    for name in one.keys() - {"optimizer"}:
        assert largest_difference(one[name], first[name]) <= 1e-8, name
    assert any(value.abs().max() > 1e-3 for value in one["generator"].values())


def gradients_to_file(rank: int, changes: dict[str, Any]) -> None:
    """The averaged gradients of the first D and the first G update, before any weight has moved."""
    with joined_run(changes) as run:
        for optimizer in (run.g_optimizer, run.d_optimizer):
            optimizer.step = lambda *_: None  # type: ignore[method-assign]
        d_update(run, 0)
        found = {f"d.{name}": gradient for name, gradient in gradients_of(run.discriminator).items()}
        g_update(run)
        found |= {f"g.{name}": gradient for name, gradient in gradients_of(run.generator).items()}
        torch.save(found, f"gradients_{run.world.size}_{rank}.pt")


def test_fp32_gradients_of_the_first_step(workplace: Path) -> None:
    # One batch an update: where a ReLU's input is 0 but for rounding, the gradient jumps, and the fewer, the rarer.
    changes = {**FULL, "optim__acml_steps": 1}
    assert run_ranks(gradients_to_file, changes) == [0, 0]
    gradients_to_file(0, changes)
    one, first, second = load("gradients_1_0.pt"), load("gradients_2_0.pt"), load("gradients_2_1.pt")
    assert_same_state(first, second)
    assert len(one) > 40
    alive = {name: g for name, g in one.items() if g.norm() > 1e-4}
    dead = {name for name in one if name not in alive}  # a bias before a batch norm: 0 but for rounding
    assert len(alive) > 40 and all(name.startswith("g.") and name.endswith("bias") for name in dead)
    for name, gradient in alive.items():
        assert (gradient - first[name]).norm() <= 1e-4 * gradient.norm(), name


def test_ranks_are_identical_in_float32(workplace: Path) -> None:
    assert run_ranks(steps_to_file, FEWER, "float32") == [0, 0]
    assert_same_state(load("2_0.pt"), load("2_1.pt"))


# ---- one run folder ---------------------------------------------------------------------------------------------


def train_rank(rank: int, changes: dict[str, Any], limit_steps: int | None = None) -> None:
    train_run(tiny_config(**changes), limit_steps=limit_steps)


def test_two_ranks_resume_exactly(workplace: Path, no_pictures) -> None:
    assert run_ranks(train_rank, FEWER, 3) == [0, 0]
    Path("runs/tiny").rename("runs/whole")
    for steps in (1, 3):
        assert run_ranks(train_rank, FEWER, steps) == [0, 0]
    whole, cut = (Path(f"runs/{name}/checkpoints/step-00000003") for name in ("whole", "tiny"))
    assert_same_checkpoint(whole, cut)


def train_rank_timed(rank: int, seconds: list[list[float]]) -> None:
    """Each rank measures something else."""
    harness.runtime.device.cpu_has_bf16 = lambda: True
    harness.runtime.precision.pass_seconds = lambda *_: seconds[rank]
    rank_hardware = harness.native.train.faster_format

    def noted(*words: Any) -> Any:
        found = rank_hardware(*words)
        Path(f"format_{rank}.txt").write_text(found.precision)
        return found

    harness.native.train.faster_format = noted
    train_run(tiny_config(**FEWER, train__precision="auto"), limit_steps=1)


@pytest.mark.parametrize(("first", "taken"), [([1.0, 1.0], "fp32"), ([2.0, 1.0], "bf16")])
def test_all_ranks_take_the_number_format_of_the_first(
    workplace: Path, no_pictures, first: list[float], taken: str
) -> None:
    assert run_ranks(train_rank_timed, [first, first[::-1]]) == [0, 0], Path("rank_0.txt").read_text()
    assert [Path(f"format_{rank}.txt").read_text() for rank in (0, 1)] == [taken, taken]
    assert load_state(Path("runs/tiny/checkpoints/step-00000001"))["precision"] == taken


def test_ranks_time_together(workplace: Path, no_pictures) -> None:
    """Batch statistics span the ranks in the timed passes too."""
    assert run_ranks(train_rank, {**FEWER, "train__precision": "auto"}, 1) == [0, 0], Path("rank_0.txt").read_text()


def test_the_world_may_change_on_the_way(workplace: Path, no_pictures) -> None:
    """`gsrgan` keeps an anchor for each place in the batch: each process has its part, the checkpoint has all."""
    changes = {**FEWER, "loss__lecam_type": "gsrgan", "optim__total_steps": 6, "train__log_every_steps": 1}
    assert run_ranks(train_rank, changes, 2) == [0, 0]
    train_run(tiny_config(**changes), limit_steps=4)
    assert load_state(Path("runs/tiny/checkpoints/step-00000004"))["lecam"]["ema_real"].shape == (8,)
    assert run_ranks(train_rank, changes) == [0, 0]
    anchors = load_state(Path("runs/tiny/checkpoints/step-00000006"))["lecam"]["ema_real"]

    train_run(tiny_config(**changes, name="alone"))
    alone = load_state(Path("runs/alone/checkpoints/step-00000006"))["lecam"]["ema_real"]
    assert torch.allclose(anchors, alone, rtol=0.02, atol=0.02) and anchors.std() > 0.02
    assert steps_logged() == [1, 2, 3, 4, 5, 6] and status()["state"] == "done"
    assert json.loads(Path("runs/tiny/env.json").read_text())["processes"] == 2


def dying_rank(rank: int, changes: dict[str, Any]) -> None:
    harness.native.train.train_step = step_after(lambda done: rank == 1 and done == 3 and os._exit(9))
    train_run(tiny_config(**changes))


def test_when_a_process_dies_the_other_ends_and_the_run_goes_on(workplace: Path, no_pictures) -> None:
    changes = {**FEWER, "optim__total_steps": 4, "train__save_every_steps": 2}
    assert run_ranks(dying_rank, changes) == [2, 9]
    text = Path("rank_0.txt").read_text()
    assert "another process of this run is gone" in text and "Traceback" not in text
    assert status()["state"] == "failed"
    assert not Path("runs/tiny/lock.json").exists()
    train_run(tiny_config(**changes))
    assert Path("runs/tiny/checkpoints/step-00000004/meta.json").exists()


def stopped_rank(rank: int, changes: dict[str, Any]) -> None:
    """SIGTERM reaches one process only, as a scheduler may do: all stop after the same step."""
    harness.native.train.train_step = step_after(lambda done: rank == 1 and done == 2 and os.kill(os.getpid(), 15))
    train_run(tiny_config(**changes))


def failing_rank(rank: int, changes: dict[str, Any], network: str) -> None:
    """A loss that is not finite in one process only."""
    real = harness.native.step.g_loss
    if rank == 1 and network == "g":
        harness.native.step.g_loss = lambda *words: real(*words) * float("nan")
    train_run(tiny_config(**changes))


def test_all_stop_together(workplace: Path, no_pictures) -> None:
    assert run_ranks(stopped_rank, FEWER) == [75, 75]
    assert checkpoint_names() == ["step-00000003"]


def test_one_speaks_for_all(workplace: Path, no_pictures) -> None:
    """A loss that is not finite in the second process, a missing set: exit 2 everywhere, one message."""
    assert run_ranks(failing_rank, FEWER, "g") == [2, 2]
    texts = [Path(f"rank_{rank}.txt").read_text() for rank in (0, 1)]
    assert "error: step 1: a loss or gradient not finite" in texts[0] and "error" not in texts[1]
    assert run_ranks(train_rank, {**FEWER, "data__set": "nothing"}) == [2, 2]
    texts = [Path(f"rank_{rank}.txt").read_text() for rank in (0, 1)]
    assert "custom_32_train.hdf5: not there" in texts[0] and "error" not in texts[1]


# ---- a world of one ---------------------------------------------------------------------------------------------


def test_a_world_of_one_changes_nothing() -> None:
    world, tensor = World(), torch.arange(3.0)
    assert world.is_rank0 and world.any_rank(True) and not world.any_rank(False)
    assert world.mean(tensor) is tensor and world.gather(tensor) is tensor
    assert world.on_rank0(lambda: 5) == 5
    average_gradients([tensor], world)
    assert torch.equal(tensor, torch.arange(3.0))
    assert world.local_slice(6) == slice(0, 6)
    with pytest.raises(UserError, match="optim.batch_size: found 6, allowed multiples of the 4 processes"):
        World(rank=1, size=4).local_slice(6)
    assert World(rank=1, size=3).local_slice(6) == slice(2, 4)
