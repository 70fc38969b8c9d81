"""`python -m blend demo`: runs the command of every stage in order, from scratch to the page.

In: a config. Out: what the stages leave, `runs/<name>/demo/stages.json` with the progress, and the key `demo` of
metrics.json. Finished stages are skipped and an interrupted one resumes, whatever was killed and whenever. Imports no
torch: only the stages do.
"""

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PositiveInt, TypeAdapter

from blend.demo.stages import STAGES, Stage, page_path, run_folder, seconds_left
from blend.report.reading import number_at
from harness.cli import STOP_SIGNALS, captured_signals
from harness.config.experiment import Config, config_to_dict, load_config
from harness.errors import EXIT_RESUMABLE, Interrupted
from harness.messages import log
from harness.runtime.child import POLL_SEC, Child, Usage, tree_usage
from harness.runtime.progress import duration_text
from harness.storage.atomic import atomic_write, clean_leftovers
from harness.storage.cache import key_sha256
from harness.storage.json_files import read_json_or_none
from harness.storage.lock import hold_lock, process_start
from harness.storage.rundir import RunDir, refuse_other_size

RESUME = "the same command resumes from there"
SAMPLE_EVERY_SEC = 0.5
RECORD_EVERY_SEC = 5.0  # at most so much is missing from the record when the demo itself is killed
MAXRSS_MB = 2**-20 if sys.platform == "darwin" else 2**-10  # getrusage(2): bytes on macOS, kilobytes elsewhere


# ---- the record of all stages ----


class StageRecord(BaseModel):
    """`config_sha256`: of the config that it was done with. `usage`: the sum over all its starts."""

    done: bool = False
    config_sha256: str = ""
    starts: int = 0
    usage: Usage = Field(default_factory=Usage)


class RunningStage(BaseModel):
    """`before`: what the stage had used before this start."""

    stage: str
    pid: PositiveInt | None
    process_start: str | None
    before: Usage


class RecordFile(BaseModel):
    stages: dict[str, StageRecord]
    running: RunningStage | None


RECORD = TypeAdapter(RecordFile)


class DemoRecord:
    """In a folder of its own: stages clean the run's folder while this is written.

    Attributes:
        of: stage → record.
        running: the stage that was running when the record was last written.
    """

    def __init__(self, config: Config, stages: Sequence[Stage]) -> None:
        self.config, self.stages = config, stages
        self.folder = run_folder(config) / "demo"
        self.path, self.lock_path = self.folder / "stages.json", self.folder / "lock.json"
        self.config_sha256 = key_sha256(config_to_dict(config))
        self.of = {stage.name: StageRecord() for stage in stages}
        self.running: RunningStage | None = None

    def read(self) -> None:
        """A missing or damaged record counts as empty: every stage finds for itself what is done."""
        content = read_json_or_none(self.path, RECORD)
        if content is not None:
            kept = RECORD.validate_json(json.dumps(content))
            self.of |= {name: record for name, record in kept.stages.items() if name in self.of}
            self.running = kept.running

    def _save(self) -> None:
        content = RecordFile(stages=self.of, running=self.running)
        atomic_write(self.path, content.model_dump_json(indent=1) + "\n")

    def done_count(self) -> int:
        """Stages from the first on that are done with this config and whose outputs still exist."""
        for count, stage in enumerate(self.stages):
            record = self.of[stage.name]
            done = record.done and record.config_sha256 == self.config_sha256
            if not done or not self._has_outputs(stage):
                return count
        return len(self.stages)

    def _has_outputs(self, stage: Stage) -> bool:
        return all(path.exists() for path in stage.outputs(self.config))

    def seconds_left(self) -> list[float]:
        spent_sec = {name: record.usage.seconds for name, record in self.of.items()}
        return seconds_left(self.stages, self.done_count(), spent_sec)

    def begin(self, number: int) -> None:
        """A stage starts: it and all after it are no longer done. A stage that lost its outputs counts from zero."""
        for stage in self.stages[number:]:
            record = self.of[stage.name]
            if record.done and not self._has_outputs(stage):
                record.usage, record.starts = Usage(), 0
            record.done = False
        name = self.stages[number].name
        self.of[name].starts += 1
        self.running = RunningStage(stage=name, pid=None, process_start=None, before=self.of[name].usage)

    def keep(self, pid: int, usage: Usage) -> None:
        """What the running stage has used since this start."""
        assert self.running is not None
        if self.running.pid != pid:
            self.running.pid, self.running.process_start = pid, process_start(pid)
        self.of[self.running.stage].usage = self.running.before + usage
        self._save()

    def end(self, usage: Usage, done: bool) -> None:
        assert self.running is not None
        record = self.of[self.running.stage]
        record.usage = self.running.before + usage
        record.done, record.config_sha256, self.running = done, self.config_sha256, None
        self._save()

    def stop_orphan(self, log: Callable[[str], None]) -> None:
        """Stops the stage that a killed demo left running, and counts what it has used since."""
        if self.running is None:
            return
        usage = None if self.running.pid is None else stop_orphan(self.running.pid, self.running.process_start, log)
        if usage is not None and self.running.stage in self.of:
            self.of[self.running.stage].usage = self.running.before + usage
        self.running = None
        self._save()

    def write_metrics(self) -> None:
        """The key `demo` of the run's metrics.json, unless it is the same: sums, and each stage's own, in seconds and
        megabytes, over all starts."""
        total = sum((record.usage for record in self.of.values()), Usage())
        begun = {name: _rounded(record.usage) for name, record in self.of.items() if record.starts}
        rundir, figures = RunDir(run_folder(self.config)), {**_rounded(total), "stages": begun}
        if rundir.read_metrics().get("demo") != figures:
            rundir.write_metrics("demo", figures)


