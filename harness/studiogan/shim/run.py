"""Shared by both versions of StudioGAN: device, optimisers, processes, exit code."""

import multiprocessing
import random
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, UserError
from harness.studiogan.shim.job import OptimizerSettings, ShimJob
from harness.studiogan.shim.process import (
    EXIT_OUT_OF_MEMORY,
    catch_stop_signals,
    die_with_parent,
    exit_now,
    log_event,
    stop_requested,
)
from harness.studiogan.shim.step_loop import Finished, StepLoop, Stopped

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
RUN_NAME = "run"  # of StudioGAN's own log, event and figure files


class ChildFailed(Exception):
    """A process of -DDP ended with this code, after printing the reason."""

    def __init__(self, code: int):
        super().__init__(f"exit code {code}")
        self.code = code if code > 0 else 1  # negative: killed by a signal


def run_to_exit_code(train: Callable[[], None], rank: int = 0) -> int:
    """Calls `train`, which ends with an exception."""
    try:
        train()
        raise AssertionError("StudioGAN returned before last_step")
    except Finished:
        return 0
    except Stopped:
        return EXIT_RESUMABLE if rank == 0 else 0
    except ChildFailed as error:
        return error.code
    except UserError as error:
        return _refuse(str(error))
    except URLError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return _refuse(f"evaluate: cannot download {INCEPTION} ({error}), try placing it in {folder}")
    except torch.OutOfMemoryError as error:
        print(f"carforge: out of memory: {str(error).splitlines()[0]}", flush=True)
        return EXIT_OUT_OF_MEMORY
    except (Exception, SystemExit):
        traceback.print_exc()
        return 1


def _refuse(text: str) -> int:
    print(f"carforge: {text}", file=sys.stderr, flush=True)
    return EXIT_USER_ERROR


def mean_over_ranks(local: Tensor) -> Tensor:
    if not dist.is_initialized():
        return local
    total = local.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def set_optimizers(g_optimizer: Any, d_optimizer: Any, settings: OptimizerSettings) -> None:
    """StudioGAN's resume restores the rates of the checkpoint, whatever the config says."""
    for optimizer, lr in ((g_optimizer, settings.g_lr), (d_optimizer, settings.d_lr)):
        for group in optimizer.param_groups:
            group["lr"] = lr
            if "betas" in group:
                group["betas"] = (settings.beta1, settings.beta2)
        for state in optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].cpu()  # StudioGAN moves it to the GPU, where reading it synchronises


def log_optimizers(g_optimizer: Any, d_optimizer: Any) -> None:
    """Logs the values in the optimisers, not those of the job."""
    g, d = g_optimizer.param_groups[0], d_optimizer.param_groups[0]
    beta1, beta2 = d.get("betas", (float("nan"), float("nan")))
    log_event("optimizer", g_lr=float(g["lr"]), d_lr=float(d["lr"]), beta1=float(beta1), beta2=float(beta2))


def check_freeze_layers(n: int | None, discriminator: Any) -> None:
    """For N >= blocks StudioGAN silently freezes something else."""
    blocks = len(discriminator.in_dims)
    if n is not None and not 0 < n < blocks:
        raise UserError(
            f"finetune.freeze_layers: found {n}, allowed 1 to {blocks - 1} (StudioGAN counts {blocks} blocks), "
            f"try finetune.freeze_layers={min(2, blocks - 1)}"
        )


def check_steps(job: ShimJob, loaded_step: int, total_steps: int) -> None:
    if job.first_step not in (0, loaded_step):
        raise UserError(f"first_step: found {job.first_step}, but the checkpoint is of step {loaded_step}")
    if job.last_step > total_steps:
        raise UserError(f"last_step: found {job.last_step}, allowed at most total_steps = {total_steps}")


def prepare(job: ShimJob, step_loop: StepLoop, discriminator: Any, g_optimizer: Any, d_optimizer: Any) -> None:
    """What both versions need before the first iteration."""
    check_freeze_layers(job.freeze_layers, getattr(discriminator, "module", discriminator))
    set_optimizers(g_optimizer, d_optimizer, job.optimizer)
    if job.first_step:
        reseed(job.seed, job.first_step, step_loop.rank)
    if step_loop.rank == 0:
        log_optimizers(g_optimizer, d_optimizer)


def reseed(seed: int, step: int, rank: int = 0) -> None:
    """A resumed run gets other noise and another order than at its start."""
    mixed = (seed + step + 1_000_003 * rank) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


