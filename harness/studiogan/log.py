"""What StudioGAN's output says, line by line. Nothing that a line may hold makes this fail.

In: whole lines. Out: events; a line that says nothing we know is `Unknown`.
"""

import math
import re
from dataclasses import dataclass

# The form of its lines: src/utils/log.py, the same in 0.2.0 and 0.4.0.
LINE = re.compile(r"\[[A-Z]+\] [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} > (.*)")
NUMBER = r"([-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?(?:e[-+]?[0-9]{1,4})?|inf|nan))(?=\s|$)"
STEP = r"([0-9]{1,12})"
# src/worker.py, LOG_FORMAT: 0.2.0 says Discriminator_loss and Generator_loss, 0.4.0 Gen_loss and Dis_loss.
PROGRESS = re.compile(rf"Step:\s+{STEP} Progress: [0-9.]+% Elapsed: ")
D_LOSS = re.compile(rf" Dis(?:criminator)?_loss: {NUMBER}")
G_LOSS = re.compile(rf" Gen(?:erator)?_loss: {NUMBER}")
FIGURES = {
    name: re.compile(pattern)
    for name, pattern in {
        "fid": rf"FID score \(Step: {STEP}, Using \w+ moments\): {NUMBER}",
        "best_fid": rf"Best FID score \(Step: {STEP}, Using \w+ moments\): {NUMBER}",
        "is": rf"Inception score \(Step: {STEP}, [0-9]+ generated images\): {NUMBER}",
        "f8": rf"F_8 score \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "f1_8": rf"F_1/8 score \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "precision": rf"Improved Precision \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "recall": rf"Improved Recall \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "density": rf"Density \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "coverage": rf"Coverage \(Step: {STEP}, Using \w+ images\): {NUMBER}",
    }.items()
}
OURS = "carforge: "  # lines of the shim's own: a word, then key=value


@dataclass(frozen=True)
class Losses:
    """Losses of the update `step` (from 1); nan or infinite where they were."""

    step: int
    d_loss: float
    g_loss: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.d_loss) and math.isfinite(self.g_loss)


@dataclass(frozen=True)
class Figure:
    """One of its own measurements: `name` is a key of FIGURES."""

    step: int
    name: str
    value: float


@dataclass(frozen=True)
class ShimEvent:
    """A line of the shim's own, as `saved step=6 best=0`: its first word, and the rest."""

    word: str
    rest: str


@dataclass(frozen=True)
class Note:
    """Anything else in the form of its log."""

    text: str


@dataclass(frozen=True)
class Unknown:
    text: str


Event = Losses | Figure | ShimEvent | Note | Unknown


def parse_line(line: str) -> Event:
    """What one whole line says."""
    if line.startswith(OURS):
        word, _, rest = line.removeprefix(OURS).strip().partition(" ")
        return ShimEvent(word, rest)
    found = LINE.search(line)  # not `match`: a progress bar may stand before it
    if not found:
        return Unknown(line)
    text = found[1].strip()
    if text.startswith("Step:"):
        return _parse_progress(text) or Unknown(line)
    for name, pattern in FIGURES.items():
        if figure := pattern.match(text):
            return Figure(int(figure[1]), name, float(figure[2]))
    return Note(text)


def _parse_progress(text: str) -> Losses | None:
    step, d_loss, g_loss = PROGRESS.match(text), D_LOSS.search(text), G_LOSS.search(text)
    if not (step and d_loss and g_loss):
        return None
    return Losses(int(step[1]), float(d_loss[1]), float(g_loss[1]))
