"""Evaluation during training, every `evaluate.every_steps`, and the record of the best checkpoint.

`checkpoints/best.json` is written first: after a kill no step is evaluated twice, and no line of metrics.jsonl is
missing or repeated. The training is not affected: the evaluation loads the checkpoint that was just saved.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.checkpoints.checkpoint import (
    BEST_FILE,
    best_checkpoint,
    checkpoint_folder,
    purge_checkpoints,
    read_best,
    read_meta,
    rename_damaged,
)
from harness.checkpoints.load import load_checkpoint
from harness.config.experiment import Config
from harness.errors import NewerVersion, UserError
from harness.metrics.frechet import frechet_name
from harness.runtime.device import Hardware
from harness.runtime.dist import World
from harness.runtime.run_life import RunLife
from harness.storage.atomic import atomic_write
from harness.storage.json_files import read_json_lines, to_json
from harness.storage.rundir import RunDir

if TYPE_CHECKING:
    from harness.metrics.evaluate import Evaluator

# Figures of two evaluations are comparable if these are equal.
COMPARED_KEYS = (
    "extractor", "extractor_sha256", "resizer", "set", "split", "data_sha256", "real_count", "count", "batch_size",
    "seed", "sample_passes", "batch_statistics",
)  # fmt: skip


class Evaluated(Protocol):
    """The part of a run that an evaluation needs."""

    config: Config
    hardware: Hardware
    world: World
    step: int


class Evaluations:
    """The evaluations of a training run. Every process has an instance; rank 0 evaluates, the others wait.

    Raises UserError at once for what would fail later: a missing set, or missing weights of the feature extractor.
    """

    def __init__(self, run: Evaluated, life: RunLife) -> None:
        self.run, self.life, self.rundir = run, life, life.rundir
        self.settings = run.config.evaluate
        self.evaluator: Evaluator | None = None
        self.record: dict[str, Any] = {}
        if self.settings.every_steps:
            run.world.on_rank0(lambda: self._with_saved_rng(self._prepare))

    def due(self) -> bool:
        """Whether the current step is evaluated: every `every_steps`, and the last one. It is saved first."""
        every, step = self.settings.every_steps, self.run.step
        return bool(every and step) and (step % every == 0 or step == self.run.config.optim.total_steps)

    def evaluate_if_due(self) -> None:
        """Evaluates the current step if it is due and was not evaluated yet."""
        if self.due():
            self.run.world.on_rank0(lambda: self._with_saved_rng(self._evaluate))

    def _with_saved_rng(self, action: Callable[[], None]) -> None:
        """Restores torch's global generator, from which new networks are initialised."""
        device = self.run.hardware.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            action()

    def _prepare(self) -> None:
        from harness.metrics.evaluate import Evaluator  # imports scikit-learn, which most runs do not need

        self.evaluator = Evaluator(self.run.config.data, self.settings, self.run.hardware.device)
        self.record = record = read_best(self.rundir.checkpoints)
        if not record:
            return
        # Later checkpoints were damaged or removed: these steps will be trained and evaluated again.
        history = [[step, figure] for step, figure in record["history"] if step <= self.run.step]
        if len(history) < len(record["history"]):
            record["history"] = history
            self._write()
        if record["last"]["step"] <= self.run.step:
            _write_metrics_once(self.rundir, record["last"])  # killed between the two files
        self._rename_damaged_best()

    def _rename_damaged_best(self) -> None:
        while (best := best_checkpoint(self.rundir.checkpoints)) is not None:
            try:
                read_meta(best)
                return
            except NewerVersion:
                raise
            except ValueError as error:
                text = f"the best checkpoint, {best.name}, cannot be used: {error}; renamed to damaged-{best.name}"
                self.rundir.log(text)
                self.life.log(text)
                rename_damaged(best)

    def _evaluate(self) -> None:
        from harness.metrics.evaluate import EvaluationStopped

        assert self.evaluator is not None
        step = self.run.step
        name = frechet_name(self.evaluator.featurizer.name)
        if self.record.get("figure") == name and step in (done for done, _ in self.record["history"]):
            return
        folder = checkpoint_folder(self.rundir.checkpoints, step)
        try:
            loaded = load_checkpoint(folder, self.run.hardware.device)
            figures = self.evaluator.evaluate(loaded, stopped=lambda: bool(self.life.stopping))
        except EvaluationStopped:
            return self.life.log(f"step {step} is not evaluated yet; the same command will do it")
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory while evaluating step {step}, which is saved; try --set evaluate.batch_size="
                f"{max(2, self.settings.batch_size // 2)}, or --set evaluate.every_steps=0 to switch it off"
            ) from error
        evaluation = json.loads(to_json({"run": self.rundir.path.name, **figures}))
        self._record(evaluation, name)
        purge_checkpoints(self.rundir.checkpoints, self.run.config.train.keep_last)
        self.life.log(self._message(evaluation, name))

    def _record(self, evaluation: dict[str, Any], name: str) -> None:
        """Writes best.json, then metrics.jsonl and metrics.json. Figures that are not comparable start a new
        history.
        """
        key = {"figure": name, **{part: evaluation[part] for part in COMPARED_KEYS}}
        before = {"sample_passes": 0, **self.record.get("key", {})}  # earlier versions wrote none
        history = self.record["history"] if before == key else []
        history = [*history, [evaluation["step"], evaluation["figures"].get(name)]]
        self.record = {"figure": name, "key": key, "history": history, "last": evaluation}
        self._write()
        _write_metrics_once(self.rundir, evaluation)

    def _write(self) -> None:
        atomic_write(self.rundir.checkpoints / BEST_FILE, to_json(self.record, indent=1) + "\n")

    def _message(self, evaluation: dict[str, Any], name: str) -> str:
        best = best_checkpoint(self.rundir.checkpoints)
        figures = ", ".join(f"{figure} {value:.4f}" for figure, value in evaluation["figures"].items())
        reason = evaluation["left_out"].get(name)
        missing = f"; {name} is left out: {reason}" if reason else ""
        return f"step {evaluation['step']} evaluated: {figures}{missing}; best: {best.name if best else 'none yet'}"


def _write_metrics_once(rundir: RunDir, evaluation: dict[str, Any]) -> None:
    """Adds the evaluation to metrics.jsonl and metrics.json, unless they have it."""
    rows = [row["evaluate"] for row in read_json_lines(rundir.metrics_history_path) if row and "evaluate" in row]
    if evaluation not in rows:
        rundir.write_metrics("evaluate", evaluation)
    elif rows[-1] == evaluation != rundir.read_metrics().get("evaluate"):  # killed between these two
        metrics = {**rundir.read_metrics(), "evaluate": evaluation}
        atomic_write(rundir.metrics_path, to_json(metrics, indent=1) + "\n")
