"""What may befall a run from outside, and what becomes of it: signals, full disks, little memory, lost processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import torch

from harness.cli import noted_signals
from harness.errors import UserError
from harness.native.step import Training
from harness.storage.rundir import RunDir


def stop_signals() -> AbstractContextManager[list[int]]:
    """A list that SIGTERM, SIGINT and SIGUSR1 fill: the loop finishes its step, saves and leaves."""

    def say(number: int) -> None:
        with suppress(OSError):  # not print: it cannot be entered again while it is at work
            os.write(2, f"\n{signal.Signals(number).name}: finishing this step and saving\n".encode())

    return noted_signals((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), say)


@contextmanager
def disk_errors_told(rundir: RunDir) -> Iterator[None]:
    """A full disk or a missing permission, told in one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"{rundir.path}: cannot write or read{where}: {error.strerror or error}; what was saved is kept, and the "
            "same command goes on from there once this is mended"
        ) from error


def out_of_memory_text(run: Training) -> str:
    optim = run.config.optim
    return (
        f"out of memory on {run.hardware.text} with batch {optim.batch_size}; try --set optim.batch_size="
        f"{max(2, optim.batch_size // 2)} --set optim.acml_steps={2 * optim.acml_steps} in a new run; the last "
        "checkpoint is kept"
    )


def explained(error: Exception, run: Training) -> Exception:
    """Out of memory and lost processes become advice; everything else stays what it is."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(out_of_memory_text(run))
    lost = isinstance(error, torch.distributed.DistError) or "onnection" in str(error) or "gloo" in str(error)
    if run.world.size > 1 and isinstance(error, RuntimeError) and lost:
        return UserError(
            f"process {run.world.rank}: another process of this run is gone; the same command goes on from the last "
            "checkpoint"
        )
    return error
