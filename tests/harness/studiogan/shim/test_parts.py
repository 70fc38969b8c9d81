"""The shim without StudioGAN: when it saves and ends, how LeCam gets into a D loss, what it patches."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from harness.errors import UserError
from harness.native.losses import LeCam
from harness.studiogan.shim import process, run, v020, v040
from harness.studiogan.shim.job import ShimJob, read_job
from harness.studiogan.shim.run import CpuRank
from harness.studiogan.shim.step_loop import Finished, StepLoop, Stopped
from tests.harness.sabotage import raising
from tests.harness.studiogan.shim.shim_jobs import LECAM, change_job


@pytest.fixture
def job(folder: Path) -> ShimJob:
    return read_job(folder / "JOB.json")


@pytest.fixture
def kept_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What patch_torch() changes is put back."""
    names = [(torch, "load"), (torch.Tensor, "cuda")]
    names += [(torch.cuda, name) for name in ("device_count", "current_device", "set_device")]
    for owner, name in names:
        monkeypatch.setattr(owner, name, getattr(owner, name))


def step_loop_of(job: ShimJob) -> tuple[StepLoop, list[int]]:
    """A course whose saves are only noted."""
    saves: list[int] = []
    step_loop = StepLoop(job)

    def save(step: int) -> None:
        saves.append(step)
        step_loop.saved_step = step

    step_loop.save = save
    return step_loop, saves


def test_the_last_step_is_saved_once_and_no_iteration_follows(job: ShimJob, capsys: pytest.CaptureFixture[str]) -> None:
    step_loop, saves = step_loop_of(job)
    for step in (4, 5, 6):
        step_loop.begin_iteration(step)
    assert not saves and step_loop.save is not None
    with pytest.raises(Finished):
        step_loop.begin_iteration(7)
    assert saves == [7]
    with pytest.raises(Finished):  # StudioGAN had saved it by itself
        step_loop.begin_iteration(7)
    assert saves == [7]
    assert capsys.readouterr().out.splitlines()[:2] == ["carforge: training step=4", "carforge: finished step=7"]


def test_each_step_is_told_but_not_oftener_than_a_person_needs(
    job: ShimJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    step_loop, _ = step_loop_of(job)
    for step in (4, 5, 6):
        step_loop.begin_iteration(step)
        now[0] += process.HEARTBEAT_SEC / 2
    with pytest.raises(Finished):
        step_loop.begin_iteration(7)
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["carforge: training step=4", "carforge: step step=6", "carforge: finished step=7"]


@pytest.mark.parametrize("number", process.STOP_SIGNALS)
def test_a_signal_is_heeded_before_the_next_iteration(job: ShimJob, number: signal.Signals) -> None:
    kept = {each: signal.getsignal(each) for each in process.STOP_SIGNALS}
    try:
        process.catch_stop_signals()
        step_loop, saves = step_loop_of(job)
        step_loop.begin_iteration(4)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped):
            step_loop.begin_iteration(5)
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)
    assert saves == [5]