def _rounded(usage: Usage) -> dict[str, Any]:
    return {key: round(value, 1) for key, value in asdict(usage).items()}


# ---- a stage as a child process ----


class StageProcess(Child):
    """A running stage. Its stdout goes to stderr: stdout belongs to the demo.

    Attributes: usage (`peak_rss_mb`: of all its processes together, as sampled, or of the largest where that is more).
    """

    def __init__(self, command: list[str]) -> None:
        self.started_at_sec, self.usage = time.monotonic(), Usage()
        super().__init__(command, stdout=2, stderr=None)

    def watch(self, signals: list[int], record: Callable[[int, Usage], None]) -> int:
        """Waits for the end; the exit code, negative for a signal.

        The first of `signals` (filled by a handler) is passed on as SIGTERM, whichever it was: a stage that is still
        starting ends silently at that one. `record` gets pid and usage at once and every RECORD_EVERY_SEC. An exception
        here stops the stage too.
        """
        passed_on, sampled_at_sec, recorded_at_sec = False, float("-inf"), float("-inf")
        try:
            while (code := self.poll()) is None:
                if signals and not passed_on:
                    self.request_stop()
                    passed_on = True
                now = time.monotonic()
                if now - sampled_at_sec >= SAMPLE_EVERY_SEC:
                    self._sample()
                    sampled_at_sec = now
                if now - recorded_at_sec >= RECORD_EVERY_SEC:
                    record(self.pid, self.usage)
                    recorded_at_sec = now
                time.sleep(POLL_SEC)
        except BaseException:
            self.stop()
            raise
        return code

    def poll(self) -> int | None:
        if self._process.returncode is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                peak_mb = max(self.usage.peak_rss_mb, used.ru_maxrss * MAXRSS_MB)
                self.usage = Usage(time.monotonic() - self.started_at_sec, used.ru_utime + used.ru_stime, peak_mb)
        return self._process.returncode

    def _sample(self) -> None:
        used = tree_usage(self.pid) or Usage()
        cpu_sec = max(self.usage.cpu_sec, used.cpu_sec)  # falls when a worker is killed
        peak_mb = max(self.usage.peak_rss_mb, used.peak_rss_mb)
        self.usage = Usage(time.monotonic() - self.started_at_sec, cpu_sec, peak_mb)


def stop_orphan(pid: int, start: str | None, log: Callable[[str], None]) -> Usage | None:
    """Stops a stage whose demo was killed, as Ctrl-C would. Its usage in all; None where it had ended before.

    `start` is its `process_start`: by now the pid may belong to another process.
    """
    used: Usage | None = None
    while start is not None and process_start(pid) == start and (now := tree_usage(pid)) is not None:
        if used is None:
            log(f"a stage of an earlier demo is still running (process {pid}): waiting for it to save and end")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        used = now
        time.sleep(POLL_SEC)
    return used


# ---- running the stages ----


def demo_run(config_path: Path, overrides: list[str], dry_run: bool, stages: Sequence[Stage] = STAGES) -> Path:
    """Runs what is not done yet, then prints the page's path and the main figures. Returns that path.

    Raises:
        Interrupted: (exit code 75) the demo or a stage was stopped.
        SystemExit: a stage failed; its code.
        UserError: the config is faulty, the run has another size, or another demo is running there.
    """
    config = load_config(config_path, overrides)
    refuse_other_size(config)
    record = DemoRecord(config, stages)
    if dry_run:
        record.read()
        _print_plan(record, config_path, overrides)
        return page_path(config)
    record.folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(record.lock_path, _log):
        clean_leftovers(record.folder)
        record.read()
        record.stop_orphan(_log)
        with captured_signals(STOP_SIGNALS) as signals:
            _run_stages(record, config_path, overrides, signals)
        record.write_metrics()
    _print_outcome(config)
    return page_path(config)