class CpuRank(str):
    """A rank that is also the device "cpu": StudioGAN uses one value for both, and an integer device means CUDA."""

    rank: int

    def __new__(cls, rank: int) -> "CpuRank":
        made = super().__new__(cls, "cpu")
        made.rank = rank
        return made

    def __eq__(self, other: object) -> bool:
        return self.rank == other if isinstance(other, int) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __radd__(self, other: int) -> int:
        return other + self.rank

    def __getnewargs__(self) -> tuple[int]:  # type: ignore[override]
        return (self.rank,)


def patch_torch(job: ShimJob) -> None:
    """Patches torch.load for our own files and scipy's sqrtm; on a CPU, also the calls that need a CUDA driver."""
    _patch_load(job)
    _patch_sqrtm()
    if job.device == "cuda":
        return  # main.py left `processes` devices visible
    torch.cuda.device_count = lambda: job.processes
    torch.cuda.current_device = lambda: CpuRank(0)  # type: ignore[assignment, return-value]
    torch.cuda.set_device = lambda device: None
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def _patch_load(job: ShimJob) -> None:
    """Checkpoints contain a numpy scalar (the best FID), which torch.load refuses with weights_only.

    It is switched off only for the files in the source folder, which the engine has written.
    """
    if job.checkpoint is None:
        return
    source, load = Path(job.checkpoint).resolve(), torch.load

    def load_own(file: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(file, str | Path) and Path(file).resolve().parent == source:
            options |= {"weights_only": False, "map_location": "cpu"}
            arguments = ()
        return load(file, *arguments, **options)

    torch.load = load_own


def parallel_class(parallel: Any, job: ShimJob) -> Callable[..., Any]:
    """DDP waits for a gradient of every parameter, and frozen ones have none; on a CPU it takes no device ids."""

    def wrap(network: Any, device_ids: Any = None, **options: Any) -> Any:
        if job.freeze_layers is not None and type(network).__name__ == "Discriminator":
            options["find_unused_parameters"] = True
        return parallel(network, device_ids=None if job.device == "cpu" else device_ids, **options)

    return wrap


def _patch_sqrtm() -> None:
    """The metrics unpack the pair that scipy's sqrtm(disp=False) returns; `disp` is removed in scipy 1.18."""
    import scipy.linalg

    root = scipy.linalg.sqrtm
    scipy.linalg.sqrtm = lambda a, disp=True: root(a) if disp else (root(a), 0.0)


def run_child(job: ShimJob, rank: int, train: Callable[[Any], None]) -> NoReturn:
    """The whole life of a spawned -DDP process; `train` gets the rank in the form that StudioGAN needs."""
    catch_stop_signals()
    parent = multiprocessing.parent_process()
    die_with_parent(parent.pid if parent else None)
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    device = CpuRank(rank) if job.device == "cpu" else rank
    code = run_to_exit_code(lambda: train(device), rank)
    if dist.is_initialized() and code in (0, EXIT_RESUMABLE):  # all ranks get here
        dist.destroy_process_group()
    exit_now(code)


def spawn(child: Callable[..., None], job: ShimJob, arguments: tuple[Any, ...]) -> None:
    """`child(rank, job, *arguments)` in `job.processes` processes. Raises Finished, Stopped or ChildFailed."""
    context: Any = start_processes(child, args=(job, *arguments), nprocs=job.processes, join=False)
    terminated = False
    try:
        while not context.join(timeout=0.5, grace_period=10):
            if stop_requested() and not terminated:
                terminated = True
                for process in context.processes:
                    process.terminate()  # SIGTERM, which they catch
    except ProcessExitedException as error:
        # SIGTERM kills a process that does not catch signals yet; it has not trained either.
        if error.exit_code == EXIT_RESUMABLE or (terminated and error.exit_code == -signal.SIGTERM):
            raise Stopped from error
        raise ChildFailed(error.exit_code) from error
    raise Finished


def start(job: ShimJob) -> int:
    """Runs the job. Returns the exit code."""
    if job.threads:
        torch.set_num_threads(job.threads)
    facts = {"first_step": job.first_step, "last_step": job.last_step}
    log_event(
        "starting", version=job.version, device=job.device, processes=job.processes, torch=torch.__version__, **facts
    )
    version = import_module(f"harness.studiogan.shim.v{job.version.replace('.', '')}")
    return run_to_exit_code(lambda: version.train(job))
