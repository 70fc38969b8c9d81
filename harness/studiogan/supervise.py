"""One start of StudioGAN from its working folder to its end, whatever that is, with a clear state left behind.

In: what was checked and where it begins. Out: status.json says done, interrupted or failed; nothing is left running.
"""

import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.cli import say
from harness.config.experiment import config_to_dict
from harness.errors import EXIT_RESUMABLE, EXIT_USER_ERROR, Interrupted, UserError
from harness.native.evaluate_while_training import Evaluations
from harness.native.sample_grids import save_reals
from harness.native.signals_and_errors import out_of_memory_text
from harness.runtime.device import Hardware
from harness.runtime.progress import Reporter
from harness.runtime.rng import seed_for
from harness.storage.hdf5 import PackedSet
from harness.storage.rundir import RunDir, remove_folder
from harness.studiogan.follow_log import FollowedRun, Follower
from harness.studiogan.preflight import Setting, ignored_keys, job_of
from harness.studiogan.process import StudioganProcess
from harness.studiogan.shim.process import EXIT_OUT_OF_MEMORY
from harness.studiogan.weights.convert import export_checkpoint
from harness.studiogan.workdir import make_scratch, write_job

SHIM = Path(__file__).parent / "shim" / "main.py"
POLL_SEC = 0.2
STOP_GRACE_SEC = 120.0  # after a signal to us: it finishes its step and saves
HANG_GRACE_SEC = 10.0  # after it has said nothing for too long
SEEDS = 2**31


@dataclass(frozen=True)
class Beginning:
    """`checkpoint`: what StudioGAN loads; `step`: what it counts from, 0 when fine-tuning begins from another run."""

    checkpoint: Path | None
    step: int
    facts: dict[str, Any]


class StudioganFailed(UserError):
    """It did not do what it was started for; `tail` is the end of what it said."""

    def __init__(self, text: str, tail: list[str]) -> None:
        super().__init__(text)
        self.tail = tail


def supervise(
    rundir: RunDir,
    setting: Setting,
    packed: PackedSet,
    beginning: Beginning,
    limit_steps: int | None,
    stopping: list[int],
) -> None:
    """From the beginning to the last step, or as far as is asked for. The caller holds the run's lock."""
    config = setting.config
    total = config.optim.total_steps
    target = min(total, limit_steps or total)
    device = torch.device("cuda", 0) if setting.device == "cuda" else torch.device("cpu")
    run = FollowedRun(config, Hardware(device, "fp32", setting.text), beginning.step)
    evaluations = Evaluations(run.as_training(), rundir, stopping)
    if run.step >= target:
        evaluations.catch_up(say)  # killed between the save and the end of its evaluation
        say(f"{rundir.path}: already at step {run.step} of {total}")
        if run.step >= total and (rundir.read_status() or {}).get("state") != "done":  # killed right after the save
            rundir.write_status("done", step=run.step, total_steps=total)
        return
    reporter = _begin(rundir, setting, packed, beginning, target)
    try:
        evaluations.catch_up(reporter.say)
        scratch = _prepare(rundir, setting, packed, beginning, target)
        follower = Follower(rundir, run, beginning.facts, scratch, reporter, evaluations, target)
        ended = _follow(setting, follower, stopping)
        _conclude(ended, follower, bool(stopping))
    except Interrupted:
        raise
    except Exception as error:
        tail = error.tail if isinstance(error, StudioganFailed) else []
        with suppress(OSError):  # a full disk, say, which is what `error` tells
            message = "\n".join([str(error), *tail])
            rundir.write_status("failed", step=run.step, total_steps=total, message=message)
        raise
    finally:
        reporter.close()


