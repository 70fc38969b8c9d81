"""What a person sees of a running training: a bar or plain lines, stats.jsonl, TensorBoard, loss curves."""

import io
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from harness.storage.rundir import RunDir

QUIET_SEC = 30.0  # where steps are slow, rows are far apart; so long a person is left without a line
CURVES = (
    ("d_loss", "g_loss"),
    ("d_real", "d_fake"),
    ("d_class", "g_class", "mismatch"),
    ("lecam", "gp", "r1", "similarity"),
)


class Reporter:
    """Collects the losses of every step on the device and reads them back once every `log_every` steps."""

    def __init__(self, rundir: RunDir, first_step: int, total_steps: int, batch_size: int, log_every: int):
        self.rundir, self.total_steps, self.batch_size, self.log_every = rundir, total_steps, batch_size, log_every
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.began_at = self.spoke_at = time.monotonic()
        self.events = EventFile(rundir.path / "tensorboard", first_step)
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"), console=self.console, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self.task = self.bar.add_task(rundir.path.name, total=total_steps, completed=first_step, text="")
        self.bar.start()

    def say(self, text: str) -> None:
        """One line for the person and for log.txt."""
        self.rundir.log(text)
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def add(self, values: dict[str, Tensor], step: int) -> None:
        """Takes the losses of one step (scalars on the device). Step counts from 1."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps += 1
        if step % self.log_every == 0 or step == self.total_steps:
            self.bar.update(self.task, completed=step)
            self._flush(step)
        else:
            self.show_step(step, (time.monotonic() - self.began_at) / self.steps)

    def show_step(self, step: int, sec_per_step: float) -> None:
        """A step between two rows: the bar moves; after QUIET_SEC a line says how fast it is and how long it takes."""
        self.bar.update(self.task, completed=step)
        if time.monotonic() - self.spoke_at >= QUIET_SEC:
            self._tell(step, "", sec_per_step)

    def _flush(self, step: int) -> None:
        now = time.monotonic()
        sec_per_step = (now - self.began_at) / self.steps
        row: dict[str, Any] = {"step": step, **{k: round(float(v) / self.steps, 6) for k, v in self.sums.items()}}
        row |= {"sec_per_step": round(sec_per_step, 5), "pictures_per_sec": round(self.batch_size / sec_per_step, 1)}
        self.rundir.append_stats(row)
        self.events.add({name: value for name, value in row.items() if name != "step"}, step)
        losses = " ".join(f"{name} {value:.3f}" for name, value in row.items() if name in sum(CURVES, ()))
        self._tell(step, f"{losses}  ", sec_per_step)
        self.sums, self.steps, self.began_at = {}, 0, now

    def _tell(self, step: int, losses: str, sec_per_step: float) -> None:
        """One line of how far it is: beside the bar or printed, in log.txt and in status.json."""
        left = duration_text((self.total_steps - step) * sec_per_step)
        speed = f"{sec_per_step:.3f} s/step, {self.batch_size / sec_per_step:.0f} pictures/s, {left} left"
        self.bar.update(self.task, text=speed)
        line = f"step {step}/{self.total_steps}  {losses}{speed}"
        self.rundir.log(line)
        if not sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)
        self.rundir.write_status("running", step=step, total_steps=self.total_steps)
        self.spoke_at = time.monotonic()

    def close(self) -> None:
        self.bar.stop()


class EventFile:
    """Scalars for TensorBoard. Each call is one write of this thread, so that a full disk is noticed here and at once.

    A new file for each start; what earlier ones hold past `first_step` is marked as taken back.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[attr-defined]

        folder.mkdir(exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._append(file_version="brain.Event:2")
        self._append(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: dict[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(step=step, summary=Summary(value=scalars))

    def _append(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **fields).SerializeToString())
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, record.getvalue())
        finally:
            os.close(descriptor)


def duration_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def save_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss curves of stats.jsonl rows as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from harness.storage.rundir import atomic_file

    panels = [names for names in CURVES if any(name in row for row in rows for name in names)]
    if not panels:
        return
    figure = Figure(figsize=(8, 2.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, names in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axis.legend(loc="upper right", fontsize=8)
        axis.grid(alpha=0.3)
    axis.set_xlabel("generator updates")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
