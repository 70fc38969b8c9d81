"""One start of StudioGAN from its working folder to its end, whatever that is, with a clear state left behind.

In: what was checked and where it begins. Out: status.json says done, interrupted or failed; nothing is left running.
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
from harness.native.train import out_of_memory_text
from harness.runtime.progress import Reporter
from harness.runtime.rng import seed_for
from harness.runtime.run_life import RunLife
from harness.storage.atomic import remove_folder
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir
from harness.studiogan.follow_log import FollowedRun, Follower
from harness.studiogan.preflight import StudioGanSetup, ignored_keys, job_of
from harness.studiogan.process import StudioganProcess
from harness.studiogan.shim.process import EXIT_OUT_OF_MEMORY
from harness.studiogan.weights.convert import export_checkpoint
from harness.studiogan.workdir import make_workdir, write_job

SHIM = Path(__file__).parent / "shim" / "main.py"
POLL_SEC = 0.2
STOP_GRACE_SEC = 120.0  # after a signal to us: it finishes its step and saves
HANG_GRACE_SEC = 10.0  # after it has said nothing for too long
SEEDS = 2**31


def supervise(run: FollowedRun, life: RunLife, setting: StudioGanSetup, packed: PackedSet) -> None:
    """From where it stands to the last step, or as far as is asked for."""
    evaluations = Evaluations(run, life)
    if run.step >= life.target:
        evaluations.evaluate_if_due()  # killed between the save and the end of its evaluation
        return life.leave(run.step)
    life.begin(run)
    reporter = _begin(run, life, setting, packed)
    evaluations.evaluate_if_due()
    follower = Follower(run, life, evaluations, reporter, _prepare(run, life, setting, packed))
    _conclude(_follow(setting, follower, life.stopping), follower, life)


def _begin(run: FollowedRun, life: RunLife, setting: StudioGanSetup, packed: PackedSet) -> Reporter:
    config, optim = run.config, run.config.optim
    pictures = optim.batch_size * optim.acml_steps * optim.d_updates_per_step
    env = {"device": run.hardware.text, "processes": setting.processes, "engine": "studiogan",
           "studiogan": config.studiogan.version, "checkout": setting.checkout, "python_of_studiogan": setting.python,
           **run.facts}  # fmt: skip
    reporter = life.report(pictures, config.train.log_every_steps, **env)
    life.log(f"{life.rundir.path}: {run.hardware.text}: steps {run.step} to {life.target} on {packed.count} pictures")
    if ignored := ignored_keys(config):
        life.log(f"ignored, StudioGAN has no such thing: {', '.join(ignored)}")
    life.write_status("running", run.step)
    if run.step == 0:
        save_reals(life.rundir, packed, config.train.sample_count)
    return reporter


def _prepare(run: FollowedRun, life: RunLife, setting: StudioGanSetup, packed: PackedSet) -> Path:
    """The working folder with everything in it. Its path is absolute: StudioGAN's own paths begin there."""
    config, step = run.config, run.step
    # Begun from one seed again, the first batches and latents would come again, too.
    seed = seed_for(config.seed, "studiogan", step) % SEEDS if step else config.seed
    workdir = make_workdir(life.rundir, config, packed, setting.rendered).resolve()
    if run.begun_from is not None:
        source, version = workdir / "source", config.studiogan.version
        export_checkpoint(run.begun_from, source, version=version, seed=seed, run_name=config.name)
        if step == 0:  # LeCam's anchors belong to the source's batches
            for path in source.glob("lecam-step=*.pt"):
                path.unlink()
        if config.model.apply_g_ema:
            _begin_average(source)
    job = job_of(setting, seed=seed, first_step=step, last_step=life.target, has_source=run.begun_from is not None)
    write_job(workdir, job, {"config": config_to_dict(config), "facts": run.facts})
    return workdir


def _begin_average(source: Path) -> None:
    """Where the checkpoint has no moving average, StudioGAN finds one that begins from G, as the native engine does."""
    for path in source.glob("model=G-current-*.pth"):
        average = path.with_name(path.name.replace("=G-", "=G_ema-", 1))
        if not average.exists():
            shutil.copyfile(path, average)


@dataclass(frozen=True)
class Ended:
    """`code`: its exit code, negative for a signal; `silent`: it was stopped because it said nothing."""

    code: int
    silent: bool
    killed: bool
    refusal: str
    tail: list[str]


def _follow(setting: StudioGanSetup, follower: Follower, stopping: list[int]) -> Ended:
    """Starts StudioGAN and hears it to its end; passes a signal on; nothing of it is left when this returns."""
    command = [str(setting.python), "-u", str(SHIM), "JOB.json"]
    child = StudioganProcess(command, follower.workdir, raw_log_path(follower.rundir))
    asked_at_sec, silent, killed = None, False, False
    try:
        while child.running and not killed:
            follower.hear(child.read(POLL_SEC))
            if asked_at_sec is None:
                silent = not stopping and child.silent_sec > setting.config.studiogan.silent_after_sec
                if stopping or silent:
                    child.request_stop()
                    asked_at_sec = time.monotonic()
            else:
                killed = time.monotonic() - asked_at_sec > (HANG_GRACE_SEC if silent else STOP_GRACE_SEC)
    except BaseException:
        child.end()
        raise
    code, lines = child.end()
    follower.hear(lines)
    follower.take_saves()
    follower.unknown_lines += bool(child.cut_line)
    return Ended(code, silent, killed, child.refusal, list(child.lines))


def raw_log_path(rundir: RunDir) -> Path:
    """All that StudioGAN printed, of all starts."""
    return rundir.path / "studiogan.log"


def _conclude(ended: Ended, follower: Follower, life: RunLife) -> None:
    """Raises Interrupted or UserError, with the end of what StudioGAN said, for all but the end that was asked for."""
    if follower.unknown_lines:
        life.rundir.log(
            f"{follower.unknown_lines} lines of StudioGAN's log were not understood; all are in studiogan.log"
        )
    if ended.code == 0 and follower.complete:
        remove_folder(follower.workdir)
        return life.end()
    by_signal = ended.code == EXIT_RESUMABLE or (bool(life.stopping) and ended.code < 0)
    if by_signal and not ended.silent:
        remove_folder(follower.workdir)
        life.stop(f"StudioGAN did not stop within {STOP_GRACE_SEC:.0f} s and was killed; " if ended.killed else "")
    error = UserError(_told(ended, follower))
    for line in ended.tail:
        error.add_note(line)
    raise error


def _told(ended: Ended, follower: Follower) -> str:
    """One line: what went wrong, and what to do."""
    config, path = follower.run.config, follower.rundir.path
    last_line = ended.tail[-1] if ended.tail else "it said nothing"
    if ended.code == EXIT_USER_ERROR and ended.refusal:
        return ended.refusal
    if ended.code == EXIT_OUT_OF_MEMORY:
        return out_of_memory_text(config, follower.run.hardware)
    if ended.silent:
        seconds = config.studiogan.silent_after_sec
        what = f"ended no step and said nothing for {seconds} s and was ended (studiogan.silent_after_sec)"
    elif ended.code == 0:
        what = f"ended without a save of step {follower.last_step}"
    elif ended.code < 0:
        name = signal.Signals(-ended.code).name
        what = f"was killed by {name}" + (" (too little memory?)" if name == "SIGKILL" else "")
    else:
        what = f"ended with exit code {ended.code}: {last_line}"
    return (
        f"{path}: StudioGAN {what}; all it said is in {raw_log_path(follower.rundir)}, and the same command goes on "
        f"from step {follower.run.step}"
    )
