"""StudioGAN 0.2.0 (12ab50a) with imports, device, losses and saves patched from outside. See main.py."""

import functools
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.native.losses import LeCam
from harness.studiogan.shim import process, run
from harness.studiogan.shim.job import ShimJob
from harness.studiogan.shim.process import log_event
from harness.studiogan.shim.run import RUN_NAME
from harness.studiogan.shim.step_loop import StepLoop

D_LOSSES = ("loss_hinge_dis", "loss_dcgan_dis", "loss_lsgan_dis", "loss_wgan_dis")


def train(job: ShimJob) -> None:
    """Calls StudioGAN's main(), which ends with Finished or Stopped."""
    install(job, rank=0)
    main: Any = import_module("main")
    main.make_run_name = lambda *_, **__: RUN_NAME
    main.mp = SimpleNamespace(spawn=lambda fn, nprocs, args: run.spawn(child, job, args))
    sys.argv = ["main.py", *arguments(job)]
    main.main()


def child(local_rank: int, job: ShimJob, *arguments: Any) -> None:
    """One process of -DDP; a spawned interpreter in which nothing is patched yet."""

    def train_here(rank: Any) -> None:
        loader = install(job, local_rank)
        # StudioGAN seeds only the parent process: without this all would draw the same noise.
        run.reseed(job.seed, 0, local_rank)
        loader.prepare_train_eval(rank, *arguments)

    run.run_child(job, local_rank, train_here)


def arguments(job: ShimJob) -> list[str]:
    given = [
        *("-c", job.config, "-t", "-l", "--eval_type", "valid"),
        *("--seed", str(job.seed), "--num_workers", str(job.num_workers)),
        *("--print_every", str(job.print_every), "--save_every", str(job.save_every)),
    ]
    if job.checkpoint is not None:
        given += ["--checkpoint_folder", job.checkpoint, "-current"]
    if job.freeze_layers is not None:
        given += ["--freeze_layers", str(job.freeze_layers)]
    switches = {"-e": job.evaluate, "-DDP": job.processes > 1, "-sync_bn": job.sync_bn}
    return given + [switch for switch, on in switches.items() if on]


def install(job: ShimJob, rank: int) -> ModuleType:
    """Imports StudioGAN's loader and patches it for this process. Returns it."""
    _check_config(job)
    _stub_imports()
    run.patch_torch(job)
    loader: Any = import_module("loader")
    worker: Any = import_module("worker")
    step_loop = StepLoop(job, rank)
    loaded = SimpleNamespace(step=0, best=(0, None))
    lecam = add_lecam(job, loader, step_loop)
    loader.make_worker = worker_class(worker.make_worker, job, step_loop, lecam, loaded)
    loader.load_checkpoint = _patch_load_checkpoint(loader.load_checkpoint, job, loaded)
    loader.make_checkpoint_dir = lambda folder, run_name: folder or "checkpoints"
    loader.dict2clsattr = _patch_settings(loader.dict2clsattr, job)
    loader.DataLoader = functools.partial(loader.DataLoader, worker_init_fn=process.init_worker)
    loader.DDP = run.parallel_class(loader.DDP, job)
    _count_iterations(worker, step_loop)
    if job.device == "cpu":  # for -DDP, StudioGAN says nccl
        loader.setup = functools.partial(loader.setup, backend="gloo")
    return loader


def _check_config(job: ShimJob) -> None:
    dataset = json.loads(Path(job.config).read_text()).get("data_processing", {}).get("dataset_name")
    if dataset != "custom":
        raise UserError(f"config: dataset_name: found {dataset!r}, allowed 'custom'")


def _stub_imports() -> None:
    """LARS can no longer be installed, and ADA compiles CUDA code on import. Neither is used here."""

    def unused(*_: Any, **__: Any) -> None:
        raise NotImplementedError("LARS and ADA are not covered")

    sys.modules["torchlars"] = lars = ModuleType("torchlars")
    sys.modules["utils.ada"] = ada = ModuleType("utils.ada")
    lars.LARS = ada.augment = unused  # type: ignore[attr-defined]


def add_lecam(job: ShimJob, loader: Any, step_loop: StepLoop) -> LeCam | None:
    """StudioGAN looks its D loss up among loader's globals; LeCam's penalty is added to each of them.

    worker.train() calls the loss once for each micro-batch of D, before dividing by the accumulation steps.
    """
    if job.lecam is None:
        return None
    wanted = job.lecam
    lecam = LeCam(wanted.kind, wanted.lambda_, wanted.ema_decay, wanted.start_iter)
    for name in D_LOSSES:
        setattr(loader, name, _with_penalty(getattr(loader, name), lecam, step_loop))
    return lecam


