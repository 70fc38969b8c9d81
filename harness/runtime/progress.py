"""Progress of a long job, as a bar or plain lines with rate and time left; for training also losses and curves.

Imports no torch.
"""

import io
import math
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.messages import log
from harness.storage.atomic import atomic_file
from harness.storage.rundir import RunDir

T = TypeVar("T")
LINE_EVERY_SEC, BAR_EVERY_SEC = 10.0, 0.1
QUIET_SEC = 30.0  # a line at least this often, even if steps are slow
FEW_POINTS = 10  # up to this many points of a curve get markers
CURVES = (
    ("d_loss", "g_loss"),
    ("d_real", "d_fake"),
    ("d_class", "g_class", "mismatch"),
    ("lecam", "gp", "r1", "similarity"),
)


class Progress:
    """`with Progress(label, total) as progress:` and repeated `progress.show(count)`.

    A bar on a terminal, otherwise a line every LINE_EVERY_SEC, on stderr. `total`: None if unknown; `keep_bar`: leave
    the bar on the terminal at the end.
    """

    def __init__(self, label: str, total: int | None, count: int = 0, keep_bar: bool = False) -> None:
        self.label, self.total = label, total
        self.began_at = self.shown_at = time.monotonic()
        self.bar: Any = _open_bar(label, total, count, keep_bar) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, count: int, about: str = "", timed: int | None = None) -> None:
        """`count` are done. `about`: text to add; `timed`: the number that took time, if not all."""
        now = time.monotonic()
        if count == self.total or now - self.shown_at < (LINE_EVERY_SEC if self.bar is None else BAR_EVERY_SEC):
            return
        rate = (count if timed is None else timed) / max(now - self.began_at, 1e-9)
        left = f", {duration_text(max(self.total - count, 0) / rate)} left" if self.total and rate else ""
        done = f"{count} of {self.total}" if self.total else f"{count}"
        about = f"{about}, " if about else ""
        self.put(count, f"{about}{rate:.1f}/s{left}", f"{self.label}: {done}{': ' if about else ', '}")

    def put(self, count: int, text: str, line_head: str) -> None:
        """Shows `text` beside the bar, or in a line after `line_head`."""
        self.move(count, text=text)
        if self.bar is None:
            log(line_head + text)
        self.shown_at = time.monotonic()

    def move(self, count: int, **fields: str) -> None:
        """Updates only the bar."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=count, **fields)


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yields the items with progress."""
    with Progress(label, total) as progress:
        for count, item in enumerate(items, 1):
            yield item
            progress.show(count)


def duration_text(seconds: float) -> str:
    """`12 s`, `3 min 05 s`, `2 h 07 min`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _open_bar(label: str, total: int | None, count: int, keep: bool) -> Any:
    from rich import console, progress

    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(), progress.TextColumn("{task.fields[text]}", markup=False),
        console=console.Console(stderr=True), transient=not keep,
    )  # fmt: skip
    bar.add_task(label, total=total, completed=count, text="")
    bar.start()
    return bar


class Reporter(Progress):
    """Progress of a training. Sums losses on the device and reads them back every `log_every` steps; a loss that only
    some steps have is averaged over those."""

    def __init__(self, rundir: RunDir, first_step: int, total_steps: int, batch_size: int, log_every: int) -> None:
        self.events = EventFile(rundir.path / "tensorboard", first_step)
        super().__init__(rundir.path.name, total_steps, first_step, keep_bar=True)
        self.rundir, self.total_steps, self.batch_size, self.log_every = rundir, total_steps, batch_size, log_every
        self.losses: dict[str, tuple[Any, int]] = {}  # name → (sum, a scalar on the device; number of steps)
        self.steps = 0

    def log(self, text: str) -> None:
        """One line on stderr and in log.txt."""
        self.rundir.log(text)
        log(text)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Adds the losses of one step (scalars on the device). Steps count from 1."""
        for name, value in values.items():
            total, count = self.losses.get(name, (0, 0))
            self.losses[name] = total + value, count + 1
        self.steps += 1
        now = time.monotonic()
        sec_per_step = (now - self.began_at) / self.steps
        if step % self.log_every and step != self.total_steps:
            return self.show_step(step, sec_per_step)
        means = {name: float(total) / count for name, (total, count) in self.losses.items()}
        self.show_losses(step, means, sec_per_step)
        self.losses, self.steps, self.began_at = {}, 0, now

    def show_step(self, step: int, sec_per_step: float) -> None:
        """A step between two rows: updates the bar; after QUIET_SEC also a line with speed and time left."""
        self.move(step)
        if time.monotonic() - self.shown_at >= QUIET_SEC:
            self._show_speed(step, "", sec_per_step)

    def show_losses(self, step: int, losses: Mapping[str, float], sec_per_step: float) -> None:
        """A row in stats.jsonl and TensorBoard, and a line."""
        row = {name: round(value, 6) for name, value in losses.items()}
        speed = {"sec_per_step": round(sec_per_step, 5), "pictures_per_sec": round(self.batch_size / sec_per_step, 1)}
        self.write_row({"step": step, **row, **speed})
        self._show_speed(step, "".join(f"{name} {value:.3f} " for name, value in row.items()) + " ", sec_per_step)

    def write_row(self, row: dict[str, Any]) -> None:
        self.rundir.append_stats(row)
        self.events.add({name: value for name, value in row.items() if name != "step"}, row["step"])

    def _show_speed(self, step: int, losses: str, sec_per_step: float) -> None:
        """Step, speed and time left: beside the bar or as a line, in log.txt and in status.json."""
        left = duration_text((self.total_steps - step) * sec_per_step)
        speed = f"{sec_per_step:.3f} s/step, {self.batch_size / sec_per_step:.0f} pictures/s, {left} left"
        head = f"step {step}/{self.total_steps}  {losses}"
        self.rundir.log(head + speed)
        self.put(step, speed, head)
        self.rundir.write_status("running", step=step, total_steps=self.total_steps)


class EventFile:
    """Scalars for TensorBoard. Each call is one write in this thread, so that a full disk raises here.

    One file per start; steps past `first_step` in earlier files are marked as purged.
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


def save_curves(
    rows: list[dict[str, Any]],
    path: Path,
    panels: Sequence[Sequence[str]] = CURVES,
    x_label: str = "generator updates",
    level: tuple[float, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Plots losses and figures of stats.jsonl rows against steps into one PNG.

    Args:
        panels: the names drawn in each; empty panels are left out.
        level: (value, label) of a dashed reference line.
        labels: legend texts that differ from the names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [names for names in panels if any(name in row for row in rows for name in names)]
    if not panels:
        return
    figure = Figure(figsize=(8, 2.4 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, names in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        for name in names:
            numbers = [(row["step"], row[name]) for row in rows if name in row]
            points = [(x, y if isinstance(y, int | float) and abs(y) < 1e300 else math.nan) for x, y in numbers]
            marker = "o" if len(points) <= FEW_POINTS else None
            label = (labels or {}).get(name, name)
            axis.plot(*zip(*points, strict=True), label=label, linewidth=1, marker=marker, markersize=3)
        if level is not None:
            axis.axhline(level[0], linestyle="--", linewidth=1, color="grey", label=level[1])
        axis.legend(loc="upper right", fontsize=8)
        axis.grid(alpha=0.3)
    axis.set_xlabel(x_label)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
