"""What all command lines share: options, and exit codes (2 = the user's mistake, 75 = the same command resumes)."""

import errno
import io
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from harness.config.paths import to_path
from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, Interrupted, UserError
from harness.messages import keep_output_open, log

# For options and arguments that are paths: expands `~`, which no shell does in `make OUT=~/x`.
AS_PATH: dict[str, Any] = {"parser": to_path, "metavar": "PATH"}
ConfigOption = Annotated[Path, typer.Option("--config", help="The experiment's YAML file.", **AS_PATH)]
ConfigOrNone = Annotated[Path | None, typer.Option("--config", help="The experiment's YAML file.", **AS_PATH)]
RunOption = Annotated[
    str | None, typer.Option("--run", help="A run (its folder in runs/); its config is used in place of --config.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value, overrides the file; may be repeated.")
]
PretrainedOption = Annotated[
    bool, typer.Option("--pretrained", help="Start from the networks and weights of the ready-made model.")
]
OtherSetOption = Annotated[
    bool,
    typer.Option(
        "--allow-other-set",
        help="Accept another training set than the run was trained on, and measure with it.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that this command did not write.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and touch nothing.")]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Errors that the user can fix: full, read-only or failing storage, and invalid file names.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
DISK_ERRORS += (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)


def make_app(about: str) -> typer.Typer:
    """A command line with plain tracebacks for our bugs, and help when no command is given."""
    return typer.Typer(help=about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def run_command(command: Callable[[], object]) -> None:
    """Runs a command line and exits: a user's mistake prints its line without a traceback; our bugs keep theirs."""
    keep_output_open()
    for number in not_ignored(STOP_SIGNALS):
        signal.signal(number, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may be invalid text
    try:
        command()
    except UserError as error:
        log(f"error: {error}")
        sys.exit(EXIT_USER_ERROR)
    except Interrupted as stop:
        log(str(stop) or "interrupted: the same command resumes from here")
        sys.exit(EXIT_RESUMABLE)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise  # a bug
        where = error.filename or "disk"
        log(f"error: {where}: {error.strerror}; no partial files are kept; fix this and run it again")
        sys.exit(EXIT_USER_ERROR)
    finally:
        _ignore_stop_signals()  # a signal now would replace the exit code


@contextmanager
def captured_signals(
    numbers: Iterable[int], on_signal: Callable[[int], None] = lambda number: None
) -> Iterator[list[int]]:
    """Collects these signals in a list instead of ending the process; calls `on_signal` with each.

    A SIGHUP that is ignored, as under nohup, stays so.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        on_signal(number)

    before = {number: signal.signal(number, note) for number in not_ignored(numbers)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def not_ignored(numbers: Iterable[int]) -> list[int]:
    """These signals without a SIGHUP that is ignored, as under nohup."""
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def _stop(number: int, _: object) -> None:
    """Raises Interrupted, so that temporary files are removed; further signals are ignored meanwhile."""
    _ignore_stop_signals()
    raise Interrupted(f"stopped by {signal.Signals(number).name}: the same command starts again")


def _ignore_stop_signals() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
