"""`python -m blend demo`: every stage's own command in turn, from nothing to the page.

In: a config. Out: what the stages leave, `runs/<name>/demo/` and the key `demo` of metrics.json. A stage that is done
is passed over, one that was interrupted goes on. Imports no torch: only the stages do.
"""

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from blend.demo.process import StageProcess
from blend.demo.record import DemoRecord
from blend.demo.stages import STAGES, Stage, page_path, run_folder, seconds_left
from blend.report.design_rows import number_at
from harness.cli import STOP_SIGNALS, captured_signals
from harness.config.experiment import Config, load_config
from harness.errors import EXIT_RESUMABLE, Interrupted
from harness.messages import log
from harness.runtime.progress import duration_text
from harness.storage.atomic import clean_leftovers
from harness.storage.lock import hold_lock
from harness.storage.rundir import RunDir, refuse_other_size

SAME_COMMAND = "the same command resumes from there"


def demo_run(config_path: Path, overrides: list[str], dry_run: bool, stages: Sequence[Stage] = STAGES) -> Path:
    """Runs what is not done yet, then prints the page's path and the figures that matter. Returns that path.

    Raises Interrupted (exit code 75) when it was stopped or a stage was, SystemExit with the code of a stage that
    failed, UserError for a faulty config, for a run of another size, and while another demo is at work in the same run.
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
        record.stop_left_behind(_log)
        with captured_signals(STOP_SIGNALS) as signals:
            _run_stages(record, config_path, overrides, signals)
        record.write_metrics()
    _print_outcome(config)
    return page_path(config)


def _run_stages(record: DemoRecord, config_path: Path, overrides: list[str], signals: list[int]) -> None:
    stages, first = record.stages, record.done_count()
    if first:
        _log(f"done before: {', '.join(stage.name for stage in stages[:first])}")
    elif not any(record.seconds().values()):
        minutes = _about(sum(stage.expected_sec for stage in stages))
        _log(f"{len(stages)} stages, {minutes} on two cores. Stop whenever you like: the same command resumes.")
    for number in range(first, len(stages)):
        stage, label = stages[number], f"[{number + 1}/{len(stages)}] {stages[number].name}"
        left = seconds_left(stages, number, record.seconds())
        whole = f"; {_about(sum(left), '')} left in all" if len(left) > 1 else ""
        _log(f"{label}: {stage.about} ({_about(left[0])}{whole})")
        if signals:
            raise Interrupted(f"stopped before {label}: {SAME_COMMAND}")
        if number == len(stages) - 1:
            record.write_metrics()  # so that the page, which the last stage writes, shows them
        record.begin(number)
        process = StageProcess(stage.full_command(config_path, overrides))
        code = process.watch(signals, record.keep)
        record.end(process.usage, done=code == 0)
        _check_end(label, code, bool(signals))


def _check_end(label: str, code: int, stopped: bool) -> None:
    """Returns where the next stage may start."""
    if stopped and code in (0, EXIT_RESUMABLE, -signal.SIGTERM):
        raise Interrupted(f"stopped in {label}: {SAME_COMMAND}")
    if code == EXIT_RESUMABLE:
        raise Interrupted(f"{label} was interrupted: {SAME_COMMAND}")
    if code < 0:
        cause = f"{signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
        raise Interrupted(f"{label} was ended by {cause}: {SAME_COMMAND}")
    if code:
        _log(f"{label} ended with exit code {code}, for the reason above; once mended, {SAME_COMMAND}")
        raise SystemExit(code)


def _print_plan(record: DemoRecord, config_path: Path, overrides: list[str]) -> None:
    stages, first = record.stages, record.done_count()
    left = [0.0] * first + seconds_left(stages, first, record.seconds())
    for number, (stage, seconds) in enumerate(zip(stages, left, strict=True)):
        state = "done" if number < first else _about(seconds)
        print(f"[{number + 1}/{len(stages)}] {stage.name}: {stage.about} ({state})")
        print(f"      {shlex.join(['python', *stage.full_command(config_path, overrides)[1:]])}")
    print(f"# the page: {page_path(record.config)}; {_about(sum(left))} in all")


def _print_outcome(config: Config) -> None:
    metrics = RunDir(run_folder(config)).read_metrics()

    def figure(key: str, form: str) -> str:
        value = number_at(metrics, key)
        return "unknown" if value is None else format(value, form)

    demo = metrics["demo"]
    encoder = f"latent error {figure('encoder.latent_mse', '.3f')} (0 = exact, 1 = blind; the seed: 0.970)"
    if number_at(metrics, "encoder.picture_error") is not None:
        encoder = f"picture error {figure('encoder.picture_error', '.4f')} in one pass"
    rows = {
        "encoder": encoder,
        "inversion": f"picture error {figure('inversion.refined_error', '.4f')}, "
        f"from the encoder's {figure('inversion.encoder_error', '.4f')}",
        "intensity": f"Spearman {figure('blend.spearman_mean', '.3f')} with the futurism that is read",
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
