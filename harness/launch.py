"""`python -m harness.launch N train …`: N processes on this machine through torchrun, keeping their exit code.

torchrun itself exits with a traceback and code 1 whatever its processes returned: 2 (user error) and 75 (run again)
would be lost.
"""

import os
import sys

from harness.cli import run_command
from harness.config.experiment import load_config
from harness.errors import Interrupted, UserError


def launch(count_text: str, arguments: list[str]) -> None:
    """Runs `python -m harness <arguments>` in `count_text` processes; exits with the first failure's code.

    StudioGAN starts its processes itself and only gets their number.
    """
    if not count_text.isdigit() or int(count_text) < 1:
        raise UserError(f"NPROC: found {count_text!r}, allowed a number of processes, try NPROC=2")
    if trains_with_studiogan(arguments):
        from harness.__main__ import app

        app([*arguments, "--processes", count_text])
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    # torchrun would set one thread and warn about it.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(count_text))))
    try:
        torchrun(["--standalone", f"--nproc_per_node={count_text}", "-m", "harness", *arguments])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
    except SignalException as error:
        raise Interrupted("stopped by a signal: the same command resumes from the last checkpoint") from error


def trains_with_studiogan(arguments: list[str]) -> bool:
    """Whether the config among these arguments has `engine: studiogan`. UserError if it is invalid."""
    config, overrides = None, []
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option == "--config":
            config = value
        elif option == "--set":
            overrides.append(value)
    return config is not None and load_config(config, overrides).engine == "studiogan"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("harness.launch: found no number of processes, try `make train NPROC=2`")
    run_command(lambda: launch(sys.argv[1], sys.argv[2:]))
