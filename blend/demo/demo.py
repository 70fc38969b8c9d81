"""`python -m blend demo`: runs the command of every stage in order, from nothing to the page.

In: a config. Out: what the stages leave, `runs/<name>/demo/` and the key `demo` of metrics.json. Finished stages are
skipped, an interrupted one resumes. Imports no torch: only the stages do.
"""

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from blend.demo.process import StageProcess
from blend.demo.record import DemoRecord
from blend.demo.stages import STAGES, Stage, page_path, run_folder
from blend.report.reading import number_at
from harness.cli import STOP_SIGNALS, captured_signals
from harness.config.experiment import Config, load_config
from harness.errors import EXIT_RESUMABLE, Interrupted
from harness.messages import log
from harness.runtime.progress import duration_text
from harness.storage.atomic import clean_leftovers
from harness.storage.lock import hold_lock
from harness.storage.rundir import RunDir, refuse_other_size

RESUME = "the same command resumes from there"


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