def _begin(rundir: RunDir, setting: Setting, packed: PackedSet, beginning: Beginning, target: int) -> Reporter:
    config, optim = setting.config, setting.config.optim
    rundir.drop_stats_after(beginning.step)
    rundir.write_env(device=setting.text, processes=setting.processes, engine="studiogan",
                     studiogan=config.studiogan.version, checkout=setting.checkout, python_of_studiogan=setting.python,
                     **beginning.facts)  # fmt: skip
    pictures = optim.batch_size * optim.acml_steps * optim.d_updates_per_step
    reporter = Reporter(rundir, beginning.step, target, pictures, config.train.log_every_steps)
    reporter.say(f"{rundir.path}: {setting.text}: steps {beginning.step} to {target} on {packed.count} pictures")
    if ignored := ignored_keys(config):
        reporter.say(f"ignored, StudioGAN has no such thing: {', '.join(ignored)}")
    rundir.write_status("running", step=beginning.step, total_steps=optim.total_steps)
    if beginning.step == 0:
        run = FollowedRun(config, Hardware(torch.device("cpu"), "fp32", ""), 0)
        save_reals(run.as_training(), rundir, packed)
    return reporter


def _prepare(rundir: RunDir, setting: Setting, packed: PackedSet, beginning: Beginning, target: int) -> Path:
    """The working folder with everything in it. Its path is absolute: StudioGAN's own paths begin there."""
    config, step = setting.config, beginning.step
    # Begun from one seed again, the first batches and latents would come again, too.
    seed = seed_for(config.seed, "studiogan", step) % SEEDS if step else config.seed
    scratch = make_scratch(rundir, config, packed, setting.rendered).resolve()
    if beginning.checkpoint is not None:
        source, version = scratch / "source", config.studiogan.version
        export_checkpoint(beginning.checkpoint, source, version=version, seed=seed, run_name=config.name)
        if step == 0:  # LeCam's anchors belong to the source's batches
            for path in source.glob("lecam-step=*.pt"):
                path.unlink()
        if config.model.apply_g_ema:
            _begin_average(source)
    job = job_of(setting, seed=seed, first_step=step, last_step=target, has_source=beginning.checkpoint is not None)
    write_job(scratch, job, {"config": config_to_dict(config), "facts": beginning.facts})
    return scratch


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


def _follow(setting: Setting, follower: Follower, stopping: list[int]) -> Ended:
    """Starts StudioGAN and hears it to its end; passes a signal on; nothing of it is left when this returns."""
    command = [str(setting.python), "-u", str(SHIM), "JOB.json"]
    child = StudioganProcess(command, follower.scratch, raw_log_path(follower.rundir))
    asked_at_sec, silent, killed = None, False, False
    try:
        while child.running and not killed:
            follower.hear(child.read(POLL_SEC))
            if asked_at_sec is None:
                silent = not stopping and child.silent_sec > setting.config.studiogan.silent_after_sec
                if stopping or silent:
                    child.ask_to_stop()
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


def _conclude(ended: Ended, follower: Follower, stopped: bool) -> None:
    """Writes the state. Raises Interrupted or StudioganFailed for all but the end that was asked for."""
    rundir, reporter, run = follower.rundir, follower.reporter, follower.run
    total = run.config.optim.total_steps
    if follower.unknown_lines:
        rundir.log(f"{follower.unknown_lines} lines of StudioGAN's log were not understood; all are in studiogan.log")
    if ended.code == 0 and follower.complete:
        state, text = ("done", "done") if run.step == total else ("interrupted", "stopped as asked")
        rundir.write_status(state, step=run.step, total_steps=total)
        remove_folder(follower.scratch)
        return reporter.say(f"{text} at step {run.step}")
    by_signal = ended.code == EXIT_RESUMABLE or (stopped and ended.code < 0)
    if by_signal and not ended.silent:
        late = f"StudioGAN did not stop within {STOP_GRACE_SEC:.0f} s and was killed; " if ended.killed else ""
        rundir.write_status("interrupted", step=run.step, total_steps=total, message=late)
        remove_folder(follower.scratch)
        reporter.say(f"{late}stopped at step {run.step}, saved; the same command goes on")
        raise Interrupted(f"{late}saved at step {run.step}")
    raise StudioganFailed(_told(ended, follower), ended.tail)


def _told(ended: Ended, follower: Follower) -> str:
    """One line: what went wrong, and what to do."""
    config, path = follower.run.config, follower.rundir.path
    last_line = ended.tail[-1] if ended.tail else "it said nothing"
    if ended.code == EXIT_USER_ERROR and ended.refusal:
        return ended.refusal
    if ended.code == EXIT_OUT_OF_MEMORY:
        return out_of_memory_text(follower.run.as_training())
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
