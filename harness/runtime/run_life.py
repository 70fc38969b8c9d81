"""Everything around the training of a run: lock, signals, status, reporter, and one line about its end.

status.json says done, interrupted or failed at the end, unless the process is killed.
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

RUN_STOP_SIGNALS = (*STOP_SIGNALS, signal.SIGUSR1)  # Slurm sends SIGUSR1 before a time limit


class Stepping(Protocol):
    """`step`: finished updates."""

    step: int


class RunLife:
    """A run in progress, made by `run_life`. Each process has its own; only rank 0 writes and logs.

    Attributes:
        stopping: filled by RUN_STOP_SIGNALS; the trainer then finishes the step, saves and calls `stop`.
        resources: closed at the end, the lock last.
        total_steps, target: steps of the whole run, and the last step of this start.
    """

    def __init__(self, rundir: RunDir, world: World, stopping: list[int], resources: ExitStack) -> None:
        self.rundir, self.world, self.stopping, self.resources = rundir, world, stopping, resources
        self.total_steps = self.target = 0
        self.run: Stepping | None = None
        self.reporter: Reporter | None = None
        self.memory_advice = ""

    @property
    def step(self) -> int:
        assert self.run is not None
        return self.run.step

    def log(self, text: str) -> None:
        """One line on stderr; once there is a reporter, in log.txt too."""
        if self.reporter:
            self.reporter.log(text)
        elif self.world.is_rank0:
            log(text)

    def open(self, config: Config, allow_config_change: bool) -> None:
        """Creates or finds the folder of this config's run and locks it until the end."""
        self.rundir = RunDir.open(config, allow_config_change=allow_config_change)
        self.resources.enter_context(self.rundir.lock())

    def set_target(self, total_steps: int, limit_steps: int | None) -> None:
        self.total_steps = total_steps
        self.target = min(total_steps, limit_steps or total_steps)

    def write_status(self, state: State, step: int, message: str = "") -> None:
        self.rundir.write_status(state, step=step, total_steps=self.total_steps, message=message)

    @property
    def is_done(self) -> bool:
        return (self.rundir.read_status() or {}).get("state") == "done"

    def already_finished(self, step: int, saved_is_done: bool = True) -> None:
        """The target was reached before. Marks a finished run as done if it was killed right after its last save."""
        self.log(f"{self.rundir.path}: already at step {step} of {self.total_steps}")
        if self.world.is_rank0 and saved_is_done and step >= self.total_steps and not self.is_done:
            self.write_status("done", step)

    def start(self, run: Stepping, memory_advice: str = "") -> None:
        """From here on status.json is about this run, including its failure.

        Args:
            memory_advice: the error message when the device runs out of memory.
        """
        self.run, self.memory_advice = run, memory_advice

    def make_reporter(self, batch_size: int, log_every: int, **env: Any) -> Reporter:
        """The reporter from the run's step on, dropping later statistics. `env`: further fields of env.json."""
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
        """Everything is saved after a signal. Raises Interrupted."""
        if self.world.is_rank0:
            self.write_status("interrupted", self.step, reason)
            self.log(f"{reason}stopped at step {self.step}, saved; the same command resumes")
        raise Interrupted(f"{reason}saved at step {self.step}")

    def fail(self, error: Exception) -> NoReturn:
        """Writes the failure (with the error's notes) to status.json, and raises the error or a UserError for it."""
        if self.run and self.world.is_rank0:
            with suppress(OSError):  # perhaps a full disk, which caused `error`
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
    """The context of a training run.

    Raises:
        UserError: another process is training this run, or the disk cannot be written.
        Interrupted: after `stop`.
    """

    def on_signal(number: int) -> None:
        with suppress(OSError):  # print is not reentrant
            os.write(2, f"\n{signal.Signals(number).name}: finishing this step and saving\n".encode())

    with (
        translate_disk_errors(rundir.path),
        captured_signals(RUN_STOP_SIGNALS, on_signal) as stopping,
        ExitStack() as resources,
    ):
        life = RunLife(rundir, world or World(), stopping, resources)
        try:
            yield life
        except Interrupted:
            raise
        except Exception as error:
            life.fail(error)
        finally:
            if life.reporter:
                life.reporter.close()
