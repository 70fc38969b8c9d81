"""A running StudioGAN, told in our own terms: rows of stats.jsonl, figures, checkpoints of ours, sample grids.

In: the lines of its log, and the saves in its working folder. Out: what the native engine leaves in runs/<name>/.
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

# A figure that two programs compute differently must not be taken for ours.
OWN = "studiogan"
NO_EVALUATION = {"step": 2**62}  # never taken for one of ours that waits to be noted


@dataclass
class FollowedRun:
    """A run that StudioGAN trains. `step`: of our newest checkpoint; 0 where it begins, from a checkpoint too.

    Attributes:
        begun_from: the checkpoint that StudioGAN loads.
        facts: what is kept with each checkpoint.
    """

    config: Config
    hardware: Hardware
    step: int
    num_classes: int
    begun_from: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)


class Follower:
    """`logged_step` is the step of the newest line of losses, which came at `logged_at_sec`; before there is one,
    training began then."""

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

    def hear(self, lines: list[LogLine]) -> None:
        """Nothing in a line stops the run: what is not understood is counted."""
        for heard in lines:
            event = parse_line(heard.line)
            if isinstance(event, ShimEvent):
                self._on_shim_event(event, heard.at_sec)
            elif isinstance(event, Losses) and self.logged_step < event.step <= self.last_step and self.training:
                self._on_progress(event, heard.at_sec)
            elif isinstance(event, Figure) and event.step <= self.last_step:
                self._on_figure(event)
            elif isinstance(event, Unknown | Losses | Figure) and self.training:  # before it, it prints its networks
                self.unknown_lines += 1

    def _on_shim_event(self, event: ShimEvent, at_sec: float) -> None:
        if event.word == "step":
            return self._on_step(event.rest, at_sec)
        self.rundir.log(f"{OWN}: {event.word} {event.rest}")
        if event.word == "training":
            self.training, self.logged_at_sec = True, at_sec
        elif event.word == "saved":
            self._rank_saves()  # first, so that the best one is not removed as an old one
            self.take_saves()
            self._keep_figures(best="best=1" in event.rest.split())

    def _on_step(self, rest: str, at_sec: float) -> None:
        found = re.fullmatch(f"step={STEP}", rest)
        step = int(found[1]) if found else 0
        if not (found and self.training and self.logged_step <= step <= self.last_step):
            self.unknown_lines += 1
        elif step > self.logged_step:
            self.reporter.show_step(step, self._sec_per_step(step, at_sec))

    def _sec_per_step(self, step: int, at_sec: float) -> float:
        """Since the newest line of losses."""
        return max(at_sec - self.logged_at_sec, 1e-6) / (step - self.logged_step)

    def _on_figure(self, event: Figure) -> None:
        """The best FID's line names the step that had it; it is kept beside the figures of the step just measured."""
        step = max(self.figures, default=event.step) if event.name == "best_fid" else event.step
        value = event.value if math.isfinite(event.value) else None
        self.figures.setdefault(step, {})[f"{OWN}_{event.name}"] = value

    def _on_progress(self, event: Losses, at_sec: float) -> None:
        losses = {"d_loss": event.d_loss, "g_loss": event.g_loss}
        self.reporter.show_losses(event.step, losses, self._sec_per_step(event.step, at_sec))
        self.logged_step, self.logged_at_sec = event.step, at_sec
        if not event.finite and not self.warned:
            self.warned = True
            self.reporter.log(f"WARNING: a loss is not finite at step {event.step}; StudioGAN goes on regardless")

    def take_saves(self) -> None:
        """Turns its newest saves into checkpoints of ours, oldest first; older ones than are kept are passed over."""
        new = [save for save in list_saves(self.workdir) if self.run.step < save[0] <= self.last_step]
        keep = self.run.config.train.keep_last
        if passed := [step for step, _ in new[:-keep]]:
            self.reporter.log(f"saves of steps {passed[0]} to {passed[-1]} are passed over: newer ones came meanwhile")
        for step, folder in new[-keep:]:
            # One that cannot be used ends the run: the next ones would be like it, and nothing would be kept.
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
            self.reporter.log(f"no memory left beside StudioGAN to draw samples of step {self.run.step}")

    def _rank_saves(self) -> None:
        """best.json by its own FID, where no evaluation of ours decides which checkpoint is the best."""
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

    def _keep_figures(self, best: bool) -> None:
        """What it measured itself before it saved; `best` is of the newest."""
        config, steps = self.run.config, sorted(self.figures)
        if not steps:
            return
        with open_evaluation_rows(config.data, config.evaluate.split) as real:
            split, said = real.split, annotate_figures({}, [real.note])
        for step in steps:
            head = {"step": step, "studiogan": config.studiogan.version, "split": split, **said}
            self.rundir.write_metrics(OWN, {**head, "best": best and step == steps[-1], **self.figures.pop(step)})

    @property
    def complete(self) -> bool:
        return self.run.step == self.last_step