def _run_stages(record: DemoRecord, config_path: Path, overrides: list[str], signals: list[int]) -> None:
    stages, first = record.stages, record.done_count()
    if first:
        _log(f"already done: {', '.join(stage.name for stage in stages[:first])}")
    elif not any(one.starts for one in record.of.values()):
        minutes = _about(sum(stage.expected_sec for stage in stages))
        _log(f"{len(stages)} stages, {minutes} on two cores. Stop it at any time: the same command resumes.")
    for number in range(first, len(stages)):
        stage, left, last = stages[number], record.seconds_left(), number == len(stages) - 1
        label = f"[{number + 1}/{len(stages)}] {stage.name}"
        whole = "" if last else f"; {_about(sum(left), '')} left in all"
        _log(f"{label}: {stage.about} ({_about(left[number])}{whole})")
        if signals:
            raise Interrupted(f"stopped before {label}: {RESUME}")
        if last:
            record.write_metrics()  # the last stage writes the page, which shows them
        record.begin(number)
        process = StageProcess(stage.full_command(config_path, overrides))
        code = process.watch(signals, record.keep)
        record.end(process.usage, done=code == 0)
        _check_end(label, code, bool(signals))


def _check_end(label: str, code: int, stopped: bool) -> None:
    """Returns if the next stage may start."""
    if stopped and code in (0, EXIT_RESUMABLE, -signal.SIGTERM):
        raise Interrupted(f"stopped in {label}: {RESUME}")
    if code == EXIT_RESUMABLE:
        raise Interrupted(f"{label} was interrupted: {RESUME}")
    if code < 0:
        cause = f"{signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
        raise Interrupted(f"{label} was killed by {cause}: {RESUME}")
    if code:
        _log(f"{label} ended with exit code {code}, for the reason above; once that is fixed, {RESUME}")
        raise SystemExit(code)


def _print_plan(record: DemoRecord, config_path: Path, overrides: list[str]) -> None:
    stages, first, left = record.stages, record.done_count(), record.seconds_left()
    for number, stage in enumerate(stages):
        state = "done" if number < first else _about(left[number])
        print(f"[{number + 1}/{len(stages)}] {stage.name}: {stage.about} ({state})")
        print(f"      {shlex.join(['python', *stage.full_command(config_path, overrides)[1:]])}")
    print(f"# the page: {page_path(record.config)}; {_about(sum(left))} in all")


def _print_outcome(config: Config) -> None:
    metrics = RunDir(run_folder(config)).read_metrics()

    def figure(key: str, form: str) -> str:
        value = number_at(metrics, key)
        return "unknown" if value is None else format(value, form)

    demo = metrics["demo"]
    encoder = f"latent error {figure('encoder.latent_mse', '.3f')} (0 = exact, 1 = the mean latent)"
    if number_at(metrics, "encoder.picture_error") is not None:
        encoder = f"picture error {figure('encoder.picture_error', '.4f')} in one pass"
    rows = {
        "encoder": encoder,
        "inversion": f"picture error {figure('inversion.refined_error', '.4f')}, "
        f"from the encoder's {figure('inversion.encoder_error', '.4f')}",
        "intensity": f"Spearman {figure('blend.spearman_mean', '.3f')} with the futurism that the reader sees",
        "futurism": f"{figure('blend.rise', '+.0f')} of 100 points from ordinary to futuristic",
        "time": f"{duration_text(demo['seconds'])}, {demo['cpu_sec']:,.0f} CPU-seconds, "
        f"at most {demo['peak_rss_mb'] / 1024:.1f} GB",
    }
    print(f"\n{page_path(config)}")
    for name, text in rows.items():
        print(f"  {name:<10} {text}")


def _about(seconds: float, word: str = "about ") -> str:
    if seconds < 50:
        return f"{word}{max(10, round(seconds / 10) * 10)} s"
    if seconds < 100 * 60:
        return f"{word}{max(1, round(seconds / 60))} min"
    return f"{word}{round(seconds / 3600)} h"


def _log(text: str) -> None:
    log(f"demo: {text}" if not text.startswith("[") else text)
