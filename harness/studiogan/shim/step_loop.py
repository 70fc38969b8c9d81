"""The step loop of one StudioGAN process: when it ends, saves and reports."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from harness.studiogan.shim.job import ShimJob
from harness.studiogan.shim.process import Heartbeat, log_event, stop_requested


class Finished(Exception):
    """last_step was reached and saved."""


class Stopped(Exception):
    """A signal arrived; the step was saved."""


class StepLoop:
    """The steps of one process: from first_step to last_step, or to the end of the iteration in which a signal
    arrived.
    """

    def __init__(self, job: ShimJob, rank: int = 0):
        self.job, self.rank = job, rank
        self.step = job.first_step  # generator updates done so far
        self.saved_step = job.first_step
        self.save: Callable[[int], None] | None = None  # writes a checkpoint; called by rank 0
        self._heartbeat: Heartbeat | None = None  # from the first iteration on

    def begin_iteration(self, step: int) -> None:
        """Every process calls this before iteration `step`."""
        self.step = step
        if self.rank == 0:
            self._report_step(step)
        done = step >= self.job.last_step
        if not done and not self._any_rank_stops():
            return
        if self.rank == 0 and self.saved_step != step:
            assert self.save is not None
            self.save(step)
        if dist.is_initialized():
            dist.barrier()
        if self.rank == 0:
            log_event("finished" if done else "stopped", step=step)
        raise Finished if done else Stopped

    def _report_step(self, step: int) -> None:
        if self._heartbeat:
            return self._heartbeat.beat(step)
        log_event("training", step=step)
        self._heartbeat = Heartbeat()

    def _any_rank_stops(self) -> bool:
        """Processes get a signal at different times; all must stop after the same iteration."""
        if not dist.is_initialized():
            return stop_requested()
        asked = torch.tensor(float(stop_requested()), device=self.job.device)
        dist.all_reduce(asked)
        return asked.item() > 0

    def publish(self, step: int, best: bool, write: Callable[[Path], None]) -> None:
        """`write` fills checkpoints/step-XXXXXXXX.partial, which is then renamed: a folder of that name is complete.

        StudioGAN itself removes its last checkpoint before it writes the next.
        """
        final = Path("checkpoints") / f"step-{step:08d}"
        partial = final.with_name(final.name + ".partial")
        for folder in (partial, final):
            shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.rename(final)
        self.saved_step = step
        log_event("saved", step=step, folder=final.as_posix(), best=int(best), peak_mib=_peak_mib(self.job.device))


def _peak_mib(device: str) -> int:
    """GPU memory reserved by torch; on a CPU, of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
