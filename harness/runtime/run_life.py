"""The life of a run, whoever trains it: its lock, signals, its status, and in one line what ended it.

In: a run's folder. Out: status.json says done, interrupted or failed, whatever happens short of a kill.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn, Protocol

import torch

from harness.cli import STOP_SIGNALS, captured_signals
from harness.config.experiment import Config
from harness.errors import Interrupted, UserError
from harness.messages import log
from harness.runtime.dist import World
from harness.runtime.progress import Reporter
from harness.storage.rundir import RunDir, State, translate_disk_errors

RUN_STOP_SIGNALS = (*STOP_SIGNALS, signal.SIGUSR1)  # the last as Slurm sends it before a job's time is over


class Stepping(Protocol):
    """`step`: updates that are done."""

    step: int


class RunLife:
    """A run that is being worked on; `run_life` makes one. Each process has its own, and the first writes and speaks.

    Attributes:
        stopping: filled by RUN_STOP_SIGNALS; who trains finishes the step, saves and calls `stop`.
        held: what is closed at the end, the lock last.
        total_steps, target: steps of the whole run, and those that this start goes to.
    """

    def __init__(self, rundir: RunDir, world: World, stopping: list[int], held: ExitStack) -> None:
        self.rundir, self.world, self.stopping, self.held = rundir, world, stopping, held
        self.total_steps = self.target = 0
        self.run: Stepping | None = None
        self.reporter: Reporter | None = None
        self.memory_advice = ""

    @property
    def step(self) -> int:
        assert self.run is not None
        return self.run.step

    def log(self, text: str) -> None:
        """One line for the person; for log.txt too, once there is a reporter."""
        if self.reporter:
            self.reporter.log(text)
        elif self.world.is_rank0:
            log(text)

    def open(self, config: Config, allow_config_change: bool) -> None:
        """The folder of this config's run, made or found, and locked for as long as this lives."""
        self.rundir = RunDir.open(config, allow_config_change=allow_config_change)
        self.held.enter_context(self.rundir.lock())

    def aim(self, total_steps: int, limit_steps: int | None) -> None:
        self.total_steps = total_steps
        self.target = min(total_steps, limit_steps or total_steps)

    def write_status(self, state: State, step: int, message: str = "") -> None:
        self.rundir.write_status(state, step=step, total_steps=self.total_steps, message=message)

    @property
    def is_done(self) -> bool:
        return (self.rundir.read_status() or {}).get("state") == "done"

    def leave(self, step: int, saved_is_done: bool = True) -> None:
        """The target was reached before. A run that was killed right after its last save is done, if that ends it."""
        self.log(f"{self.rundir.path}: already at step {step} of {self.total_steps}")
        if self.world.is_rank0 and saved_is_done and step >= self.total_steps and not self.is_done:
            self.write_status("done", step)

    def begin(self, run: Stepping, memory_advice: str = "") -> None:
        """From here on status.json tells of this run, of its failure too.

        Args:
            memory_advice: what the user is told where the device has too little memory.
        """
        self.run, self.memory_advice = run, memory_advice

    def report(self, batch_size: int, log_every: int, **env: Any) -> Reporter:
        """The reporter of what follows; statistics past the run's step go, `env` is what env.json says besides."""
        self.rundir.drop_stats_after(self.step)
        self.rundir.write_env(**env)
        self.reporter = Reporter(self.rundir, self.step, self.target, batch_size, log_every)
        return self.reporter

    def end(self, more: str = "") -> None:
        """The target is reached and saved."""
        if self.world.is_rank0:
            whole = self.target == self.total_steps
            self.write_status("done" if whole else "interrupted", self.step)
            self.log(f"{'done' if whole else 'stopped as asked'} at step {self.step}{more}")

    def stop(self, reason: str = "") -> NoReturn:
        """All is saved after a signal. Raises Interrupted."""
        if self.world.is_rank0:
            self.write_status("interrupted", self.step, reason)
            self.log(f"{reason}stopped at step {self.step}, saved; the same command resumes")
        raise Interrupted(f"{reason}saved at step {self.step}")

    def fail(self, error: Exception) -> NoReturn:
        """Notes the failure (with the error's notes), and raises what the user is to read of it."""
        if self.run and self.world.is_rank0:
            with suppress(OSError):  # a full disk, say, which is what `error` tells
                self.write_status("failed", self.step, "\n".join([str(error), *getattr(error, "__notes__", [])]))
        if self.memory_advice and isinstance(error, torch.OutOfMemoryError):
            raise UserError(self.memory_advice) from error
        lost = isinstance(error, torch.distributed.DistError) or "onnection" in str(error) or "gloo" in str(error)
        if self.run and self.world.size > 1 and isinstance(error, RuntimeError) and lost:
            raise UserError(
                f"process {self.world.rank}: another process of this run is gone; the same command resumes from the "
                "last checkpoint"
            ) from error
        raise error


@contextmanager
def run_life(rundir: RunDir, world: World | None = None) -> Iterator[RunLife]:
    """What a run needs around it while it trains.

    Raises:
        UserError: another process is at work there, or the disk cannot be written.
        Interrupted: after `stop`.
    """

    def tell(number: int) -> None:
        with suppress(OSError):  # not print: it cannot be entered again while it is at work
            os.write(2, f"\n{signal.Signals(number).name}: finishing this step and saving\n".encode())

    with (
        translate_disk_errors(rundir.path),
        captured_signals(RUN_STOP_SIGNALS, tell) as stopping,
        ExitStack() as held,
    ):
        life = RunLife(rundir, world or World(), stopping, held)
        try:
            yield life
        except Interrupted:
            raise
        except Exception as error:
            life.fail(error)
        finally:
            if life.reporter:
                life.reporter.close()
