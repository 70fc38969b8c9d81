"""Follows a running StudioGAN: its log and its saves become stats.jsonl, metrics, checkpoints and sample grids.

In: the lines of its log, and the saves in its working folder. Out: the files that the native engine writes to
runs/<name>/.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.checkpoint import BEST_FILE, purge_checkpoints, read_best
from harness.checkpoints.load import load_checkpoint
from harness.config.experiment import Config
from harness.native.evaluate_while_training import Evaluations
from harness.native.sample_grids import save_samples
from harness.runtime.device import Hardware
from harness.runtime.dist import World
from harness.runtime.progress import Reporter, save_curves
from harness.runtime.run_life import RunLife
from harness.storage.atomic import atomic_write
from harness.storage.json_files import to_json
from harness.storage.splits import annotate_figures, open_evaluation_rows
from harness.studiogan.log import STEP, Figure, Losses, ShimEvent, Unknown, parse_line
from harness.studiogan.process import LogLine
from harness.studiogan.weights.convert import import_checkpoint
from harness.studiogan.workdir import drop_saves, list_saves

# Prefix of StudioGAN's own figures, which are computed differently from ours.
OWN = "studiogan"
NO_EVALUATION = {"step": 2**62}  # larger than any step: never written to metrics.jsonl


@dataclass
class FollowedRun:
    """A run that StudioGAN trains.

    Attributes:
        step: of our newest checkpoint; 0 for a new run, also one that starts from another run's weights.
        start_checkpoint: the checkpoint that StudioGAN loads.
        facts: stored in the meta.json of each checkpoint.
    """

    config: Config
    hardware: Hardware
    step: int
    num_classes: int
    start_checkpoint: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)


class LogFollower:
    """Turns log lines and saves into the run's files.

    Attributes:
        logged_step, logged_at_sec: step and time of the newest line of losses; before the first one, of the start.
    """

    def __init__(
        self,
        run: FollowedRun,
        life: RunLife,
        evaluations: Evaluations,
        reporter: Reporter,
        workdir: Path,
    ) -> None:
        self.run, self.rundir, self.workdir = run, life.rundir, workdir
        self.reporter, self.evaluations = reporter, evaluations
        self.last_step, self.logged_step, self.logged_at_sec = life.target, run.step, 0.0
        self.training, self.warned = False, False
        self.unknown_lines = 0
        self.figures: dict[int, dict[str, float | None]] = {}

    def process_lines(self, lines: list[LogLine]) -> None:
        """Lines that are not understood are counted; none of them stops the run."""
        for line in lines:
            event = parse_line(line.line)
            if isinstance(event, ShimEvent):
                self._on_shim_event(event, line.at_sec)
            elif isinstance(event, Losses) and self.logged_step < event.step <= self.last_step and self.training:
                self._on_progress(event, line.at_sec)
            elif isinstance(event, Figure) and event.step <= self.last_step:
                self._on_figure(event)
            elif isinstance(event, Unknown | Losses | Figure) and self.training:  # before, it prints its networks
                self.unknown_lines += 1

    def _on_shim_event(self, event: ShimEvent, at_sec: float) -> None:
        if event.word == "step":
            return self._on_step(event.rest, at_sec)
        self.rundir.log(f"{OWN}: {event.word} {event.rest}")
        if event.word == "training":
            self.training, self.logged_at_sec = True, at_sec
        elif event.word == "saved":
            self._update_best()  # first, so that the best save is not purged as an old one
            self.import_saves()
            self._write_figures(best="best=1" in event.rest.split())

    def _on_step(self, rest: str, at_sec: float) -> None:
        found = re.fullmatch(f"step={STEP}", rest)
        step = int(found[1]) if found else 0
        if not (found and self.training and self.logged_step <= step <= self.last_step):
            self.unknown_lines += 1
        elif step > self.logged_step:
            self.reporter.show_step(step, self._sec_per_step(step, at_sec))

    def _sec_per_step(self, step: int, at_sec: float) -> float:
        """Mean since the newest line of losses."""
        return max(at_sec - self.logged_at_sec, 1e-6) / (step - self.logged_step)

    def _on_figure(self, event: Figure) -> None:
        """The line of the best FID names an earlier step; it is written with the figures of the step just measured."""
        step = max(self.figures, default=event.step) if event.name == "best_fid" else event.step
        value = event.value if math.isfinite(event.value) else None
        self.figures.setdefault(step, {})[f"{OWN}_{event.name}"] = value

    def _on_progress(self, event: Losses, at_sec: float) -> None:
        losses = {"d_loss": event.d_loss, "g_loss": event.g_loss}
        self.reporter.show_losses(event.step, losses, self._sec_per_step(event.step, at_sec))
        self.logged_step, self.logged_at_sec = event.step, at_sec
        if not event.finite and not self.warned:
            self.warned = True
            self.reporter.log(f"WARNING: a loss is not finite at step {event.step}; StudioGAN continues regardless")

    def import_saves(self) -> None:
        """Converts its newest saves into checkpoints of ours, oldest first; those beyond `train.keep_last` are
        skipped.
        """
        new = [save for save in list_saves(self.workdir) if self.run.step < save[0] <= self.last_step]
        keep = self.run.config.train.keep_last
        if skipped := [step for step, _ in new[:-keep]]:
            self.reporter.log(f"saves of steps {skipped[0]} to {skipped[-1]} are skipped: newer ones exist by now")
        for step, folder in new[-keep:]:
            # An unusable save ends the run: later ones would be unusable too, and nothing would be kept.
            kept = import_checkpoint(folder, self.run.config, self.rundir.checkpoints, self.run.facts)
            before, self.run.step = self.run.step, step
            self._after_import(kept, before)
        drop_saves(self.workdir, self.run.step)

    def _after_import(self, kept: Path, before: int) -> None:
        purge_checkpoints(self.rundir.checkpoints, self.run.config.train.keep_last)
        every = self.run.config.train.sample_every_steps
        if self.run.step // every > before // every or self.run.step == self.last_step:
            self._draw_samples(kept)
        self.evaluations.evaluate_if_due()
        if self.run.hardware.device.type == "cuda":
            torch.cuda.empty_cache()  # StudioGAN needs it
        save_curves(self.rundir.read_stats(), self.rundir.path / "curves.png")

    def _draw_samples(self, kept: Path) -> None:
        try:
            save_samples(self.run, load_checkpoint(kept, self.run.hardware.device).generator, self.rundir)
        except torch.OutOfMemoryError:
            self.reporter.log(f"not enough memory beside StudioGAN to draw samples of step {self.run.step}")

    def _update_best(self) -> None:
        """best.json by StudioGAN's FID, unless our own evaluation ranks the checkpoints."""
        if self.run.config.evaluate.every_steps:
            return
        name, checkpoints = f"{OWN}_fid", self.rundir.checkpoints
        new = {step: figures[name] for step, figures in self.figures.items() if name in figures}
        record = read_best(checkpoints)
        ranked = dict(record["history"]) if record.get("figure") == name else {}
        if new:
            history = sorted((ranked | new).items())
            record = {"figure": name, "key": {"figure": name}, "history": history, "last": NO_EVALUATION}
            atomic_write(checkpoints / BEST_FILE, to_json(record, indent=1) + "\n")

    def _write_figures(self, best: bool) -> None:
        """StudioGAN's figures in metrics.jsonl; `best` belongs to the newest step."""
        config, steps = self.run.config, sorted(self.figures)
        if not steps:
            return
        with open_evaluation_rows(config.data, config.evaluate.split) as real:
            split, notes = real.split, annotate_figures({}, [real.note])
        for step in steps:
            head = {"step": step, "studiogan": config.studiogan.version, "split": split, **notes}
            self.rundir.write_metrics(OWN, {**head, "best": best and step == steps[-1], **self.figures.pop(step)})

    @property
    def complete(self) -> bool:
        return self.run.step == self.last_step
