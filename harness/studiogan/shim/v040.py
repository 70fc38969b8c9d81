"""StudioGAN 0.4.0 with imports, device and saves patched from outside. See main.py."""

import functools
import math
import pickle
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from harness.errors import UserError
from harness.studiogan.shim import process, run
from harness.studiogan.shim.job import ShimJob
from harness.studiogan.shim.process import log_event
from harness.studiogan.shim.run import RUN_NAME
from harness.studiogan.shim.step_loop import StepLoop

EMA_START = 7777  # StudioGAN's initial value of its averages
EMA_KEYS = {"ema_real": "D_real", "ema_fake": "D_fake"}  # ours: theirs


def train(job: ShimJob) -> None:
    """What StudioGAN's main.py does as a program; ends with Finished or Stopped."""
    loader = install(job, rank=0)
    main: Any = import_module("main")
    main.log.make_run_name = lambda *_, **__: RUN_NAME
    sys.argv = ["main.py", *arguments(job)]
    cfgs, gpus_per_node, run_name, hdf5_path, rank = main.load_configs_initialize_training()
    _check_settings(cfgs, job)
    given = (cfgs, gpus_per_node, run_name, hdf5_path)
    if job.processes > 1:
        run.spawn(child, job, (pickle.dumps(given),))
    loader.load_worker(rank, *given)


def child(local_rank: int, job: ShimJob, given: bytes) -> None:
    """One process of -DDP; a spawned interpreter in which nothing is patched yet.

    `given` is pickled: unpickling the settings imports StudioGAN, which needs the stubs first.
    """

    def train_here(rank: Any) -> None:
        loader = install(job, local_rank)
        loader.load_worker(rank, *pickle.loads(given))

    run.run_child(job, local_rank, train_here)


def arguments(job: ShimJob) -> list[str]:
    given = [
        *("-cfg", job.config, "-data", "data/CUSTOM", "-save", ".", "-t", "-hdf5", "-l", "-ref", "valid"),
        *("--seed", str(job.seed), "--num_workers", str(job.num_workers)),
        # save_freq must be a multiple of print_freq.
        *("--print_freq", str(math.gcd(job.print_every, job.save_every)), "--save_freq", str(job.save_every)),
        *("-metrics", *(("fid", "is", "prdc") if job.evaluate else ("none",))),
    ]
    if job.checkpoint is not None:
        given += ["-ckpt", job.checkpoint]
    if job.freeze_layers is not None and not job.first_step:
        given += ["--freezeD", str(job.freeze_layers)]
    if job.processes > 1:
        given += ["-DDP", "--backend", "gloo" if job.device == "cpu" else "nccl"]
    return given + ["-sync_bn"] * job.sync_bn


def install(job: ShimJob, rank: int) -> Any:
    """Imports StudioGAN's loader and patches it for this process. Returns it."""
    _stub_imports()
    run.patch_torch(job)
    loader: Any = import_module("loader")
    loader.WORKER = worker_class(loader.WORKER, job, StepLoop(job, rank))
    loader.DataLoader = functools.partial(make_loader, loader.DataLoader)
    loader.ckpt.make_ckpt_dir = lambda folder: folder  # nothing is saved there
    loader.ckpt.load_StudioGAN_ckpts = _patch_load(loader.ckpt.load_StudioGAN_ckpts, job)
    model: Any = import_module("models.model")
    model.DDP = run.parallel_class(model.DDP, job)
    if job.device == "cpu":
        _patch_for_cpu(loader, model.DDP)
    return loader