def _with_penalty(loss: Callable[[Tensor, Tensor], Tensor], lecam: LeCam, step_loop: StepLoop) -> Callable[..., Tensor]:
    @functools.wraps(loss)  # StudioGAN reads its __name__
    def loss_with_lecam(dis_out_real: Tensor, dis_out_fake: Tensor) -> Tensor:
        penalty = lecam.penalty(dis_out_real, dis_out_fake, step_loop.step, run.mean_over_ranks)
        return loss(dis_out_real, dis_out_fake) + penalty

    return loss_with_lecam


def _count_iterations(worker: Any, step_loop: StepLoop) -> None:
    """set_temperature() is called by every process with the step, once, first in an iteration."""
    original = worker.set_temperature

    def set_temperature(*arguments: Any) -> Any:
        step_loop.begin_iteration(arguments[4])
        return original(*arguments)

    worker.set_temperature = set_temperature


def _patch_load_checkpoint(original: Callable[..., Any], job: ShimJob, loaded: SimpleNamespace) -> Callable[..., Any]:
    """Fixed run name and seed (otherwise an old log is continued, or an assertion fails); step and best are kept."""

    def load_checkpoint(model: Any, optimizer: Any, filename: str, metric: bool = False, ema: bool = False) -> Any:
        result = original(model, optimizer, filename, metric=metric, ema=ema)
        if ema:
            return result
        loaded.step = result[4]
        if metric:
            loaded.best = result[6:8]
        return (*result[:2], job.seed, RUN_NAME, *result[4:])

    return load_checkpoint


def _patch_settings(original: Callable[..., Any], job: ShimJob) -> Callable[..., Any]:
    """The job's rates from the start; betas as floats (torch refuses integers)."""

    def dict2clsattr(*arguments: Any) -> Any:
        settings, wanted = original(*arguments), job.optimizer
        settings.g_lr, settings.d_lr = wanted.g_lr, wanted.d_lr
        settings.beta1, settings.beta2 = wanted.beta1, wanted.beta2
        return settings

    return dict2clsattr


def worker_class(base: Any, job: ShimJob, step_loop: StepLoop, lecam: LeCam | None, loaded: SimpleNamespace) -> type:
    class Worker020(base):
        def train(self, current_step: int, total_step: int) -> int:
            run.check_steps(job, loaded.step, total_step)
            run.prepare(job, step_loop, self.dis_model, self.G_optimizer, self.D_optimizer)
            if job.first_step:
                self.best_step, self.best_fid = loaded.best
            restored = restore_lecam(lecam, job)
            if job.lecam:
                assert hasattr(self.D_loss, "__wrapped__")
                facts = {"lambda": job.lecam.lambda_, "restored": int(restored), "rank": step_loop.rank}
                log_event("lecam", type=job.lecam.kind, **facts)
            step_loop.save = lambda step: self.save(step, False)
            try:
                # StudioGAN starts at 0 whenever layers are frozen, also when it resumes such a run.
                return super().train(job.first_step, total_step)
            finally:
                if self.writer is not None:
                    self.writer.close()

        def save(self, step: int, is_best: bool) -> None:
            def write(folder: Path) -> None:
                self.checkpoint_dir = str(folder)
                super(Worker020, self).save(step, False)
                if lecam:
                    torch.save(lecam_state(lecam), folder / f"lecam-step={step}.pt")

            step_loop.publish(step, bool(is_best), write)

    return Worker020


def lecam_state(lecam: LeCam) -> dict[str, Tensor | None]:
    return {key: value if value is None else value.cpu() for key, value in lecam.state_dict().items()}


def restore_lecam(lecam: LeCam | None, job: ShimJob) -> bool:
    """LeCam's anchors from the checkpoint folder of a resumed run; a fine-tuning starts with new ones."""
    path = Path(job.checkpoint or os.devnull) / f"lecam-step={job.first_step}.pt"
    if lecam is None or not path.is_file():
        return False
    state = torch.load(path, weights_only=True)
    lecam.load_state_dict({key: value if value is None else value.to(job.device) for key, value in state.items()})
    return True