def test_stopped_before_anything_was_done_saves_nothing(job: ShimJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_stop_signals", [signal.SIGTERM])
    step_loop, saves = step_loop_of(job)
    with pytest.raises(Stopped):
        step_loop.begin_iteration(4)
    assert saves == []


def test_a_save_has_its_name_only_when_it_is_whole(
    job: ShimJob, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step_loop = StepLoop(job)

    def write(into: Path) -> None:
        assert not (folder / "checkpoints" / "step-00000006").exists()
        (into / "G").write_text("6")

    step_loop.publish(6, True, write)
    assert (folder / "checkpoints" / "step-00000006" / "G").read_text() == "6"
    assert capsys.readouterr().out.startswith(
        "carforge: saved step=6 folder=checkpoints/step-00000006 best=1 peak_mib="
    )

    def fail(into: Path) -> None:
        (into / "G").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        step_loop.publish(7, False, fail)
    assert step_loop.saved_step == 6
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000007.partial"]


def fake_loader() -> SimpleNamespace:
    """Stands for StudioGAN's loader module: four D losses among its globals."""

    def loss_of(name: str) -> Any:
        def loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
            return (fake - real).mean()

        loss.__name__ = name
        return loss

    return SimpleNamespace(**{name: loss_of(name) for name in v020.D_LOSSES})


@pytest.mark.parametrize("kind", ["standard", "gsrgan"])
def test_every_d_loss_gets_the_penalty_of_its_own_step(folder: Path, kind: str) -> None:
    """Two D updates of two micro-batches in each step, steps from 4 on: the penalty follows the step, not the calls."""
    job = read_job(change_job(folder, lecam=LECAM | {"type": kind, "start_iter": 5}))
    loader, plain, worker, step_loop = fake_loader(), fake_loader(), SimpleNamespace(), StepLoop(job)
    worker.set_temperature = lambda *given: ("kept", given)
    assert v020.add_lecam(job, loader, step_loop) is not None
    v020._count_iterations(worker, step_loop)
    ours = LeCam(kind, 0.3, 0.9, 5)
    generator = torch.Generator().manual_seed(0)
    penalties = {}
    for step in (4, 5, 6):
        assert worker.set_temperature("no", "N/A", 0, 1, step, "N/A", 9)[0] == "kept"
        for _ in range(4):
            real, fake = torch.randn(2, 8, generator=generator)
            wanted = ours.penalty(real, fake, step)
            penalties[step] = float(wanted)
            assert torch.equal(loader.loss_hinge_dis(real, fake), plain.loss_hinge_dis(real, fake) + wanted)
    assert [penalties[step] > 0 for step in (4, 5, 6)] == ([False, False, True] if kind == "standard" else [True] * 3)
    for name in v020.D_LOSSES:
        assert getattr(loader, name).__name__ == name
        assert getattr(loader, name).__wrapped__


def test_without_lecam_the_losses_stay_as_they_are(folder: Path) -> None:
    job, loader = read_job(change_job(folder, lecam=None)), fake_loader()
    before = dict(vars(loader))
    assert v020.add_lecam(job, loader, StepLoop(job)) is None
    assert vars(loader) == before


def test_lecam_goes_on_where_it_was_but_not_into_a_fine_tune(folder: Path) -> None:
    saved = LeCam("standard", 0.3, 0.9, 1)
    saved.penalty(torch.ones(8), torch.zeros(8), 0)
    torch.save(v020.lecam_state(saved), folder / "source" / "lecam-step=4.pt")
    lecam = LeCam("standard", 0.3, 0.9, 1)
    assert not v020.restore_lecam(lecam, read_job(change_job(folder, first_step=0)))
    assert lecam.ema_real is None
    assert v020.restore_lecam(lecam, read_job(change_job(folder, first_step=4)))
    assert lecam.ema_real is not None and float(lecam.ema_real) == 1.0
    theirs = SimpleNamespace(D_real=7777, D_fake=7777)
    assert v040.restore_lecam(theirs, read_job(change_job(folder, first_step=4))) == 1
    assert (theirs.D_real, theirs.D_fake) == (1.0, 0.0)


def test_the_optimisers_get_the_rates_of_the_job(job: ShimJob) -> None:
    g, d = (torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=0.5, betas=(0.9, 0.99)) for _ in range(2))
    run.set_optimizers(g, d, job.optimizer)
    assert (g.param_groups[0]["lr"], d.param_groups[0]["lr"]) == (2e-4, 4e-4)
    assert d.param_groups[0]["betas"] == (0.0, 0.9)


@pytest.mark.parametrize(("n", "allowed"), [(None, True), (1, True), (3, True), (0, False), (4, False), (9, False)])
def test_frozen_layers_must_leave_one(n: int | None, allowed: bool) -> None:
    discriminator = SimpleNamespace(in_dims=[3, 8, 8, 8])
    if allowed:
        return run.check_freeze_layers(n, discriminator)
    with pytest.raises(UserError, match=f"found {n}, allowed 1 to 3"):
        run.check_freeze_layers(n, discriminator)


def test_the_step_must_be_the_one_of_the_checkpoint(folder: Path) -> None:
    job = read_job(change_job(folder, first_step=4))
    run.check_steps(job, loaded_step=4, total_steps=7)
    with pytest.raises(UserError, match="first_step"):
        run.check_steps(job, loaded_step=5, total_steps=7)
    with pytest.raises(UserError, match="last_step: found 7, allowed at most total_steps = 6"):
        run.check_steps(job, loaded_step=4, total_steps=6)
    run.check_steps(read_job(change_job(folder, first_step=0)), loaded_step=5, total_steps=7)


def test_a_cpu_rank_is_a_device_and_a_number() -> None:
    first, second = CpuRank(0), CpuRank(1)
    assert first == 0 and not first != 0 and second != 0 and second == 1
    assert 10 + second == 11 and 0 + first == 0
    assert torch.zeros(1).to(first).device == torch.device("cpu") == torch.zeros(1, device=second).device


def test_only_files_of_the_source_are_unpickled(job: ShimJob, folder: Path, kept_torch: None) -> None:
    state = {"best_fid": np.float64(3.5)}
    torch.save(state, folder / "source" / "D.pth")
    torch.save(state, folder / "D.pth")
    run.patch_torch(job)
    assert torch.load("source/D.pth") == state
    assert torch.load(folder / "source" / "D.pth", map_location=lambda storage, location: storage) == state
    with pytest.raises(Exception, match="weights_only"):
        torch.load("D.pth")
    assert torch.cuda.device_count() == 1 and torch.cuda.current_device() == 0
    assert torch.zeros(1).cuda().device.type == "cpu"


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (Finished(), 0, ""),
        (Stopped(), 75, ""),
        (UserError("freeze_layers: found 9"), 2, "carforge: freeze_layers: found 9\n"),
        (run.URLError("no route"), 2, "carforge: evaluate: cannot download pt_inception-2015-12-05-6726825d.pth"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore"),
            3,
            "out of memory: CUDA out of memory. Tried",
        ),
        (RuntimeError("broken"), 1, "RuntimeError: broken"),
        (SystemExit(0), 1, "SystemExit"),
        (run.ChildFailed(-9), 1, ""),
        (None, 1, "AssertionError"),
    ],
)
def test_each_end_has_its_exit_code(
    raised: BaseException | None, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.run_to_exit_code(raising(raised) if raised else lambda: None) == code
    assert printed in "".join(capsys.readouterr())


def test_the_command_line_of_each_version(folder: Path) -> None:
    job = read_job(change_job(folder, freeze_layers=2, processes=2, evaluate=True))
    given = v020.arguments(job)
    assert given[:2] == ["-c", "config.json"] and {"-t", "-l", "-e", "-DDP", "-current"} <= set(given)
    assert given[given.index("--freeze_layers") + 1] == "2"
    # 0.4.0 would begin at 0 again if it were told to freeze: an interrupted fine-tune is frozen by the shim.
    assert "--freezeD" not in v040.arguments(job)
    started = v040.arguments(read_job(change_job(folder, first_step=0, print_every=6, save_every=4)))
    assert started[started.index("--freezeD") + 1] == "2"
    assert started[started.index("--print_freq") + 1] == "2"


def test_processes_meet_here_whatever_a_job_script_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    process.set_master_address()
    assert os.environ["MASTER_ADDR"] == "127.0.0.1" and int(os.environ["MASTER_PORT"]) > 1


def test_ddp_does_not_wait_for_frozen_layers(folder: Path) -> None:
    class Discriminator(torch.nn.Sequential):
        pass

    job = read_job(change_job(folder, freeze_layers=1))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    try:
        network = run.parallel_class(DistributedDataParallel, job)(
            Discriminator(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)), device_ids=[0]
        )
        network.module[0].requires_grad_(False)  # after it was wrapped, as StudioGAN does
        for _ in range(3):
            network(torch.ones(4, 2)).sum().backward()
    finally:
        dist.destroy_process_group()
    assert network.module[0].weight.grad is None and network.module[1].bias.grad.item() == 12


def test_another_data_set_than_custom_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="dataset_name: found 'cars'"):
        (folder / "config.json").write_text('{"data_processing": {"dataset_name": "cars"}}')
        v020._check_config(read_job(folder / "JOB.json"))


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
def test_each_version_has_a_module_that_trains(job: ShimJob, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named in text alone, so no import fails where it has moved."""
    monkeypatch.setattr({"0.2.0": v020, "0.4.0": v040}[version], "train", raising(Finished()))
    assert run.start(replace(job, version=version, threads=0)) == 0