def _stub_imports() -> None:
    """wandb would report to its service; the others are stubbed if missing, for features that are not covered."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    names = {"wandb": ("init", "log", "finish", "Image")}
    if find_spec("kornia") is None:
        names |= {"kornia": (), "kornia.filters": ("get_gaussian_kernel2d", "filter2d")}
    if find_spec("timm") is None:
        layers = ("DropPath", "to_2tuple", "trunc_normal_")
        names |= {"timm": (), "timm.models": (), "timm.models.layers": layers}
    for module_name, attributes in names.items():
        sys.modules[module_name] = module = ModuleType(module_name)
        for name in attributes:
            setattr(module, name, nothing)


def make_loader(data_loader: Any, *arguments: Any, **options: Any) -> Any:
    if options.get("num_workers") == 0:
        options.pop("persistent_workers", None)  # torch refuses it without workers
    return data_loader(*arguments, **options, worker_init_fn=process.init_worker)


def _patch_for_cpu(loader: Any, parallel: Any) -> None:
    """-DDP gives each process a device number, and the evaluation moves pictures to "cuda" by name."""
    sampler = loader.DistributedSampler
    to: Any = torch.Tensor.to
    loader.DistributedSampler = lambda data, rank, **options: sampler(data, rank=0 + rank, **options)
    for name in ("metrics.preparation", "metrics.features"):
        if hasattr(import_module(name), "DDP"):
            setattr(import_module(name), "DDP", parallel)  # noqa: B010

    def to_cpu(self: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        return to(self, *("cpu" if value == "cuda" else value for value in arguments), **options)

    torch.Tensor.to = to_cpu  # type: ignore[method-assign, assignment]


def _check_settings(cfgs: Any, job: ShimJob) -> None:
    run.check_steps(job, job.first_step, cfgs.OPTIMIZATION.total_steps)
    if bool(job.lecam) != bool(cfgs.LOSS.apply_lecam):
        raise UserError(f"config: LOSS.apply_lecam: found {cfgs.LOSS.apply_lecam}, but the job says {job.lecam}")
    wanted, optimization = job.optimizer, cfgs.OPTIMIZATION
    optimization.g_lr, optimization.d_lr = wanted.g_lr, wanted.d_lr
    optimization.beta1, optimization.beta2 = wanted.beta1, wanted.beta2


def _patch_load(original: Any, job: ShimJob) -> Any:
    """Checks the step, keeps the run's name and seed; a fine-tuning starts with new LeCam anchors."""

    def load_checkpoints(**options: Any) -> Any:
        seed = options["RUN"].seed
        result = original(**options)
        _, step, epoch, topk, aa_p, best_step, best_fid, best_path, lecam_emas, logger = result
        options["RUN"].seed = seed
        if not job.first_step:
            step, best_step, best_fid, best_path, lecam_emas = 0, 0, None, None, None
        run.check_steps(job, step, job.last_step)
        return RUN_NAME, step, epoch, topk, aa_p, best_step, best_fid, best_path, lecam_emas, logger

    return load_checkpoints


def worker_class(base: Any, job: ShimJob, step_loop: StepLoop) -> type:
    class Worker040(base):
        def prepare_train_iter(self, epoch_counter: int) -> None:
            """Called last before the first iteration."""
            run.prepare(job, step_loop, self.Dis, self.OPTIMIZATION.g_optimizer, self.OPTIMIZATION.d_optimizer)
            # With --freezeD a resumed run would start at 0 and drop its optimisers.
            self.RUN.freezeD = -1 if job.freeze_layers is None else job.freeze_layers
            restored = restore_lecam(self.lecam_ema, job)
            if job.lecam:
                log_event(
                    "lecam",
                    type="standard",
                    **{"lambda": self.LOSS.lecam_lambda},
                    restored=restored,
                    rank=step_loop.rank,
                )
            step_loop.save = lambda step: self.save(step, False)
            super().prepare_train_iter(epoch_counter)

        def train_discriminator(self, current_step: int) -> Any:
            """Called first in an iteration: d_first is always true (dialects/v040.py)."""
            step_loop.begin_iteration(current_step)
            return super().train_discriminator(current_step)

        def visualize_fake_images(self, num_cols: int, current_step: int) -> None:
            """Not drawn: sample grids come from the checkpoints, the same for both engines."""

        def save(self, step: int, is_best: bool) -> None:
            def write(folder: Path) -> None:
                self.RUN.ckpt_dir = str(folder)
                super(Worker040, self).save(step, False)
                if job.lecam:
                    state = {ours: torch.tensor(getattr(self.lecam_ema, theirs)) for ours, theirs in EMA_KEYS.items()}
                    torch.save(state, folder / f"lecam-step={step}.pt")

            step_loop.publish(step, bool(is_best), write)

    return Worker040


def restore_lecam(lecam_ema: Any, job: ShimJob) -> int:
    """1 if StudioGAN's checkpoint or the file next to it had the anchors of the resumed run."""
    path = Path(job.checkpoint or ".") / f"lecam-step={job.first_step}.pt"
    if job.lecam and job.first_step and path.is_file():
        state = torch.load(path, weights_only=True)
        for ours, theirs in EMA_KEYS.items():
            if state[ours] is not None:
                setattr(lecam_ema, theirs, float(state[ours]))
    restored = bool(job.first_step) and lecam_ema.D_real != EMA_START
    if job.lecam and not restored:  # the first batches set them, even if that step is long past
        lecam_ema.start_itr = max(lecam_ema.start_itr, job.first_step + 1)
    return int(restored)
