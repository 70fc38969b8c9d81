"""One start of StudioGAN, from preparing its working folder to handling its end.

In: the checked setup and the starting checkpoint. Out: status.json says done, interrupted or failed; nothing is left
running.
"""

import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from harness.config.experiment import config_to_dict
from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, UserError
from harness.native.evaluate_while_training import Evaluations
from harness.native.sample_grids import save_reals
from harness.native.train import out_of_memory_message
from harness.runtime.progress import Reporter
from harness.runtime.rng import seed_for
from harness.runtime.run_life import RunLife
from harness.storage.atomic import remove_folder
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir
from harness.studiogan.follow_log import FollowedRun, LogFollower
from harness.studiogan.preflight import StudioGanSetup, ignored_keys, setup_to_job
from harness.studiogan.process import StudioganProcess
from harness.studiogan.shim.process import EXIT_OUT_OF_MEMORY
from harness.studiogan.weights.convert import export_checkpoint
from harness.studiogan.workdir import make_workdir, write_job

SHIM = Path(__file__).parent / "shim" / "main.py"
POLL_SEC = 0.2
STOP_GRACE_SEC = 120.0  # after a signal to us: to finish its step and save
HANG_GRACE_SEC = 10.0  # after too long a silence
SEEDS = 2**31


def supervise(run: FollowedRun, life: RunLife, setup: StudioGanSetup, packed: PackedSet) -> None:
    """Trains from the newest checkpoint to the last step, or to `life.target`."""
    evaluations = Evaluations(run, life)
    if run.step >= life.target:
        evaluations.evaluate_if_due()  # killed before this step was evaluated
        return life.already_finished(run.step)
    life.start(run)
    reporter = _begin(run, life, setup, packed)
    evaluations.evaluate_if_due()
    follower = LogFollower(run, life, evaluations, reporter, _prepare(run, life, setup, packed))
    _finish(_run_process(setup, follower, life.stopping), follower, life)


def _begin(run: FollowedRun, life: RunLife, setup: StudioGanSetup, packed: PackedSet) -> Reporter:
    config, optim = run.config, run.config.optim
    pictures = optim.batch_size * optim.acml_steps * optim.d_updates_per_step
    env = {"device": run.hardware.text, "processes": setup.processes, "engine": "studiogan",
           "studiogan": config.studiogan.version, "checkout": setup.checkout, "python_of_studiogan": setup.python,
           **run.facts}  # fmt: skip
    reporter = life.make_reporter(pictures, config.train.log_every_steps, **env)
    life.log(f"{life.rundir.path}: {run.hardware.text}: steps {run.step} to {life.target} on {packed.count} pictures")
    if ignored := ignored_keys(config):
        life.log(f"ignored by StudioGAN: {', '.join(ignored)}")
    life.write_status("running", run.step)
    if run.step == 0:
        save_reals(life.rundir, packed, config.train.sample_count)
    return reporter


def _prepare(run: FollowedRun, life: RunLife, setup: StudioGanSetup, packed: PackedSet) -> Path:
    """Creates the working folder with everything in it. Absolute path: StudioGAN's own paths are relative to it."""
    config, step = run.config, run.step
    # The same seed would repeat the first batches and latents.
    seed = seed_for(config.seed, "studiogan", step) % SEEDS if step else config.seed
    workdir = make_workdir(life.rundir, config, packed, setup.rendered).resolve()
    if run.start_checkpoint is not None:
        source, version = workdir / "source", config.studiogan.version
        export_checkpoint(run.start_checkpoint, source, version=version, seed=seed, run_name=config.name)
        if step == 0:  # LeCam's anchors belong to the source's batches
            for path in source.glob("lecam-step=*.pt"):
                path.unlink()
        if config.model.apply_g_ema:
            _add_missing_ema(source)
    job = setup_to_job(
        setup, seed=seed, first_step=step, last_step=life.target, has_source=run.start_checkpoint is not None
    )
    write_job(workdir, job, {"config": config_to_dict(config), "facts": run.facts})
    return workdir


