"""What a person sees of a learning encoder: lines or a bar, stats.jsonl, TensorBoard, and the curve of its error."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.runtime.progress import Reporter
from harness.storage.rundir import atomic_file

SEED_LATENT_MSE = 0.970  # what the first seed's encoder reached, on its own data


class EncoderReporter(Reporter):
    """Like training's, but a loss that only some steps have is averaged over those that have it."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor], step: int) -> None:
        for name in values:
            self.counts[name] = self.counts.get(name, 0) + 1
        super().add(values, step)

    def _flush(self, step: int) -> None:
        now = time.monotonic()
        sec_per_step = (now - self.began_at) / self.steps
        losses = {name: round(float(total) / self.counts[name], 6) for name, total in self.sums.items()}
        speed = {
            "sec_per_step": round(sec_per_step, 5),
            "pictures_per_sec": round(self.batch_size / sec_per_step, 1),
        }
        self.write_row({"step": step, **losses, **speed})
        self._tell(step, " ".join(f"{name} {value:.3f}" for name, value in losses.items()) + "  ", sec_per_step)
        self.sums, self.counts, self.steps, self.began_at = {}, {}, 0, now

    def write_row(self, row: dict[str, Any]) -> None:
        self.rundir.append_stats(row)
        self.events.add({name: value for name, value in row.items() if name != "step"}, row["step"])


def save_encoder_curve(rows: list[dict[str, Any]], path: Path) -> None:
    """Latent error against updates, of stats.jsonl rows, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    learning = [(row["step"], row["z_loss"]) for row in rows if row.get("z_loss") is not None]
    measured = [(row["step"], row["latent_mse"]) for row in rows if row.get("latent_mse") is not None]
    if learning:
        axis.plot(*zip(*learning, strict=True), linewidth=1, alpha=0.5, label="loss on z while learning")
    if measured:
        axis.plot(*zip(*measured, strict=True), marker="o", markersize=3, label="latent MSE on fresh pictures")
    axis.axhline(SEED_LATENT_MSE, linestyle="--", linewidth=1, color="grey", label="the first seed's: 0.970")
    axis.set_xlabel("updates")
    axis.legend(loc="upper right", fontsize=8)
    axis.grid(alpha=0.3)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