def _add_missing_ema(source: Path) -> None:
    """A checkpoint without a moving average gets a copy of G as one, as in the native engine."""
    for path in source.glob("model=G-current-*.pth"):
        average = path.with_name(path.name.replace("=G-", "=G_ema-", 1))
        if not average.exists():
            shutil.copyfile(path, average)


@dataclass(frozen=True)
class ProcessResult:
    """`code`: exit code, negative for a signal; `silent`: stopped for lack of output; `killed`: did not stop in
    time.
    """

    code: int
    silent: bool
    killed: bool
    refusal: str
    tail: list[str]


def _run_process(setup: StudioGanSetup, follower: LogFollower, stopping: list[int]) -> ProcessResult:
    """Starts StudioGAN, follows its output to the end and passes a signal on. No process is left when this returns."""
    command = [str(setup.python), "-u", str(SHIM), "JOB.json"]
    child = StudioganProcess(command, follower.workdir, raw_log_path(follower.rundir))
    stop_sent_sec, silent, killed = None, False, False
    try:
        while child.running and not killed:
            follower.process_lines(child.read(POLL_SEC))
            if stop_sent_sec is None:
                silent = not stopping and child.silent_sec > setup.config.studiogan.silent_after_sec
                if stopping or silent:
                    child.request_stop()
                    stop_sent_sec = time.monotonic()
            else:
                killed = time.monotonic() - stop_sent_sec > (HANG_GRACE_SEC if silent else STOP_GRACE_SEC)
    except BaseException:
        child.end()
        raise
    code, lines = child.end()
    follower.process_lines(lines)
    follower.import_saves()
    follower.unknown_lines += bool(child.partial_line)
    return ProcessResult(code, silent, killed, child.refusal, list(child.lines))


def raw_log_path(rundir: RunDir) -> Path:
    """All output of StudioGAN, of all starts."""
    return rundir.path / "studiogan.log"


def _finish(result: ProcessResult, follower: LogFollower, life: RunLife) -> None:
    """Ends the run. Raises Interrupted or UserError, with StudioGAN's last lines, unless it reached its last step."""
    if follower.unknown_lines:
        life.rundir.log(
            f"{follower.unknown_lines} lines of StudioGAN's log were not understood; the whole log is in studiogan.log"
        )
    if result.code == 0 and follower.complete:
        remove_folder(follower.workdir)
        return life.end()
    by_signal = result.code == EXIT_RESUMABLE or (bool(life.stopping) and result.code < 0)
    if by_signal and not result.silent:
        remove_folder(follower.workdir)
        life.stop(f"StudioGAN did not stop within {STOP_GRACE_SEC:.0f} s and was killed; " if result.killed else "")
    error = UserError(_failure_message(result, follower))
    for line in result.tail:
        error.add_note(line)
    raise error


def _failure_message(result: ProcessResult, follower: LogFollower) -> str:
    """What went wrong, and what to do."""
    config, path = follower.run.config, follower.rundir.path
    last_line = result.tail[-1] if result.tail else "no output"
    if result.code == EXIT_USER_ERROR and result.refusal:
        return result.refusal
    if result.code == EXIT_OUT_OF_MEMORY:
        return out_of_memory_message(config, follower.run.hardware)
    if result.silent:
        seconds = config.studiogan.silent_after_sec
        what = f"was stopped after {seconds} s without a step or output (studiogan.silent_after_sec)"
    elif result.code == 0:
        what = f"ended without saving step {follower.last_step}"
    elif result.code < 0:
        name = signal.Signals(-result.code).name
        what = f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    else:
        what = f"ended with exit code {result.code}: {last_line}"
    return (
        f"{path}: StudioGAN {what}; its output is in {raw_log_path(follower.rundir)}, and the same command "
        f"resumes from step {follower.run.step}"
    )
